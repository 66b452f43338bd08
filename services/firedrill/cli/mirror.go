package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/sched"
	"github.com/firedrill/firedrill/services/injector"
	"github.com/firedrill/firedrill/services/mirror"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/runlog"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/mirror/stores"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// mirrorOptions are the flags that the mirror's commands share.
type mirrorOptions struct {
	state string
	json  bool
	quiet bool
	wait  bool
	spec  drill.Mirror
}

func (a *app) mirrorCmd() *cobra.Command {
	o := &mirrorOptions{}
	c := &cobra.Command{
		Use:   "mirror",
		Short: "Keep directories, ZFS datasets and buckets alike, and prove it",
		Long: `Mirror between two locations, in this process, and prove what both hold:

  firedrill mirror sync --dry-run dir:/srv/data s3+https://minio.example:9000/bucket/data
  firedrill mirror sync           dir:/srv/data s3+https://minio.example:9000/bucket/data
  firedrill mirror verify         dir:/srv/data s3+https://minio.example:9000/bucket/data

Locations:
  dir:/path                             a directory
  zfs:pool/dataset                      a dataset, read through a snapshot
  s3:store/bucket/prefix                a bucket of a store of the inventory
  s3+http://host:port/bucket/prefix     a bucket by its server's address, with the keys
  s3+https://host:port/bucket/prefix    in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
Instead of both locations, give the name of a mirror of the inventory. What is remembered
of a mirror, and the key that signs its manifests, lie in .firedrill of the current
directory: from another one, or from cron, name it with --state-dir. --state moves only
what is remembered: the key stays where --state-dir says.

Exit codes: 0 all is as it should be, 1 it is not (something was left undone or refused,
differs, or could not be proven), 130 interrupted, 254 bad arguments, 255 failed.`,
	}
	c.PersistentPreRun = func(*cobra.Command, []string) {
		tuneCollector()
		sched.Batch()
	}
	f := c.PersistentFlags()
	f.StringVar(&o.state, "state", "", "folder for what mirrors remember, without the key that signs, which --state-dir has; default: mirrors in the state directory")
	f.BoolVar(&o.json, "json", false, "print the result, and what goes wrong, as JSON")
	f.BoolVar(&o.quiet, "quiet", false, "draw no progress")
	a.inventoryFlag(f, "file that lists stores and mirrors")
	c.AddCommand(a.mirrorSyncCmd(o), a.mirrorVerifyCmd(o), a.mirrorDriftCmd(o), a.mirrorAuditCmd(o), a.mirrorDeletedCmd(o), a.mirrorRestoreCmd(o), a.mirrorStatusCmd(o), a.mirrorCancelCmd(o))
	for _, sub := range c.Commands() {
		a.errorsAsJSON(sub, o)
	}
	return c
}

// What lives in a mirror's heap stays below 10 MiB at any size of a tree, and below 40 while
// it copies very many small files. The collector's own 100 % would have it collect that
// again and again, which costs a run a tenth of its processor time. mirrorGarbage lets an
// unchanged run of a million files grow from 40 to 50 MiB; mirrorMemory, beyond what a
// mirror needs, keeps the garbage of the runs that copy from growing to as much again.
const (
	mirrorGarbage = 300 // percent of what lives
	mirrorMemory  = 56 << 20
)

// tuneCollector leaves alone what whoever started the process has chosen.
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(mirrorGarbage)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(mirrorMemory)
	}
}

// mirrorArgs takes the name of a mirror, or two locations.
func mirrorArgs(use string) (string, cobra.PositionalArgs) {
	return use + " NAME | FROM TO", func(_ *cobra.Command, args []string) error {
		if n := len(args); n < 1 || n > 2 {
			return fmt.Errorf("give two locations, or the name of a mirror of the inventory, and not %s", fold.Plural(n, "argument"))
		}
		return nil
	}
}

// errorsAsJSON has a command print what goes wrong as JSON where that was asked for.
func (a *app) errorsAsJSON(c *cobra.Command, o *mirrorOptions) {
	explain := func(err error) error {
		code := &exitError{code: run.BadArguments, err: err}
		if errors.As(err, &code); err == nil || !o.json || code.err == nil {
			return err
		}
		out := struct {
			Error    string `json:"error"`
			ExitCode int    `json:"exitCode"`
		}{code.err.Error(), code.code}
		if werr := writeJSON(a.Out, out); werr != nil {
			return failure(werr)
		}
		return &exitError{code: code.code}
	}
	args, runE := c.Args, c.RunE
	c.Args = func(c *cobra.Command, given []string) error { return explain(args(c, given)) }
	c.RunE = func(c *cobra.Command, given []string) error { return explain(runE(c, given)) }
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return explain(explainFlag(c, err)) })
}

// subject is the mirror that a command is about, and where it runs.
type subject struct {
	drill.Mirror
	env job.Env
	// log is what is known of its runs; it is zero before the first.
	log runlog.Log
	// before is what was known when the run of this command began, nil if nothing was.
	before *runlog.Log
	// unread is why what is known could not be read as a whole.
	unread error
	// named says that the inventory describes it, which is the file there, if any.
	named     bool
	inventory string
}

// dir is where it is remembered.
func (s *subject) dir() string { return runlog.Dir(s.env, s.Mirror) }

// title is what people call it.
func (s *subject) title() string { return mirrorTitle(s.Mirror) }

func mirrorTitle(m drill.Mirror) string {
	if m.Name != "" {
		return m.Name
	}
	return m.From + " -> " + m.To
}

// statusCommand is what shows more of a mirror.
func (a *app) statusCommand(s *subject) string {
	words := "mirror status " + s.From + " " + s.To
	if s.named {
		words = "mirror status --inventory " + a.inventory + " " + s.Name
	}
	return a.command(words)
}

// plain leaves out of an error the name that a mirror without one gets, and says what to do
// where it may be another directory's state that was meant.
func (s *subject) plain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if !s.named {
		text = strings.ReplaceAll(text, "mirror "+job.AdHoc(s.Mirror)+": ", "")
	}
	_, store := errors.AsType[*stores.StoreError](err)
	switch {
	case s.inventory != "" && (store || s.named && errors.Is(err, job.ErrSpec)):
		text = fmt.Sprintf("inventory %s: %s", s.inventory, text)
	case errors.Is(err, job.ErrNothingKnown):
		text += "; if it ran from another directory, name what firedrill keeps there with --state-dir"
	case errors.Is(err, proof.ErrSignature):
		text += "; if it ran with another state directory, whose key signed it, name that with --state-dir: else somebody else wrote it"
	}
	return &shortError{text, err}
}

type shortError struct {
	text string
	err  error
}

func (e *shortError) Error() string { return e.text }

func (e *shortError) Unwrap() error { return e.err }

// mirrorEnv gives where mirrors run, and the inventory.
func (a *app) mirrorEnv(o *mirrorOptions) (env job.Env, inv drill.Inventory, err error) {
	env = job.Env{OwnKeys: true, Now: time.Now, Pace: job.NewPace(time.Now), Locks: machine.Shared(), Signer: sync.OnceValues(a.mirrorSigner)}
	dir := o.state
	if dir == "" {
		dir = filepath.Join(a.stateDir, "mirrors")
	}
	if env.StateDir, err = filepath.Abs(dir); err != nil {
		return env, inv, err
	}
	if a.inventory != "" {
		if inv, err = injector.ReadInventory(a.inventory, a.registry, mirror.CheckInventory); err != nil {
			return env, inv, err
		}
		env.Stores = inv.Spec.Stores
	}
	return env, inv, nil
}

// mirror gives the mirror that the arguments name or describe.
func (a *app) mirror(cmd *cobra.Command, args []string, o *mirrorOptions) (*subject, error) {
	env, inv, err := a.mirrorEnv(o)
	if err != nil {
		return nil, err
	}
	s := &subject{env: env, named: len(args) == 1, inventory: a.inventory}
	if s.named {
		if s.Mirror, err = a.namedMirror(cmd, inv, args[0]); err != nil {
			return nil, err
		}
	} else {
		s.Mirror = o.spec
		s.From, s.To = canonical(args[0]), canonical(args[1])
	}
	s.log, _, s.unread = a.mirrorLog(s.dir())
	return s, nil
}

// mirrorLog reads what a mirror's runs came to, as far as it is whole; false if nothing is
// known of them. A mirror runs without it all the same: the error was told as a warning.
func (a *app) mirrorLog(dir string) (l runlog.Log, known bool, err error) {
	l, known, err = runlog.Read(dir)
	if err != nil {
		fmt.Fprintf(a.Err, "firedrill: warning: %v\n", err)
	}
	return l, known, err
}

func (a *app) namedMirror(cmd *cobra.Command, inv drill.Inventory, name string) (drill.Mirror, error) {
	m, ok := inv.FindMirror(name)
	switch {
	case a.inventory == "":
		return m, fmt.Errorf("mirror %q: no inventory was given: name its file with --inventory, or give two locations", name)
	case !ok:
		return m, fmt.Errorf("mirror %q: the inventory %s has none of that name; it has %s", name, a.inventory, names(inv.Spec.Mirrors))
	}
	if given := describing(cmd.Flags()); len(given) > 0 {
		return m, fmt.Errorf("%s: mirror %q is described in %s: change it there, or give two locations instead of its name",
			strings.Join(given, ", "), name, a.inventory)
	}
	return m, nil
}

// canonical writes a location in the one way in which it is remembered; what cannot
// be read stays as it is, for the check to refuse.
func canonical(text string) string {
	l, err := location.Parse(text)
	if err != nil {
		return text
	}
	return l.String()
}

func names(ms []drill.Mirror) string {
	if len(ms) == 0 {
		return "none at all"
	}
	var out []string
	for _, m := range ms {
		out = append(out, m.Name)
	}
	return strings.Join(out, ", ")
}

// mirrorSigner is the mirror's own key.
func (a *app) mirrorSigner() (proof.Signer, error) {
	set, err := keys.LoadOrCreate(filepath.Join(a.stateDir, "keys"))
	if err != nil {
		return nil, err
	}
	return set.Signer("mirror")
}

// mirrorReader is the key that manifests were signed with: what only reads makes none.
func (a *app) mirrorReader() (proof.Signer, error) {
	seed := keys.SeedFile(filepath.Join(a.stateDir, "keys"), "mirror")
	if _, err := os.Stat(seed); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s, the key that this mirror's manifests should be signed with, is not there: name the state directory that `mirror sync` had with --state-dir", seed)
	}
	return a.mirrorSigner()
}

// open opens the mirror when it has its turn. While another process has it, it waits if that
// was asked for.
func (a *app) open(ctx context.Context, o *mirrorOptions, s *subject, p *mirrorPrinter, use job.Use, open func() (*job.Job, error)) (*job.Job, error) {
	var j *job.Job
	var refused error
	defer p.waits.Store(false)
	err := state.Wait(ctx, func() (err error) {
		j, err = s.env.InTurn(ctx, s.Mirror, use, open)
		return err
	}, func(busy *state.LockedError) error {
		if busy.By != "" { // another mirror's job: this one has its turn after it
			p.waits.Store(true)
			p.say(fmt.Sprintf("firedrill: waiting: %s has been using %s since %s (process %d)", busy.By, busy.Dir, clockTime(busy.Since), busy.PID))
			return nil
		}
		if o.wait {
			p.waits.Store(true)
			p.say(fmt.Sprintf("firedrill: waiting: %s has %s since %s", holder(s, busy), s.title(), clockTime(busy.Since)))
			return nil
		}
		refused = failure(&shortError{fmt.Sprintf("%s: %s has it since %s: wait for that with --wait; %s says more",
			s.title(), holder(s, busy), clockTime(busy.Since), a.statusCommand(s)), busy})
		return refused
	})
	switch {
	case err == nil:
		return j, nil
	case refused != nil, ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return nil, err
	}
	return nil, mirrorFailure(s.plain(err))
}

// holder says who has a mirror open.
func holder(s *subject, busy *state.LockedError) string {
	who := "another process"
	if busy.PID > 0 {
		who = fmt.Sprintf("process %d", busy.PID)
	}
	// The log may be older than what is under way.
	if l, known, err := runlog.Read(s.dir()); err == nil && known && l.Last != nil && l.Last.Ended.IsZero() {
		return fmt.Sprintf("a run asked for by %s (%s)", l.Last.By, who)
	}
	return who
}

// clockTime is a time for people.
func clockTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// terminal reports whether progress can be drawn.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

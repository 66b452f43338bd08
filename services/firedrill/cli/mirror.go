package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/injector"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// mirrorOptions are the flags that the mirror's commands share.
type mirrorOptions struct {
	state string
	json  bool
	quiet bool
	spec  drill.Mirror
}

func (a *app) mirrorCmd() *cobra.Command {
	o := &mirrorOptions{}
	c := &cobra.Command{
		Use:   "mirror",
		Short: "Keep directories, ZFS datasets and buckets alike, and prove it",
		Long: `Mirror between two locations, in this process, and prove what both hold.

Locations: dir:/path, zfs:pool/dataset, s3:store/bucket/prefix with a store of the
inventory, or s3+https://host:port/bucket/prefix with the keys in AWS_ACCESS_KEY_ID
and AWS_SECRET_ACCESS_KEY. A mirror of the inventory is named instead of both.

Exit codes: 0 all is as it should be, 1 it is not, 254 bad arguments, 255 failed.`,
	}
	c.PersistentPreRun = func(*cobra.Command, []string) { limitMemory() }
	f := c.PersistentFlags()
	f.StringVar(&o.state, "state", "", "folder for what mirrors remember; default: mirrors in the state directory")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	f.BoolVar(&o.quiet, "quiet", false, "no progress")
	a.inventoryFlag(f, "file that lists stores and mirrors")
	c.AddCommand(a.mirrorSyncCmd(o), a.mirrorVerifyCmd(o), a.mirrorDriftCmd(o), a.mirrorAuditCmd(o), a.mirrorStatusCmd(o), a.mirrorCancelCmd())
	return c
}

// mirrorMemory is beyond what a mirror needs at any size of a tree; without a bound
// the collector lets garbage grow to as much again.
const mirrorMemory = 56 << 20

func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(mirrorMemory)
	}
}

// mirrorArgs takes the name of a mirror, or two locations.
func mirrorArgs(use string) (string, cobra.PositionalArgs) {
	return use + " NAME | FROM TO", cobra.RangeArgs(1, 2)
}

func (o *mirrorOptions) describe(f *pflag.FlagSet) {
	f.StringVar(&o.spec.Mode, "mode", drill.MirrorCopy, "copy (removes nothing), mirror (removes, guarded) or two-way")
	f.StringArrayVar(&o.spec.Filter, "filter", nil, `rule such as "- *.tmp" or "+ /keep/**"; may be repeated, the first that matches decides`)
	f.BoolVar(&o.spec.Xattrs, "xattrs", false, "extended attributes too")
	f.BoolVar(&o.spec.OneFileSystem, "one-file-system", false, "leave out what is mounted below a directory")
	f.Int64Var(&o.spec.BytesPerSecond, "bwlimit", 0, "bytes per second; 0 is no limit")
}

// mirror gives the mirror that the arguments name or describe, and where it runs.
func (a *app) mirror(args []string, o *mirrorOptions) (drill.Mirror, job.Env, error) {
	env := job.Env{OwnKeys: true, StateDir: o.state, Now: time.Now, Signer: sync.OnceValues(a.mirrorSigner)}
	if env.StateDir == "" {
		env.StateDir = filepath.Join(a.stateDir, "mirrors")
	}
	abs, err := filepath.Abs(env.StateDir)
	if err != nil {
		return drill.Mirror{}, env, err
	}
	env.StateDir = abs
	var inv drill.Inventory
	if a.inventory != "" {
		if inv, err = injector.ReadInventory(a.inventory, a.registry); err != nil {
			return drill.Mirror{}, env, err
		}
		env.Stores = inv.Spec.Stores
	}
	if len(args) == 2 {
		m := o.spec
		m.From, m.To = args[0], args[1]
		return m, env, nil
	}
	m, ok := inv.FindMirror(args[0])
	switch {
	case ok:
		return m, env, nil
	case a.inventory == "":
		return m, env, fmt.Errorf("mirror %q: no inventory was given: name its file with --inventory, or give two locations", args[0])
	}
	return m, env, fmt.Errorf("mirror %q: the inventory %s has none of that name; it has %s", args[0], a.inventory, names(inv.Spec.Mirrors))
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

func (a *app) mirrorSyncCmd(o *mirrorOptions) *cobra.Command {
	var check string
	var so job.SyncOptions
	var may int64
	var byFleet bool
	use, args := mirrorArgs("sync")
	c := &cobra.Command{
		Use: use, Args: args,
		Short: "Make the second location like the first",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if so.Check, err = engine.ParseCheck(check); err != nil {
				return fmt.Errorf("--check: %w", err)
			}
			so.MayDelete = may
			if byFleet {
				if len(args) != 1 {
					return errors.New("--fleet: a running firedrill runs the mirrors of its inventory: give a name")
				}
				return a.askFleet(cmd.Context(), o, args[0], fleet.Request{Check: check, DryRun: so.DryRun})
			}
			m, env, err := a.mirror(args, o)
			if err != nil {
				return err
			}
			j, err := env.Open(cmd.Context(), m, !so.DryRun)
			if err != nil {
				return mirrorFailure(err)
			}
			p := a.mirrorPrinter(o)
			so.Watch = p.progress
			if so.DryRun {
				so.Each = p.each
			}
			res, err := j.Sync(cmd.Context(), so)
			p.clear()
			if cerr := j.Close(cmd.Context()); err == nil {
				err = cerr
			}
			if perr := p.result(m, so.DryRun, res); err == nil {
				err = perr
			}
			return syncExit(res, so.DryRun, err)
		},
	}
	o.describe(c.Flags())
	c.Flags().StringVar(&check, "check", "auto", "how to learn what the second location holds: auto, state (believe the last run), listing, or audit (believe only hashes)")
	c.Flags().BoolVar(&so.DryRun, "dry-run", false, "do nothing, and print what would be done")
	c.Flags().Int64Var(&may, "may-delete", 0, "let this run delete so many entries, whatever its limits say; -1 takes them off")
	c.Flags().BoolVar(&so.AcceptPlaces, "accept-places", false, "take the locations for the right ones although they are not those that the mirror was set up with")
	c.Flags().BoolVar(&byFleet, "fleet", false, "have the running firedrill do it, with all its mirror workers, and watch")
	c.Flags().IntVar(&so.Items, "transfers", 0, "how many pieces of work are under way at once; 0 lets firedrill choose")
	return c
}

// mirrorFailure is the exit code of what kept a mirror from running: a wrong
// description is the caller's.
func mirrorFailure(err error) error {
	if isMirrorArgument(err) {
		return err
	}
	return failure(err)
}

func syncExit(res job.Result, dry bool, err error) error {
	switch {
	case err != nil:
		return failure(err)
	case dry || res.Whole():
		return nil
	}
	return &exitError{code: run.Fail}
}

// verifyFlags are those of the commands that compare.
type verifyFlags struct {
	level string
	side  string
}

func (a *app) mirrorVerifyCmd(o *mirrorOptions) *cobra.Command {
	var v verifyFlags
	use, args := mirrorArgs("verify")
	c := &cobra.Command{
		Use: use, Args: args,
		Short: "Compare the locations with the manifest of the last run",
		Long: `Compare what the locations hold now with the signed manifest of the last run.

Levels: L1 compares names, sizes and ETags of a listing (in a directory: what was not
touched since, as its inode's times tell, and the content of the rest), L2 the
checksums that a store keeps, L4 reads every content. The result never claims more
than what was looked at.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.verifyMirror(cmd, args, o, v, false) },
	}
	c.Flags().StringVar(&v.level, "level", "L1", "L1, L2 or L4")
	c.Flags().StringVar(&v.side, "side", "both", "source, destination or both")
	return c
}

func (a *app) mirrorDriftCmd(o *mirrorOptions) *cobra.Command {
	use, args := mirrorArgs("drift")
	return &cobra.Command{
		Use: use, Args: args,
		Short: "List what differs on either side from what the last run left",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.verifyMirror(cmd, args, o, verifyFlags{level: "L1", side: "both"}, true)
		},
	}
}

func (a *app) mirrorAuditCmd(o *mirrorOptions) *cobra.Command {
	var repair bool
	use, args := mirrorArgs("audit")
	c := &cobra.Command{
		Use: use, Args: args,
		Short: "Read everything on both sides, find what has rotted, and repair it if asked",
		RunE: func(cmd *cobra.Command, args []string) error {
			m, env, err := a.mirror(args, o)
			if err != nil {
				return err
			}
			j, err := env.OpenBoth(cmd.Context(), m, repair)
			if err != nil {
				return mirrorFailure(err)
			}
			p := a.mirrorPrinter(o)
			res, err := j.Audit(cmd.Context(), job.AuditOptions{Repair: repair, Seen: p.seen})
			p.clear()
			if cerr := j.Close(cmd.Context()); err == nil {
				err = cerr
			}
			if err != nil {
				return failure(err)
			}
			return p.audit(m, res)
		},
	}
	c.Flags().BoolVar(&repair, "repair", false, "replace what is damaged on one side with what the other side holds undamaged")
	return c
}

func (a *app) verifyMirror(cmd *cobra.Command, args []string, o *mirrorOptions, v verifyFlags, list bool) error {
	level, sides, err := v.parse()
	if err != nil {
		return err
	}
	m, env, err := a.mirror(args, o)
	if err != nil {
		return err
	}
	j, err := env.Open(cmd.Context(), m, false)
	if err != nil {
		return mirrorFailure(err)
	}
	p := a.mirrorPrinter(o)
	var all []job.Verified
	for _, s := range sides {
		got, verr := j.Verify(cmd.Context(), s, job.VerifyOptions{Level: level, Seen: p.seen})
		if err = verr; err != nil {
			break
		}
		all = append(all, got)
	}
	p.clear()
	if cerr := j.Close(cmd.Context()); err == nil {
		err = cerr
	}
	if err != nil {
		return failure(err)
	}
	return p.verified(m, all, list)
}

func (v verifyFlags) parse() (proof.Level, []plan.Side, error) {
	levels := map[string]proof.Level{"L1": proof.L1, "L2": proof.L2, "L4": proof.L4}
	level, ok := levels[v.level]
	if !ok {
		return 0, nil, fmt.Errorf("--level: %q is none: use L1, L2 or L4", v.level)
	}
	switch v.side {
	case "both":
		return level, []plan.Side{plan.Source, plan.Dest}, nil
	case plan.Source.String():
		return level, []plan.Side{plan.Source}, nil
	case plan.Dest.String():
		return level, []plan.Side{plan.Dest}, nil
	}
	return 0, nil, fmt.Errorf("--side: %q is none: use source, destination or both", v.side)
}

func (a *app) mirrorStatusCmd(o *mirrorOptions) *cobra.Command {
	use, args := mirrorArgs("status")
	return &cobra.Command{
		Use: use, Args: args,
		Short: "Say what is known of a mirror",
		RunE: func(_ *cobra.Command, args []string) error {
			m, env, err := a.mirror(args, o)
			if err != nil {
				return err
			}
			s, err := env.Status(m)
			if err != nil {
				return mirrorFailure(err)
			}
			if o.json {
				return json.NewEncoder(a.Out).Encode(s)
			}
			return a.mirrorPrinter(o).status(s)
		},
	}
}

// terminal reports whether progress can be drawn.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

package cli

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// verifyFlags are those of the commands that compare.
type verifyFlags struct {
	fleet.Request
	read   amount
	period time.Duration
	fleetFlags
}

// otherFilter is said where --filter is not what describes a mirror anew.
const otherFilter = "; left out, what the last run had"

func (a *app) mirrorVerifyCmd(o *mirrorOptions) *cobra.Command {
	v := verifyFlags{Request: fleet.Request{Do: drill.MirrorVerify}}
	use, args := mirrorArgs("verify")
	c := &cobra.Command{
		Use: use, Args: args,
		Short: "Compare the locations with the manifest of the last run",
		Long: `Compare what the locations hold now with the signed manifest of the last run, with
the filter that the run had.

Levels: L0 reads the manifest itself: whether it is whole and the one that was signed. It
looks at neither location, verifies nothing of them, and mirror status does not count it.
L1 compares names, sizes and ETags of a listing (in a directory: what was not
touched since, as its inode's times tell, and the content of the rest), L2 the
checksums that a store keeps, L4 reads every content. The result never claims more
than what was looked at: where nothing takes part, nothing was checked, which is
INCONCLUSIVE, and exits with 1. What a mirror of mode copy keeps at the destination after
it was deleted at the source is looked for there only, and counted by itself.

L3 is L4 spread over a period: each call reads the contents that are due by the time
since the call before, the oldest first, and the rest counts if it was read within the
period, and neither touched nor replaced since. Call it regularly, such as once a day:
until all was read once, it says how far it is, and exits with 1. What L4 and audits
read counts as well.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if v.period <= 0 {
				return fmt.Errorf("--period: %v is no time in which everything could be read: use hours, such as 720h", event.Duration(v.period))
			}
			if cmd.Flags().Changed("period") {
				v.Period = event.Duration(v.period)
			}
			if v.Read = v.read.String(); v.Level == proof.L0.String() {
				return a.checkManifest(cmd, args, o)
			}
			return a.compare(cmd, args, o, v)
		},
	}
	f := c.Flags()
	f.StringVar(&v.Level, "level", "L1", "how thoroughly to compare: L0 (the manifest alone), L1, L2, L3 or L4")
	f.DurationVar(&v.period, "period", job.DefaultPeriod, "for L3: within how long everything is to be read once")
	f.Var(&v.read, "read", "for L3: how much this call reads, such as 5% or 10Gi; left out, what is due")
	f.StringVar(&v.Side, "side", "both", "which location to compare: source, destination or both")
	o.describeComparison(f, &v)
	return c
}

func (a *app) mirrorDriftCmd(o *mirrorOptions) *cobra.Command {
	v := verifyFlags{Request: fleet.Request{Do: drill.MirrorDrift}}
	use, args := mirrorArgs("drift")
	c := &cobra.Command{
		Use: use, Args: args,
		Short: "List what differs on either side from what the last run left",
		Long: `Compare both locations with the manifest of the last run, as verify --level L1 does,
and list all that differs, by name, and what a mirror of mode copy keeps at the destination
only, which is no difference.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.compare(cmd, args, o, v)
		},
	}
	o.describeComparison(c.Flags(), &v)
	return c
}

func (a *app) mirrorAuditCmd(o *mirrorOptions) *cobra.Command {
	v := verifyFlags{Request: fleet.Request{Do: drill.MirrorAudit}}
	use, args := mirrorArgs("audit")
	c := &cobra.Command{
		Use: use, Args: args,
		Short: "Read everything on both sides, find what has rotted, and repair it if asked",
		Long: `Read every content on both sides, and compare it with the manifest of the last run
and with the other side. What has changed although nothing has touched it since has
rotted; what was edited has not, and the next run carries it. What no run has read yet
has no hash in the manifest: then the audit can say that both sides are equal, and not
that they are what they were, and exits with 1; sync --check audit reads it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.compare(cmd, args, o, v)
		},
	}
	c.Flags().BoolVar(&v.Repair, "repair", false, "replace what has rotted in the destination with what the source holds undamaged; in a two-way mirror, the reverse as well")
	c.Flags().BoolVar(&v.RepairSource, "repair-source", false, "with --repair: write into the source of a one-way mirror, too")
	o.describeComparison(c.Flags(), &v)
	return c
}

func (o *mirrorOptions) describeComparison(f *pflag.FlagSet, v *verifyFlags) {
	o.describeFilter(f, otherFilter)
	o.describeLimit(f)
	o.describeHeavy(f)
	o.describeWait(f)
	v.fleetFlags.describe(f, "where the mirror ran last")
}

// compare makes a comparison of the mirror that the arguments name, or has it made.
func (a *app) compare(cmd *cobra.Command, args []string, o *mirrorOptions, v verifyFlags) error {
	c, err := v.Comparison()
	if err = asFlag(err); err == nil {
		err = v.fleetFlags.check(cmd.Flags(), args)
	}
	if err != nil {
		return err
	}
	if v.fleet {
		return a.askFleet(cmd.Context(), o, args[0], v.Request, v.timeout)
	}
	left := "nothing was changed"
	if c.Repair {
		left = "what was repaired stays"
	}
	return a.withMirror(cmd, args, o, visit{
		left:  left,
		use:   c.Use(),
		heavy: true,
		do: func(ctx context.Context, j *job.Job, p *mirrorPrinter) (shown, error) {
			c.Pass, c.Seen, c.Bytes = p.load.Pass, p.seen, p.read
			got, err := j.Compare(ctx, c)
			a.noteCheck(j.Dir(), got, err)
			return func(err error) error { return p.compared(got, err) }, err
		},
	})
}

// manifestJSON is what reading a manifest has shown: no location is verified by that.
type manifestJSON struct {
	Level    proof.Level `json:"level"`
	Verified bool        `json:"verified"`
	Root     proof.Root  `json:"root"`
	Subject  string      `json:"subject"`
	Signer   string      `json:"signer,omitempty"`
}

// checkManifest is verify to L0.
func (a *app) checkManifest(cmd *cobra.Command, args []string, o *mirrorOptions) error {
	for _, name := range []string{"fleet", "timeout", "side", "period", "read", "filter", "bwlimit", "heavy"} {
		if cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s: --level L0 reads the manifest that lies here and looks at neither location: leave one of the two out", name)
		}
	}
	return a.withMirror(cmd, args, o, visit{
		left: "nothing was changed", use: job.Looks, blind: true,
		do: func(ctx context.Context, j *job.Job, p *mirrorPrinter) (shown, error) {
			signed, err := j.CheckManifest(ctx)
			return func(err error) error {
				switch {
				case err != nil:
					return err
				case p.json:
					return failure(writeJSON(p.out, manifestJSON{Level: proof.L0, Root: signed.Root, Subject: signed.Subject, Signer: signed.Signer}))
				}
				fmt.Fprintf(p.out, "manifest (L0): it is whole, and the one that was signed as that of the %s: %s, %s, root %s\n",
					signed.Subject, fold.Plural(signed.Root.Entries, "entry"), size(signed.Root.Bytes), signed.Root.Hash)
				p.advise("neither location was looked at, and nothing of them is verified: --level L1 lists both")
				return nil
			}, err
		},
	})
}

// visit is what a command does with what the last run of a mirror left.
type visit struct {
	// left says what an interruption leaves.
	left string
	use  job.Use
	// heavy says that it waits for the machine's other heavy work once it lasts: it asks the
	// printer's load.
	heavy bool
	// blind says that it looks at neither place.
	blind bool
	do    func(ctx context.Context, j *job.Job, p *mirrorPrinter) (shown, error)
}

// shown prints what a visit came to, and returns err, which says how it ended, or what is to
// be said instead.
type shown func(err error) error

// withMirror makes a visit to the mirror that the arguments name, in this process.
func (a *app) withMirror(cmd *cobra.Command, args []string, o *mirrorOptions, v visit) error {
	s, err := a.mirror(cmd, args, o)
	if err != nil {
		return err
	}
	s.env.Signer = sync.OnceValues(a.mirrorReader)
	if s.Snapshots != nil {
		return fmt.Errorf("mirror %s: %w", s.title(), job.ErrSnapshots)
	}
	if w := s.recall(cmd.Flags()); w != "" {
		fmt.Fprintln(a.Err, "firedrill: note:", w)
	}
	if err := s.check(); err != nil {
		return err
	}
	ctx := cmd.Context()
	p := a.mirrorPrinter(o)
	p.start()
	defer p.stop()
	defer a.guard(p, s)()
	defer mindInterrupt(ctx, p, v.left)()
	j, err := a.open(ctx, o, s, p, v.use, func() (*job.Job, error) {
		if v.blind {
			return s.env.OpenManifest(s.Mirror)
		}
		return s.env.OpenLast(ctx, s.Mirror, v.use)
	})
	if err != nil {
		return interrupted(ctx, v.left, err)
	}
	if v.heavy {
		p.load = p.work(ctx, s)
		defer p.load.End()
	}
	show, err := v.do(ctx, j, p)
	if cerr := j.Close(ctx); err == nil {
		err = cerr
	}
	p.stop()
	return show(interrupted(ctx, v.left, mirrorFailure(s.plain(err))))
}

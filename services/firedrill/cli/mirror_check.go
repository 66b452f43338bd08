package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// verifyFlags are those of the commands that compare.
type verifyFlags struct {
	level  string
	side   string
	period time.Duration
	read   amount
}

// otherFilter is said where --filter is not what describes a mirror anew.
const otherFilter = "; left out, what the last run had"

func (a *app) mirrorVerifyCmd(o *mirrorOptions) *cobra.Command {
	var v verifyFlags
	use, args := mirrorArgs("verify")
	c := &cobra.Command{
		Use: use, Args: args,
		Short: "Compare the locations with the manifest of the last run",
		Long: `Compare what the locations hold now with the signed manifest of the last run, with
the filter that the run had.

Levels: L1 compares names, sizes and ETags of a listing (in a directory: what was not
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
			if err := v.rolling(cmd); err != nil {
				return err
			}
			return a.verifyMirror(cmd, args, o, v, false)
		},
	}
	f := c.Flags()
	f.StringVar(&v.level, "level", "L1", "how thoroughly to compare: L1, L2, L3 or L4")
	f.DurationVar(&v.period, "period", job.DefaultPeriod, "for L3: within how long everything is to be read once")
	f.Var(&v.read, "read", "for L3: how much this call reads, such as 5% or 10Gi; left out, what is due")
	f.StringVar(&v.side, "side", "both", "which location to compare: source, destination or both")
	o.describeFilter(f, otherFilter)
	o.describeLimit(f)
	o.describeWait(f)
	return c
}

func (a *app) mirrorDriftCmd(o *mirrorOptions) *cobra.Command {
	use, args := mirrorArgs("drift")
	c := &cobra.Command{
		Use: use, Args: args,
		Short: "List what differs on either side from what the last run left",
		Long: `Compare both locations with the manifest of the last run, as verify --level L1 does,
and list all that differs, by name, and what a mirror of mode copy keeps at the destination
only, which is no difference.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.verifyMirror(cmd, args, o, verifyFlags{level: "L1", side: "both"}, true)
		},
	}
	o.describeFilter(c.Flags(), otherFilter)
	o.describeLimit(c.Flags())
	o.describeWait(c.Flags())
	return c
}

func (a *app) mirrorAuditCmd(o *mirrorOptions) *cobra.Command {
	var ao job.AuditOptions
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
			if ao.RepairSource && !ao.Repair {
				return errors.New("--repair-source: it says how far --repair may go: give that, too")
			}
			left := "nothing was changed"
			if ao.Repair {
				left = "what was repaired stays"
			}
			return a.compare(cmd, args, o, comparison{
				left: left,
				open: func(ctx context.Context, s *subject) (*job.Job, error) {
					if ao.RepairSource {
						return s.env.OpenBoth(ctx, s.Mirror, true)
					}
					return s.env.Open(ctx, s.Mirror, ao.Repair)
				},
				look: func(ctx context.Context, j *job.Job, p *mirrorPrinter) (shown, error) {
					ao.Seen = p.seen
					res, err := j.Audit(ctx, ao)
					a.noteCheck(j.Dir(), "audit", proof.L4, res.Clean(), res.Sides[:], err)
					return func(err error) error { return p.audited(res, err) }, err
				},
			})
		},
	}
	c.Flags().BoolVar(&ao.Repair, "repair", false, "replace what has rotted in the destination with what the source holds undamaged; in a two-way mirror, the reverse as well")
	c.Flags().BoolVar(&ao.RepairSource, "repair-source", false, "with --repair: write into the source of a one-way mirror, too")
	o.describeFilter(c.Flags(), otherFilter)
	o.describeLimit(c.Flags())
	o.describeWait(c.Flags())
	return c
}

func (a *app) verifyMirror(cmd *cobra.Command, args []string, o *mirrorOptions, v verifyFlags, list bool) error {
	level, sides, err := v.parse()
	if err != nil {
		return err
	}
	return a.compare(cmd, args, o, comparison{
		left: "nothing was changed",
		open: func(ctx context.Context, s *subject) (*job.Job, error) { return s.env.Open(ctx, s.Mirror, false) },
		look: func(ctx context.Context, j *job.Job, p *mirrorPrinter) (shown, error) {
			all, err := j.VerifySides(ctx, sides, job.VerifyOptions{Level: level, Period: v.period, Read: verify.Amount(v.read), Seen: p.seen})
			a.noteCheck(j.Dir(), cmd.Name(), level, verified(all), all, err)
			return func(err error) error { return p.verified(all, list, err) }, err
		},
	})
}

// shown prints what a comparison has seen, also if it did not come to its end: then err
// says why, and so does what is returned.
type shown func(err error) error

// comparison is what a command does with a mirror that it compares.
type comparison struct {
	// left is what it leaves behind when it is interrupted.
	left string
	open func(context.Context, *subject) (*job.Job, error)
	// look looks at the open mirror, and gives what prints what it has seen.
	look func(context.Context, *job.Job, *mirrorPrinter) (show shown, err error)
}

// compare makes a comparison of the mirror that the arguments name.
func (a *app) compare(cmd *cobra.Command, args []string, o *mirrorOptions, c comparison) error {
	s, err := a.mirror(cmd, args, o)
	if err != nil {
		return err
	}
	s.env.Signer = sync.OnceValues(a.mirrorReader)
	if s.Snapshots != nil {
		return fmt.Errorf("mirror %s: %w", s.title(), errSnapshots)
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
	defer mindInterrupt(ctx, p, c.left)()
	j, err := a.open(ctx, o, s, p, func() (*job.Job, error) {
		if err := s.env.Known(s.Mirror); err != nil {
			return nil, err
		}
		return c.open(ctx, s)
	})
	if err != nil {
		return interrupted(ctx, c.left, err)
	}
	show, err := c.look(ctx, j, p)
	if cerr := j.Close(ctx); err == nil {
		err = cerr
	}
	p.stop()
	return show(interrupted(ctx, c.left, mirrorFailure(s.plain(err))))
}

// rolling refuses what says how L3 goes on where that makes no sense.
func (v verifyFlags) rolling(cmd *cobra.Command) error {
	for _, name := range []string{"period", "read"} {
		if cmd.Flags().Changed(name) && v.level != proof.L3.String() {
			return fmt.Errorf("--%s: it is for --level L3 only", name)
		}
	}
	if v.period <= 0 {
		return fmt.Errorf("--period: %v is no time in which everything could be read: use hours, such as 720h", v.period)
	}
	return nil
}

func (v verifyFlags) parse() (proof.Level, []plan.Side, error) {
	levels := map[string]proof.Level{"L1": proof.L1, "L2": proof.L2, "L3": proof.L3, "L4": proof.L4}
	level, ok := levels[v.level]
	if !ok {
		return 0, nil, fmt.Errorf("--level: %q is no level: use L1, L2, L3 or L4", v.level)
	}
	switch v.side {
	case "both":
		return level, []plan.Side{plan.Source, plan.Dest}, nil
	case plan.Source.String():
		return level, []plan.Side{plan.Source}, nil
	case plan.Dest.String():
		return level, []plan.Side{plan.Dest}, nil
	}
	return 0, nil, fmt.Errorf("--side: %q is no side: use source, destination or both", v.side)
}

// amount is a flag for bytes, or for a share of all.
type amount verify.Amount

// Type implements pflag.Value.
func (*amount) Type() string { return "amount" }

// String implements pflag.Value.
func (a *amount) String() string {
	switch {
	case a.Percent > 0:
		return strconv.FormatFloat(a.Percent, 'f', -1, 64) + "%"
	case a.Bytes > 0:
		return strconv.FormatInt(a.Bytes, 10)
	}
	return ""
}

// Set implements pflag.Value.
func (a *amount) Set(text string) error {
	if share, ok := strings.CutSuffix(text, "%"); ok {
		n, err := strconv.ParseFloat(share, 64)
		if err != nil || !(n > 0 && n <= 100) { // NaN too
			return errors.New("write a share above 0% and up to 100%, such as 5%")
		}
		*a = amount{Percent: n}
		return nil
	}
	var n bandwidth // which is written in the same units
	if err := n.Set(text); err != nil || n == 0 {
		return errors.New("write a share such as 5%, or bytes such as 500M or 10Gi")
	}
	*a = amount{Bytes: int64(n)}
	return nil
}

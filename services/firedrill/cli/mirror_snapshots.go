package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
)

// syncSnapshots makes a run of a mirror that brings over snapshots.
func (a *app) syncSnapshots(cmd *cobra.Command, o *mirrorOptions, s *subject, so job.SyncOptions) error {
	var given []string
	for _, name := range []string{"check", "may-delete", "accept-places", "transfers"} {
		if cmd.Flags().Changed(name) {
			given = append(given, "--"+name)
		}
	}
	if len(given) > 0 {
		return fmt.Errorf("%s: mirror %s brings over snapshots, as they are: leave it out", strings.Join(given, ", "), s.title())
	}
	ctx, left := cmd.Context(), s.left(so.DryRun)
	p := a.mirrorPrinter(o)
	p.start()
	defer p.stop()
	defer a.guard(p, s)()
	defer mindInterrupt(ctx, p, left)()
	run := snapshots.Options{
		DryRun: so.DryRun, Watch: p.progress,
		Begun: func(at time.Time) { a.noteBegin(s, so, at) },
		Ended: func(res job.Result, err error) {
			if ctx.Err() == nil { // else the next run goes on with it
				a.noteEnd(s, so, res, s.plain(err))
			}
		},
	}
	var res job.Result
	// What it opens is closed again by the run: there is no job.
	_, err := a.open(ctx, o, s, p, runs(so), func() (_ *job.Job, err error) {
		load := p.work(ctx, s)
		defer load.End()
		run.Pass = load.Pass
		res, err = snapshots.Run(ctx, s.env, s.Mirror, run)
		return nil, err
	})
	p.stop()
	if err == nil {
		err = syncExit(res, nil)
	}
	return p.result(s.Mirror, so.DryRun, res, interrupted(ctx, left, err))
}

package fleet

import (
	"context"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
)

// snapshots makes the run of a mirror that brings over snapshots. It is of one piece:
// other processes have no part in it.
func (r *runner) snapshots(ctx context.Context, m drill.Mirror, e Event, o job.SyncOptions) (job.Result, error) {
	return snapshots.Run(ctx, r.Env, m, snapshots.Options{
		DryRun: o.DryRun, Watch: o.Watch,
		Begun: func(at time.Time) { r.noteBegin(ctx, m, o, e.By, at) },
		Ended: func(res job.Result, err error) { r.noteEnd(ctx, m, o, res, err) },
	})
}

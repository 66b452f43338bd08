package fleet

import (
	"context"
	"time"

	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
)

// snapshots makes the run of a mirror that brings over snapshots. It is of one piece:
// other processes have no part in it.
func (r *runner) snapshots(ctx context.Context, q *request, o job.SyncOptions) (job.Result, error) {
	return snapshots.Run(ctx, r.Env, q.mirror, snapshots.Options{
		DryRun: o.DryRun, Pass: o.Pass, Watch: o.Watch,
		Begun: func(at time.Time) { r.begins(q); r.noteBegin(ctx, q, at) },
		Ended: func(res job.Result, err error) { r.noteEnd(ctx, q, res, err) },
	})
}

package fleet

import (
	"context"
	"errors"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// snapshots makes the run of a mirror that brings over snapshots. It is of one piece:
// other processes have no part in it.
func (r *runner) snapshots(ctx context.Context, m drill.Mirror, e Event, o job.SyncOptions) (job.Result, error) {
	began, noted := r.Env.Now(), false
	begun := func() {
		noted = true
		r.noteBegin(ctx, m, o, e.By, began)
	}
	res, err := snapshots.Run(ctx, r.Env, m, snapshots.Options{DryRun: o.DryRun, Begun: begun, Watch: o.Watch})
	if errors.Is(err, state.ErrLocked) {
		return res, err
	}
	if !noted {
		begun()
	}
	r.noteEnd(ctx, m, o, res, err)
	return res, err
}

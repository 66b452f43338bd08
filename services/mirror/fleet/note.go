package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// noteBegin and noteEnd keep, for people, what runs came to. That it cannot be noted
// keeps no run from being made.
func (r *runner) noteBegin(ctx context.Context, q *request, at time.Time) {
	if q.task.sync.DryRun || ctx.Err() != nil {
		return
	}
	if err := runlog.Begin(runlog.Dir(r.Env, q.mirror), q.mirror, q.event.By, at); err != nil {
		r.Log.Warn("a run is not noted", "mirror", q.mirror.Name, "error", err)
	}
}

func (r *runner) noteEnd(ctx context.Context, q *request, res job.Result, err error) {
	cancelled := errors.Is(context.Cause(ctx), ErrCancelled)
	if q.task.sync.DryRun || errors.Is(err, ErrTaken) || ctx.Err() != nil && !cancelled {
		return // or another process goes on with it
	}
	if cancelled { // which is all that there is to say of it
		err = context.Cause(ctx)
	}
	if err := runlog.End(runlog.Dir(r.Env, q.mirror), q.mirror, res, err, r.Env.Now()); err != nil {
		r.Log.Warn("the end of a run is not noted", "mirror", q.mirror.Name, "error", err)
	}
}

// known is what is known of a mirror's runs; nil if nothing is.
func (r *runner) known(m drill.Mirror) *runlog.Log {
	l, known, err := runlog.Read(runlog.Dir(r.Env, m))
	if err != nil {
		r.Log.Warn("read what a mirror's runs came to", "mirror", m.Name, "error", err)
	}
	if !known {
		return nil
	}
	return &l
}

package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/outcome"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// compare opens the mirror and makes the comparison, in this process alone.
func (r *runner) compare(ctx context.Context, h *held, q *request, p *beats) (*outcome.Outcome, error) {
	c := q.task.compare
	j, err := r.Env.OpenLast(ctx, q.mirror, c.Use())
	if err != nil {
		return nil, err
	}
	r.begins(q)
	out, err := r.comparison(ctx, h, q, j, p)
	return out, errors.Join(err, j.Close(ctx))
}

func (r *runner) comparison(ctx context.Context, h *held, q *request, j *job.Job, p *beats) (*outcome.Outcome, error) {
	c := q.task.compare
	own, err := r.newest(ctx, h, j, c.Repair)
	if err != nil {
		return nil, err
	}
	signed, err := j.Root()
	if err != nil {
		return nil, err
	}
	if log := r.known(q.mirror); log != nil && log.Mirror.From != "" && !slices.Equal(log.Mirror.Filter, q.mirror.Filter) {
		r.Log.Warn("the filter of the inventory is not that of the mirror's last run: what it leaves out is not compared, and what that one left out shows as extra",
			"mirror", q.mirror.Name, "run", q.event.Run)
	}
	p.Looks(j.Size(c))
	load := r.work(ctx, h, q, p)
	defer load.End()
	c.Pass, c.Seen, c.Bytes = load.Pass, p.Looked, p.read.count
	began := r.Env.Now()
	got, err := j.Compare(ctx, c)
	if c.Repair {
		r.left(h, j, own)
	}
	if err != nil {
		return nil, err
	}
	ended := r.Env.Now()
	if err := runlog.Checked(j.Dir(), runlog.CheckOf(got, q.event.By, ended)); err != nil {
		r.Log.Warn("a comparison is not noted", "mirror", q.mirror.Name, "run", q.event.Run, "error", err)
	}
	out := outcome.Of(got, signed.Root, ended.Sub(began), fewProblems)
	return &out, nil
}

// newest refuses to compare with what this process remembers, if another one has run the
// mirror since with a memory of its own. writes says that the comparison may change what is
// remembered.
func (r *runner) newest(ctx context.Context, h *held, j *job.Job, writes bool) (bus.MirrorMemory, error) {
	own, _, _, err := memory(j, r.Bus.Identity().Instance)
	if err != nil {
		return own, err
	}
	if last := h.last(); last.ID != "" && (own.ID != last.ID || own.Generation < last.Generation) {
		return own, fmt.Errorf("mirror %s: %w: %s ran it last with a memory of its own, and by %s this process would compare with an older run: give all mirror processes the same --mirror-state-dir",
			j.Name(), ErrMemory, last.Instance, j.Dir())
	}
	if !writes {
		return own, nil
	}
	h.remember(own)
	if err := h.renew(ctx); err != nil {
		return own, fmt.Errorf("mirror %s: say whose memory of it is the newest: %w", j.Name(), err)
	}
	return own, nil
}

// tellOutcome tells what a comparison has shown, and raises the alarm where that is not as it
// should be.
func (r *runner) tellOutcome(ctx context.Context, e Event) error {
	o := e.Outcome
	at := []any{"mirror", e.Mirror, "run", e.Run, "by", e.By, "do", e.Do, "level", o.Level, "found", o.Words()}
	switch {
	case o.Differs:
		r.Log.Error("a mirror is not what its last run left", append(at, "first", o.Problems)...)
		drift := e
		drift.Reason, drift.Log = o.Words(), nil
		if err := r.tell(ctx, KindDrift, drift); err != nil {
			return err
		}
	case !o.Good:
		r.Log.Warn("a mirror could not be shown to be what its last run left", append(at, "first", o.Problems)...)
	default:
		r.Log.Info("a mirror's comparison ended well", at...)
	}
	return r.tell(ctx, KindFinished, e)
}

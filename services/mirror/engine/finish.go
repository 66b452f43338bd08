package engine

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// leave makes what was done durable, so that the next run goes on from there. What a run
// left that was killed before is known only once one has come to its end.
func (r *run) leave() error {
	if !r.report.Changed {
		return nil
	}
	// Notes must not outlive what they are about.
	if err := r.finishPlaces(context.WithoutCancel(r.ctx)); err != nil {
		return err
	}
	if err := r.Store.Sync(); err != nil {
		return err
	}
	if err := r.keepWitnesses(); err != nil {
		return err
	}
	r.facts.Unfinished = r.knew.Unfinished
	return r.saveFacts()
}

func (r *run) finishPlaces(ctx context.Context) error {
	for _, s := range []plan.Side{plan.Source, plan.Dest} {
		if s == plan.Source && r.Mode != plan.TwoWay {
			continue
		}
		if err := r.Places[s].Finish(ctx); err != nil {
			return fmt.Errorf("finish %s: %w", r.Places[s], err)
		}
	}
	return nil
}

// finish ends a run that came to its end.
func (r *run) finish() error {
	if r.report.Changed {
		if err := r.finishPlaces(r.ctx); err != nil {
			return err
		}
		if err := r.Store.Commit(); err != nil {
			return fmt.Errorf("commit what the job remembers: %w", err)
		}
	}
	if err := r.keepWitnesses(); err != nil {
		return err
	}
	switch {
	case r.blocked, len(r.report.Refusals) > 0, r.report.HeldBack > 0, r.report.NotTried > 0, r.names[plan.Source] && r.report.Failed > 0:
		// What stands there is not remembered, or came to be there after it was seen that
		// nothing did: a run that only believes would not see it, and fail where it is in
		// the way.
		r.facts.Listed = time.Time{}
	case r.report.Check != CheckState && r.report.Faults == 0:
		r.facts.Listed = r.report.Listed
	case r.report.Failed > 0:
		// Maybe because the destination is not what it was thought to be.
		r.facts.Listed = time.Time{}
	}
	r.facts.Unfinished = false
	if r.facts == r.knew {
		return nil
	}
	return r.saveFacts()
}

// samePast reports whether two memories of one key are the same.
func samePast(a, b *plan.Past) bool {
	return a.Key == b.Key && a.Missing == b.Missing && a.Dirty == b.Dirty &&
		sameEntry(&a.Source, &b.Source) && sameEntry(&a.Dest, &b.Dest)
}

func sameEntry(a, b *entry.Entry) bool {
	return a.Path == b.Path && a.Kind == b.Kind && a.Size == b.Size && a.Mode == b.Mode &&
		a.UID == b.UID && a.GID == b.GID && a.MTime == b.MTime && a.Target == b.Target &&
		a.Device == b.Device && a.Change == b.Change && a.Sum == b.Sum &&
		maps.EqualFunc(a.Xattrs, b.Xattrs, bytes.Equal)
}

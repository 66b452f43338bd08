package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Attributes need not be listed where somebody else tells them: of the destination the
// last run does, of whatever it left there; of a source that is copied for the first time
// the answers do that bring its contents, all of which are asked for anyway.

// namesOnly says of which sides names are listed and no attributes.
func (r *run) namesOnly() (names [2]bool) {
	if r.Mode == plan.TwoWay || r.report.Check != CheckListing {
		return names
	}
	if r.Store.Empty() {
		names[plan.Source] = r.sourceTells()
		return names
	}
	// Of a place that was just accepted the past does not say what the attributes are:
	// whoever rebuilt it may have lost them. Nor does it after a run that was cut off: it
	// may have set what it did not note.
	names[plan.Dest] = !r.AcceptPlaces && !r.knew.Unfinished && !r.knew.Listed.IsZero() && r.Places[plan.Dest].Traits().ETags
	return names
}

// list streams what a side holds.
func (r *run) list(s plan.Side) iter.Seq2[entry.Entry, error] {
	o := place.ListOptions{Filter: r.Filter, Names: r.names[s], Known: r.known(s)}
	if r.witnesses[s].asked {
		o.Dated = r.witnesses[s].see
	}
	if s == plan.Source || r.Mode == plan.TwoWay {
		o.LeftOut = func(path string) {
			why := place.ErrReserved
			if _, trash := place.InTrash(path); !trash {
				why = place.ErrTemporary
			}
			if err := r.leftOut(s, LeftOut{path, why}); err != nil {
				r.fail(err)
			}
		}
	}
	return r.Places[s].Entries(r.ctx, o)
}

// tellLeftOut reports what of the source takes no part and was not meant to.
func (r *run) tellLeftOut() error {
	for _, l := range r.LeftOut {
		if err := r.leftOut(plan.Source, l); err != nil {
			return err
		}
	}
	return nil
}

// leftOut reports what a side holds and the other side cannot have.
func (r *run) leftOut(s plan.Side, l LeftOut) error {
	a := plan.Action{Op: plan.Unholdable, Key: l.Path, To: s.Other(), Err: l.Err}
	e := entry.Entry{Path: l.Path, Kind: entry.Dir}
	if errors.Is(l.Err, place.ErrTemporary) {
		e.Kind = entry.File
	}
	set(&a, s, e)
	return r.settle(Done{Action: a})
}

// known streams what a side was seen to hold by the last run; nil where the last run is
// not to be believed, or may have been about another place.
func (r *run) known(s plan.Side) iter.Seq2[entry.Entry, error] {
	if r.Store.Empty() || r.report.Check == CheckAudit || r.AcceptPlaces {
		return nil
	}
	return func(yield func(entry.Entry, error) bool) {
		for p, err := range r.Store.Past() {
			if e := p.At(s); (err != nil || plan.Present(e)) && !yield(e, err) {
				return
			}
		}
	}
}

// sourceTells reports whether all that the source holds is about to be opened, and tells
// then what its listing would have told. A dry run opens nothing. Who writes in batches
// or in parts has to know the attributes before the content.
func (r *run) sourceTells() bool {
	to := r.Places[plan.Dest].Traits()
	_, tells := r.Places[plan.Source].(place.Named)
	return tells && !r.DryRun && to.Batch == 0 && !to.Parts && r.nothingThere()
}

// nothingThere reports whether the destination holds nothing. What comes to be there
// later is found by the conditions of the writes.
func (r *run) nothingThere() bool {
	for range r.Places[plan.Dest].Entries(r.ctx, place.ListOptions{Filter: r.Filter, Names: true}) {
		return false // something, or an error, which the plan is to see
	}
	return true
}

// nothing is what an empty place holds.
func nothing(func(entry.Entry, error) bool) {}

// listedAsLeft reports whether the destination was listed as the last run left it, so
// that it has the attributes that it had then.
func listedAsLeft(a *plan.Action) bool {
	now, then := &a.Dest.Sum, &a.Past.Dest.Sum
	return plan.Present(a.Past.Dest) && now.Contains(entry.HasETag) && then.Contains(entry.HasETag) &&
		now.ETag == then.ETag && a.Dest.Size == a.Past.Dest.Size
}

// settled decides on what was looked at closer: what was hashed, and what a source that
// was listed by names turned out to be. Where of the destination names were listed, and
// it is not what the last run left, it is looked at: what is equal may have other
// attributes.
func (r *run) settled(a plan.Action) (plan.Action, error) {
	if !r.names[plan.Dest] {
		return r.full.Settle(a), nil
	}
	if listedAsLeft(&a) {
		return r.rules.Settle(a), nil
	}
	now, there, err := r.Places[plan.Dest].Look(r.ctx, a.Dest)
	if err == nil && (!there || now.Sum.ETag != a.Dest.Sum.ETag) {
		err = place.ErrChanged
	}
	if err != nil {
		return a, fmt.Errorf("look at what was listed: %w", err)
	}
	now.Sum = a.Dest.Sum.Merge(now.Sum)
	a.Dest = now
	return r.full.Settle(a), nil
}

// errNamed says that an item is of names only, and its source tells no more.
var errNamed = errors.New("the place does not tell what its contents belong to")

// openNamed opens what is known by its name, and notes in the action what it is. If that
// is not what it looked like, or the other side cannot hold it, whoever made the plan
// decides again: the action becomes a Rehash of nothing. Then, and of a directory, there
// is no stream.
func (w *Worker) openNamed(ctx context.Context, a *plan.Action) (*stream, error) {
	side := a.To.Other()
	from, ok := w.Places[side].(place.Named)
	if !ok {
		return nil, errNamed
	}
	listed := a.At(side)
	c, e, err := from.OpenNamed(ctx, listed)
	if err != nil {
		return nil, err
	}
	set(a, side, e)
	if holds := w.Places[a.To].Traits().Holds; e.Kind != listed.Kind || holds != nil && holds(e) != nil {
		a.Op = plan.Rehash
	}
	switch {
	case c == nil:
		return nil, nil
	case a.Op == plan.Rehash:
		_ = c.Close() // nobody wants to read it
		return nil, nil
	}
	return &stream{ctx: ctx, content: c, limit: w.Limit, read: w.Read, left: e.Size}, nil
}

// makeNamedDir makes a directory that is known by its name.
func (w *Worker) makeNamedDir(ctx context.Context, a *plan.Action) (entry.Entry, error) {
	if _, err := w.openNamed(ctx, a); err != nil || a.Op == plan.Rehash {
		return a.At(a.To), err
	}
	return w.Places[a.To].MakeDir(ctx, a.At(a.To.Other()))
}

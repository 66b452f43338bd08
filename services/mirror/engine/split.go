package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"golang.org/x/sync/errgroup"
)

// A file of very many parts would keep one worker busy for hours while the others
// have nothing to do. So the run begins its upload, gives the parts out as items, and
// joins them under the condition of the write. Who carries which parts does not
// matter, nor whether somebody does it twice.

// DefaultSplit is the size in bytes above which the parts of a file are items.
const DefaultSplit = 4 << 30

// splitItems is how many items a file that is just large enough to be split becomes.
// Larger ones become more of the same size, which is what is lost with a worker, up to
// mostItems: each result is remembered with those before it of the same file.
const (
	splitItems = 16
	mostItems  = 1000
)

// splitAbove is the size above which files are split.
func (r *run) splitAbove() int64 {
	if n := r.Pool.Split(); n > 0 {
		return n
	}
	return DefaultSplit
}

// splits reports whether an item is one file whose parts are given out.
func (r *run) splits(it *Item) bool {
	if it.DryRun || it.Ordered || len(it.Actions) != 1 {
		return false
	}
	a := &it.Actions[0]
	return (&Worker{Places: r.Places}).inParts(a) && a.At(a.To.Other()).Size > r.splitAbove()
}

// carry has an item carried out.
func (r *run) carry(it Item) ([]Done, error) {
	if !r.splits(&it) {
		if err := r.pass(); err != nil {
			return nil, err
		}
		return r.Pool.Do(r.ctx, it)
	}
	s := &split{run: r, slot: make(chan struct{}, 1)}
	s.slot <- struct{}{}
	w := &Worker{Places: r.Places, Limit: r.Limit, parts: s.put}
	d := Done{Action: it.Actions[0]}
	d.Err = unpanicked(&d.Action, func() error { return w.put(r.ctx, &d.Action, false) })
	err := r.ctx.Err()
	if lost, ok := errors.AsType[*poolError](d.Err); ok && err == nil {
		err = lost
	}
	return []Done{d}, err
}

// poolError is that of a pool, which ends the run.
type poolError struct{ error }

// Unwrap gives the pool's error.
func (e *poolError) Unwrap() error { return e.error }

// split is one file while its parts are given out.
type split struct {
	*run
	// slot is the place among the run's items that the file has itself: its parts use
	// it, too, so that a run whose every item is such a file does not stand still.
	slot chan struct{}
}

// put copies a file; see Worker.putParts. What an earlier run has uploaded of it is
// not uploaded again.
func (s *split) put(ctx context.Context, a *plan.Action, write place.Write) error {
	to, ok := s.Places[a.To].(place.Parts)
	if !ok {
		return ErrNoParts
	}
	identity := s.Places[a.To].Traits().Identity
	if u := s.uploads.resume(a.To, identity, write.Entry); u != nil {
		if err := s.finish(ctx, a, write, to, u); !errors.Is(err, place.ErrNoUpload) {
			return err
		}
	}
	size := (&Worker{}).partSize(write.Entry.Size)
	token, err := to.StartParts(ctx, write, size)
	if err != nil {
		return err
	}
	u, err := s.uploads.begin(a.To, identity, write.Entry, token, size, s.Now())
	if err != nil {
		return errors.Join(err, to.AbortParts(context.WithoutCancel(ctx), token))
	}
	return s.finish(ctx, a, write, to, u)
}

// finish has the parts that are missing uploaded, and joins all. Where that fails the
// upload is kept, so that the next run sends only what is missing: a part that cannot be
// read now costs no others. It is aborted where what it was to become is there no more,
// or the upload itself is gone.
func (s *split) finish(ctx context.Context, a *plan.Action, write place.Write, to place.Parts, u *upload) error {
	var now entry.Entry
	err := s.send(ctx, a, u)
	if err == nil {
		now, err = to.FinishParts(ctx, write, u.Token, u.Parts)
	}
	switch _, lost := errors.AsType[*poolError](err); {
	case err == nil:
		joined(a, write.Entry, now)
		return s.uploads.end(u)
	case !lost && s.ctx.Err() == nil && (errors.Is(err, place.ErrChanged) || errors.Is(err, place.ErrNoUpload)):
		return errors.Join(err, s.uploads.abort(context.WithoutCancel(ctx), to, u))
	}
	return err
}

// send gives the missing parts out. While it waits for a worker, other items of the
// run have their turn. After a failure no more are given out, and those that are under
// way are waited for: they may be in other processes, and an upload that is aborted
// meanwhile would keep what they bring.
func (s *split) send(ctx context.Context, a *plan.Action, u *upload) error {
	var g errgroup.Group
	var failed atomic.Bool
	size := a.At(a.To.Other()).Size
	for _, p := range u.missing(max(s.splitAbove()/splitItems, size/mostItems)) {
		release, err := s.room(ctx)
		if err != nil || failed.Load() {
			if err == nil {
				release()
			}
			break
		}
		g.Go(func() error {
			defer release()
			err := s.sendRange(ctx, a, u, p)
			if err != nil {
				failed.Store(true)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// room waits until one item more may be under way.
func (s *split) room(ctx context.Context) (release func(), err error) {
	if err := s.pass(); err != nil {
		return nil, err
	}
	select {
	case <-s.slot:
		return func() { s.slot <- struct{}{} }, nil
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// sendRange has some parts uploaded by a worker, and remembers them.
func (s *split) sendRange(ctx context.Context, a *plan.Action, u *upload, p PartRange) error {
	it := Item{Seq: s.seq.Add(1), Actions: []plan.Action{*a}, Single: s.batch.single, Parts: &p}
	dones, err := s.Pool.Do(ctx, it)
	if err == nil {
		err = answers(&it, dones)
	}
	if err == nil && dones[0].Err == nil && len(dones[0].Parts) != p.Count {
		err = fmt.Errorf("%w: %d parts and not %d", ErrPool, len(dones[0].Parts), p.Count)
	}
	switch {
	case err != nil:
		return &poolError{fmt.Errorf("parts %d to %d of %q: %w", p.First, p.First+p.Count-1, a.Key, err)}
	case dones[0].Err != nil:
		return dones[0].Err
	}
	return s.uploads.put(u, p.First, dones[0].Parts)
}

package verify

import (
	"context"
	"iter"
	"sync/atomic"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// To list metadata costs a MinIO several times what names cost. An object that has
// still the time that it was written with was not written since, and so has the
// attributes that it was written with; what has another one is looked at alone.

// stamps tell entries by their times. nil tells none.
type stamps struct {
	// at is the place's; nil after it was found that times tell nothing there.
	at func(mtime int64) int64
}

func (s *stamps) tell() bool { return s != nil && s.at != nil }

// sample is how many entries show whether times tell: where others wrote most of a
// bucket they do not, and to look at each alone would cost more than to list metadata.
const sample = 200

// stamped lists names only, as long as most of the first entries can be told by their
// times.
func (c Check) stamped(ctx context.Context, want iter.Seq2[entry.Entry, error], names *atomic.Int64) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		next, stop := iter.Pull2(c.Place.Entries(ctx, place.ListOptions{Filter: c.counted(names), Names: true}))
		defer stop()
		like, done := newCursor(want)
		defer done()
		type one struct {
			e   entry.Entry
			err error
		}
		var first []one
		told := 0
		for len(first) < sample {
			e, err, ok := next()
			if !ok {
				break
			}
			first = append(first, one{e, err})
			if then, wanted := like.at(e.Key()); err == nil && (!wanted || c.stamps.told(&e, &then)) {
				told++
			}
		}
		if told < len(first)-len(first)/4 {
			stop()
			c.stamps.at = nil
			names.Store(0)
			c.Place.Entries(ctx, place.ListOptions{Filter: c.counted(names)})(yield)
			return
		}
		for _, f := range first {
			if !yield(f.e, f.err) {
				return
			}
		}
		for e, err, ok := next(); ok && yield(e, err); e, err, ok = next() {
		}
	}
}

// told reports whether a listed entry has the time and the content of the one that
// should be there, and then makes it that one, with no hash but its own.
func (s *stamps) told(e, want *entry.Entry) bool {
	switch at := s.at(want.MTime); {
	case at == 0 || e.MTime != at || e.Size != want.Size || e.Kind != want.Kind:
		return false
	case want.Kind == entry.File && (!want.Sum.Contains(entry.HasETag) || e.Sum.ETag != want.Sum.ETag):
		return false
	case want.Kind != entry.File && want.Kind != entry.Dir:
		return false // A listing of names takes it for a file.
	}
	sum := e.Sum
	*e = *want
	e.Sum = sum
	return true
}

// lookAgain looks at what is not as it should be, or cannot be told by its time.
func (c Check) lookAgain(ctx context.Context, e entry.Entry) seen {
	now, there, err := c.Place.Look(ctx, e)
	switch {
	case err == nil && there:
		return seen{e: now}
	case err == nil:
		err = place.ErrChanged
	case ctx.Err() != nil:
		return seen{e: e, err: ctx.Err()}
	}
	e.Sum = entry.Sum{}
	return seen{e: e, unreadable: err}
}

package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
)

const (
	// silent is after how long without an event a run is not taken for one that is there.
	silent = time.Minute
	// pulseGone and waitsGone are after how long without one its process is: it tells how far
	// it is every two seconds, or, before it has begun, that it waits every twenty.
	pulseGone = 5 * pulseEvery
	waitsGone = waitsEvery + pulseGone
)

// Underway is what is known of a run that has not ended.
type Underway struct {
	// Last is what was told of it last, and Seq where that is stored.
	Last Event
	Seq  uint64
	// Began is when it began, by its process's clock; zero if it has not, or that is too long
	// ago to be seen here.
	Began time.Time
	// Quiet is for how long nothing was heard of it.
	Quiet time.Duration
	// Gone says that its process is silent: it was killed, or cut off. The request of such a
	// run is handed out again half a minute after that, if anybody is there to take it.
	Gone bool
}

// UnderWay gives the run of a mirror that is under way, or else one that has not begun, as it
// waits; the zero Underway if there is neither.
func UnderWay(ctx context.Context, b *bus.Bus, mirror string) (u Underway, err error) {
	now, err := b.MirrorClock(ctx)
	if err != nil {
		return u, err
	}
	// Each try of a request is a run of its own: the last one counts, and an end ends them all.
	runs := map[string]Underway{}
	err = b.MirrorEventsSince(ctx, mirror, "*", now.Add(-silent), func(r bus.Record) error {
		var e Event
		if err := json.Unmarshal(r.Data, &e); err != nil {
			return fmt.Errorf("read what is told of its runs: %w", err)
		}
		request := requestOf(e.Run)
		switch {
		case e.Run == "": // what is due, and not asked for yet
		case slices.Contains(endings(), r.Kind):
			delete(runs, request)
		default:
			runs[request] = runs[request].hear(r, e, now)
		}
		return nil
	})
	for _, one := range runs {
		if u.Seq == 0 || one.before(u) {
			u = one
		}
	}
	return u, err
}

// hear takes one event in.
func (u Underway) hear(r bus.Record, e Event, now time.Time) Underway {
	if e.Run != u.Last.Run {
		u = Underway{} // another try
	}
	if r.Kind == KindStarted {
		u.Began = e.At
	}
	u.Last, u.Seq, u.Quiet = e, r.Seq, now.Sub(r.Stored)
	patience := pulseGone
	if !u.begun() {
		patience = waitsGone
	}
	u.Gone = u.Quiet > patience
	return u
}

// begun reports whether the run tells how far it is.
func (u Underway) begun() bool { return u.Last.Since == nil || u.Last.Progress != nil }

// before reports whether a run is rather the one to be shown than another one: it is in
// somebody's hands, has begun, was heard of later.
func (u Underway) before(other Underway) bool {
	switch {
	case u.Gone != other.Gone:
		return !u.Gone
	case u.begun() != other.begun():
		return u.begun()
	}
	return u.Seq > other.Seq
}

package engine

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// endless is a place that holds ever more, and fails now and then.
type endless struct {
	place.Place
	given atomic.Int64
	ended atomic.Bool
}

func (p *endless) Entries(ctx context.Context, _ place.ListOptions) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		defer p.ended.Store(true)
		for ctx.Err() == nil && yield(numbered(p.given.Load())) {
			p.given.Add(1)
		}
	}
}

func numbered(n int64) (e entry.Entry, err error) {
	if n%1000 == 999 {
		err = fmt.Errorf("entry %d cannot be looked at", n)
	}
	return entry.Entry{Path: fmt.Sprintf("%09d", n)}, err
}

// However much there is, what waits is bounded; whoever takes it gets all of it, in order.
func TestAListingIsUnderWayBeforeItIsTaken(t *testing.T) {
	for _, wants := range []int64{0, 1, 100_000} {
		synctest.Test(t, func(t *testing.T) {
			p := &endless{}
			l := List(t.Context(), p, place.ListOptions{}, time.Now)
			synctest.Wait()
			if n := p.given.Load(); n < listedAtOnce || n > (listedAhead+1)*listedAtOnce {
				t.Fatalf("%d entries wait to be taken", n)
			}
			got := int64(0)
			for e, err := range l.entries(t.Context()) {
				if got == wants {
					break
				}
				want, fault := numbered(got)
				if e.Path != want.Path || fmt.Sprint(err) != fmt.Sprint(fault) {
					t.Fatalf("entry %d is %q, %v", got, e.Path, err)
				}
				got++
			}
			if got != wants || !p.ended.Load() {
				t.Errorf("%d of %d entries were taken; the listing has ended: %t", got, wants, p.ended.Load())
			}
			l.Close()
		})
	}
}

func TestAListingHoldsWhatItsPlaceDoes(t *testing.T) {
	for _, n := range []int{0, 1, 2, 127, 128, 1000} {
		got := 0
		for _, err := range List(t.Context(), made{n: n}, place.ListOptions{}, time.Now).entries(t.Context()) {
			must(t, err)
			got++
		}
		if got != n {
			t.Errorf("%d of %d entries were listed", got, n)
		}
	}
}

// Who is interrupted must not take what came so far for all there is.
func TestAListingIsEndedByWhoTakesIt(t *testing.T) {
	p := &endless{}
	opening, opened := context.WithCancel(t.Context())
	l := List(opening, p, place.ListOptions{}, time.Now)
	opened() // which a listing outlives
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var last error
	n := 0
	for _, err := range l.entries(ctx) {
		if n++; n == 20_000 {
			cancel(ErrHeldBack)
		}
		if last = err; n == 100_000 {
			break
		}
	}
	if n < 20_000 || last != ErrHeldBack || !p.ended.Load() {
		t.Errorf("after %d entries it ends with %v; the listing has ended: %t", n, last, p.ended.Load())
	}
}

func TestAListingEndsWithItsRun(t *testing.T) {
	w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
	w.write("a", "one")
	w.whole()
	w.to = openLocal(t, t.TempDir())
	w.job.Places[plan.Dest] = w.to
	p := &endless{}
	w.job.Listing = List(t.Context(), p, place.ListOptions{}, time.Now)
	if _, err := w.try(t.Context()); !isJobError(err, "Places") {
		t.Fatalf("another destination: %v", err)
	}
	if took := w.to.took(); !p.ended.Load() || len(took) > 0 {
		t.Errorf("the listing of a run that was refused has ended: %t; it did %q", p.ended.Load(), took)
	}
}

// late is a place that lists nothing before it is let.
type late struct {
	place.Place
	let chan struct{}
}

func (p late) Entries(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		<-p.let
		p.Place.Entries(ctx, o)(yield)
	}
}

// What is changed after the listing began may be changed again without showing it.
func TestWhatChangesDuringAListingIsYoung(t *testing.T) {
	w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
	w.write("a", "one")
	p := late{w.from, make(chan struct{})}
	began := time.Now()
	w.job.Listing = List(t.Context(), p, place.ListOptions{}, func() time.Time { return began })
	w.write("a", "two")
	close(p.let)
	// An hour later, as the others' clock has it, the destination is open.
	if r := w.whole(); !r.Began.Equal(began) || r.Done[plan.Put] != 1 {
		t.Fatalf("got %+v", r)
	}
	w.same()
	w.job.Listing = nil
	for past, err := range w.store.Past() {
		if must(t, err); !past.Dirty[plan.Source] {
			t.Errorf("%q counts as settled", past.Key)
		}
	}
	w.idle(CheckState) // which has read it again
	for past, err := range w.store.Past() {
		if must(t, err); past.Dirty[plan.Source] {
			t.Errorf("%q counts as young an hour later", past.Key)
		}
	}
}

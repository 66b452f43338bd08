package engine

import (
	"context"
	"iter"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Listing is a listing that is under way before the run that it is for: what has to be
// waited for meanwhile, such as the answers of the other side, costs that run no time.
// Its methods are used by one goroutine at a time.
type Listing struct {
	began  time.Time
	cancel context.CancelFunc
	// batches are what was listed, in order; closed at the end. used are those that may
	// be filled again.
	batches, used chan []listed
}

type listed struct {
	entry entry.Entry
	err   error
}

// How many entries are handed on together, and how many such batches may wait: to hand
// on each alone would cost more than to list it, and few wait where the run keeps up.
const (
	listedAtOnce = 128
	listedAhead  = 64
)

// List begins to list a place. now is asked for the time before anything is looked at.
// That ctx ends does not end the listing: the caller closes it, before the place, even
// where a run took it.
func List(ctx context.Context, p place.Place, o place.ListOptions, now func() time.Time) *Listing {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &Listing{
		began: now(), cancel: cancel,
		batches: make(chan []listed, listedAhead), used: make(chan []listed, listedAhead),
	}
	go l.list(ctx, p.Entries(ctx, o))
	return l
}

// list lists until all is listed or ctx has ended. The first batches are small, so that
// work begins before much was read.
func (l *Listing) list(ctx context.Context, all iter.Seq2[entry.Entry, error]) {
	defer close(l.batches)
	var batch []listed
	most := 1
	pass := func() bool {
		select {
		case l.batches <- batch:
		case <-ctx.Done():
			return false
		}
		select {
		case batch = <-l.used:
		default:
			batch = nil
		}
		return true
	}
	for e, err := range all {
		if ctx.Err() != nil {
			return
		}
		if batch = append(batch, listed{e, err}); len(batch) < most {
			continue
		}
		if most = min(2*most, listedAtOnce); !pass() {
			return
		}
	}
	if len(batch) > 0 {
		pass()
	}
}

// entries gives, once, what [place.Place.Entries] gives, and ends the listing when ctx
// ends.
func (l *Listing) entries(ctx context.Context) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		defer l.Close()
		defer context.AfterFunc(ctx, l.cancel)()
		for batch := range l.batches {
			for i := range batch {
				if !yield(batch[i].entry, batch[i].err) {
					return
				}
			}
			select {
			case l.used <- batch[:0]:
			default:
			}
		}
		if ctx.Err() != nil {
			yield(entry.Entry{}, context.Cause(ctx))
		}
	}
}

// Close ends the listing and waits until nothing of it is under way. It may be repeated;
// of no listing it does nothing.
func (l *Listing) Close() {
	if l == nil {
		return
	}
	l.cancel()
	for range l.batches {
		// What nobody wants any more.
	}
}

// source gives what the source holds.
func (j *Job) source(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	if j.Listing == nil || o.Names {
		return j.Places[plan.Source].Entries(ctx, o)
	}
	return j.Listing.entries(ctx)
}

// began is when the run began to look at the source, or is about to: what was changed
// later is too young to be trusted.
func (j *Job) began() time.Time {
	if j.Listing == nil {
		return j.Now()
	}
	return j.Listing.began
}

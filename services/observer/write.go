package observer

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

const (
	// appendTime bounds one append.
	appendTime = 10 * time.Second
	// publishEvery is how often attempts are published.
	publishEvery = time.Second
	// maxDrafts is how many events are appended at once; the bus takes 1000. It must
	// be more than a phase has lanes, and notices wait: an answer is appended along
	// with a batch of each lane that has made attempts meanwhile.
	maxDrafts = 512
)

// writing is the append under way. There is one at a time, so that events lie in the
// history in the order in which they were made; what is to be said meanwhile waits
// in the outbox, or follows from the state again.
type writing struct {
	tail   bus.Tail
	what   event.Type
	events int
	then   func()
	cancel context.CancelFunc
}

// written is what came of an append.
type written struct {
	stored []bus.Stored
	err    error
}

// append begins to store drafts right behind the last event folded, and runs then,
// in the session's goroutine, once they are. While another append is under way, where
// another event comes first, or the server cannot be reached, nothing is done and the
// caller simply asks again later: what is to be said follows from the state.
func (s *session) append(ctx context.Context, then func(), drafts ...event.Draft) {
	if !s.mayAppend() {
		return
	}
	// It outlives the session's context for as long as leave waits for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendTime)
	w := &writing{tail: s.tail, what: drafts[len(drafts)-1].Type, events: len(drafts), then: then, cancel: cancel}
	s.writing = w
	s.calls.Go(func() {
		defer cancel()
		stored, err := s.c.Bus.AppendAt(ctx, s.id, w.tail, drafts...)
		s.wrote <- written{stored, err}
	})
}

// mayTake is how many events one append may have. It is halved by each conflict and
// doubled by each success: the longer an append takes, the likelier it is that a
// conductor on a busy machine renews its lease before it, and what waits only grows.
func (s *session) mayTake() int { return cmp.Or(s.room, maxDrafts) }

func (s *session) mayAppend() bool {
	return s.writing == nil && s.c.Clock.Now().Mono >= s.pause && (s.blocked == nil || *s.blocked != s.tail)
}

// endAppend takes what came of the append under way into account.
func (s *session) endAppend(ctx context.Context, r written) {
	w := s.writing
	s.writing = nil
	switch {
	case errors.Is(r.err, bus.ErrConflict):
		s.blocked = &w.tail
		s.room = max(1, w.events/2)
		if w.what == event.TypeObserverClaimed {
			s.claim.asked = 0 // it was not stored: a claim of this epoch is a namesake's
		}
		return
	case r.err != nil:
		s.pause = s.c.Clock.Now().Mono + int64(retryPause)
		s.log.WarnContext(ctx, "an append failed and is tried again", "type", w.what, "attempts waiting", s.outbox.held, "error", r.err)
		return
	}
	s.room = min(2*s.mayTake(), maxDrafts)
	for _, st := range r.stored {
		s.fold(st)
	}
	if w.then != nil {
		w.then()
	}
	if s.outbox.dropped > 0 {
		s.log.WarnContext(ctx, "live notices were left out, the lanes flap", "count", s.outbox.dropped)
		s.outbox.dropped = 0
	}
}

// isNotice tells the events that wait among the outbox's notices.
func isNotice(t event.Type) bool {
	return t == event.TypeOutageStarted || t == event.TypeOutageEnded || t == event.TypeClockCompared
}

// flush publishes notices at once and attempts about once a second, or all of
// them when no lane makes any more. What one append does not take is left for the
// next step.
func (s *session) flush(ctx context.Context) {
	o, now := &s.outbox, s.c.Clock.Now()
	o.due = o.due || s.watch == nil || now.Mono-o.last >= int64(publishEvery)
	if !s.mayAppend() {
		return
	}
	drafts, all := s.waiting(s.mayTake(), o.due, now)
	if len(drafts) > 0 {
		s.append(ctx, s.onFlushed(all && o.due, now), drafts...)
	}
}

// answer appends an answer with every attempt that led to it right before it, so
// that whoever reads the answer has them. Where that fails, or more attempts wait
// than one append takes, nothing is lost: the question still stands at the next step.
func (s *session) answer(ctx context.Context, answer event.Draft) {
	if !s.mayAppend() {
		return
	}
	now := s.c.Clock.Now()
	drafts, all := s.waiting(max(1, s.mayTake()-1), true, now)
	if all {
		drafts = append(drafts, answer)
	}
	s.append(ctx, s.onFlushed(all, now), drafts...)
}

// waiting are at most limit events of what waits; all says that they are all.
func (s *session) waiting(limit int, attempts bool, now event.Reading) (drafts []event.Draft, all bool) {
	drafts = slices.Clone(s.outbox.notices)
	if len(drafts) > limit {
		return drafts[:limit], false
	}
	if !attempts {
		return drafts, true
	}
	b, all := s.outbox.batches(limit-len(drafts), now)
	return append(drafts, b...), all
}

// onFlushed is for when all attempts that waited at the time are in the history.
func (s *session) onFlushed(all bool, at event.Reading) func() {
	return func() {
		if all {
			s.outbox.last, s.outbox.due = at.Mono, false
		}
	}
}

// flushAll waits for the append under way and publishes what is left, until ctx ends
// or the server does not take it.
func (s *session) flushAll(ctx context.Context) {
	s.outbox.due = true
	for ctx.Err() == nil {
		if s.writing == nil {
			if !s.claim.mine() || s.state.Published || s.outbox.empty() {
				return
			}
			if !s.mayAppend() {
				s.catchUp(ctx) // another event came first
			}
			if s.flush(ctx); s.writing == nil {
				return
			}
		}
		select {
		case r := <-s.wrote:
			s.endAppend(ctx, r)
		case <-ctx.Done():
		}
	}
}

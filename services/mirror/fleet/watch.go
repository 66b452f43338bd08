package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
)

// Watch is the watching of one run. What was heard stays, so that it can go on by another
// connection than it began with. It is for one goroutine at a time.
type Watch struct {
	mirror, run string
	// after is where what was read last is stored.
	after uint64
	tell  func(kind string, e Event)
	kind  string
	last  Event
}

// NewWatch watches the run that the request of a sequence asks for. tell is told what is
// published of it before its end.
func NewWatch(mirror string, request uint64, tell func(kind string, e Event)) *Watch {
	return &Watch{mirror: mirror, run: runOf(request), after: request, tell: tell}
}

// WatchRun watches, behind a sequence, a run that has begun, and whatever other tries of
// its request there are.
func WatchRun(mirror, run string, after uint64) *Watch {
	if request, _, tried := strings.Cut(run, "-"); tried {
		run = request + "-"
	}
	return &Watch{mirror: mirror, run: run, after: after, tell: func(string, Event) {}}
}

// Heard is the last that was published of the run, with its kind, which is "" as long as
// there was nothing.
func (w *Watch) Heard() (kind string, last Event) { return w.kind, w.last }

// Ended reports whether that was the run's end.
func (w *Watch) Ended() bool {
	return slices.Contains(endings(), w.kind)
}

// Follow goes on watching until the run's end, or until ctx ends, whose error it returns:
// without a connection it waits for another one. Attend tells when that is in vain.
func (w *Watch) Follow(ctx context.Context, b *bus.Bus) error {
	if w.Ended() {
		return nil
	}
	return b.FollowMirror(ctx, w.mirror, w.after, w.take)
}

// CatchUp takes in what is stored by now, and waits for nothing else.
func (w *Watch) CatchUp(ctx context.Context, b *bus.Bus) error {
	newest, known, err := b.LastMirror(ctx, w.mirror)
	if err != nil || !known || newest.Seq <= w.after || w.Ended() {
		return err
	}
	return b.FollowMirror(ctx, w.mirror, w.after, func(r bus.Record) error {
		if err := w.take(r); err != nil || r.Seq < newest.Seq {
			return err
		}
		return bus.Stop
	})
}

// take takes one event of the mirror in; it returns Stop for the run's end.
func (w *Watch) take(r bus.Record) error {
	w.after = r.Seq
	var e Event
	if err := json.Unmarshal(r.Data, &e); err != nil || !strings.HasPrefix(e.Run, w.run) {
		return nil // another run's, or another version's
	}
	if w.kind, w.last = r.Kind, e; w.Ended() {
		return bus.Stop
	}
	w.tell(r.Kind, e)
	return nil
}

var (
	// ErrUnreachable says that the server of a bus does not answer.
	ErrUnreachable = errors.New("the connection is lost")
	// ErrNobody says that no process that runs mirrors gives a sign of life.
	ErrNobody = errors.New("nobody runs mirrors there")
)

const (
	// attendEvery is how often signs of life are looked for.
	attendEvery = time.Second
	// attendWait is how long there is no answer before the connection counts as lost, and
	// attendTry how long one is waited for.
	attendWait = 5 * time.Second
	attendTry  = 2 * time.Second
)

// Attend returns when there is no use in waiting for a run any more: with ErrUnreachable
// once the server does not answer, which is for the caller to bear with, and with
// ErrNobody when for as long as patience no mirror's run has told anything and no process
// has waited for requests. A run that waits for others, however long, is in the hands of a
// process that does one or the other. It returns nil when ctx ends, and until then waits
// on where the signs may not be read: nobody can tell.
func Attend(ctx context.Context, b *bus.Bus, patience time.Duration) error {
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	var told uint64
	alive, answered := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		readers, newest, err := signs(ctx, b)
		now := time.Now()
		if err == nil {
			answered = now
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, bus.ErrDenied):
			<-ctx.Done()
			return nil
		case err != nil && now.Sub(answered) > attendWait:
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		case err != nil: // It may be choosing its leader.
		case readers > 0 || newest != told:
			alive, told = now, newest
		case now.Sub(alive) > patience:
			return ErrNobody
		}
	}
}

// signs are those of processes that run mirrors: how many requests they wait for, and
// where the newest event of any run is stored.
func signs(ctx context.Context, b *bus.Bus) (readers int, newest uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, attendTry)
	defer cancel()
	if readers, err = b.MirrorReaders(ctx); err != nil {
		return 0, 0, err
	}
	last, _, err := b.LastMirrorEvent(ctx, "*", "*")
	return readers, last.Seq, err
}

// silent is after how long without an event a run is not taken for one that is there: it
// tells how far it is every two seconds, or, before it has begun, that it waits every 20.
const silent = time.Minute

// UnderWay gives what was told last of the run of a mirror that is under way, or else of one
// that has not begun, as it waits, and where that is stored; the zero Event if there is neither.
func UnderWay(ctx context.Context, b *bus.Bus, mirror string) (last Event, seq uint64, err error) {
	ended := map[string]bool{}
	for _, kind := range Endings() {
		e, _, err := lastTold(ctx, b, mirror, kind)
		if err != nil {
			return last, 0, err
		}
		ended[e.Run] = true
	}
	for _, kind := range []string{KindStarted, KindProgress, KindStalled} {
		e, at, err := lastTold(ctx, b, mirror, kind)
		if err != nil {
			return last, 0, err
		}
		if at > seq {
			last, seq = e, at
		}
	}
	waits, at, err := lastWaiting(ctx, b, mirror)
	switch begun := last.Run != "" && !ended[last.Run]; {
	case err != nil:
		return Event{}, 0, err
	case begun && (waits.Run != last.Run || at < seq):
		return last, seq, nil
	case !ended[waits.Run]:
		return waits, at, nil
	}
	return Event{}, 0, nil
}

// lastWaiting is the last event of a run that waits; the zero Event if that was too long ago.
// What is due and not asked for yet waits without a run, beside it.
func lastWaiting(ctx context.Context, b *bus.Bus, mirror string) (last Event, seq uint64, err error) {
	err = b.MirrorEventsSince(ctx, mirror, KindWaiting, time.Now().Add(-silent), func(r bus.Record) error {
		var e Event
		if err := json.Unmarshal(r.Data, &e); err != nil {
			return fmt.Errorf("read what is told of its run: %w", err)
		}
		if e.Run != "" {
			last, seq = e, r.Seq
		}
		return nil
	})
	return last, seq, err
}

// lastTold is the last event of a kind; the zero Event if that was too long ago for a run
// that is still there.
func lastTold(ctx context.Context, b *bus.Bus, mirror, kind string) (e Event, seq uint64, err error) {
	r, known, err := b.LastMirrorEvent(ctx, mirror, kind)
	if err != nil || !known || time.Since(r.Stored) > silent {
		return e, 0, err
	}
	if err := json.Unmarshal(r.Data, &e); err != nil {
		return e, 0, fmt.Errorf("read what is told of its run: %w", err)
	}
	return e, r.Seq, nil
}

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

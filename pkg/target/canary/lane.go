package canary

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/firedrill/firedrill/pkg/target"
)

// Book knows the open lanes of a target, so that closing the target closes them. Its
// zero value is ready, and safe for concurrent use.
type Book struct {
	mu     sync.Mutex
	open   map[*Lane]struct{}
	closed bool
}

// LaneOptions say how a lane works.
type LaneOptions struct {
	// Slots is how many attempts may be under way, at least 1. One that finds none
	// free is unsent, with Full, which says which parameter to raise; nil means ErrFull.
	// Where those under way are detached, and so may hang for good, it has failed.
	Slots int
	Full  error
	// Drop lets go of what the lane keeps for its next attempt, such as connections;
	// nil if it keeps nothing. It is called when the lane closes, and when an attempt
	// that was made was not ok: the others may lead to the same server, which is gone,
	// hangs, or is no longer the one that serves. It may be called while attempts are
	// under way, and more than once.
	Drop func()
}

// Open opens a lane. That of a book that is closed is closed.
func (b *Book) Open(o LaneOptions) *Lane {
	l := &Lane{book: b, slots: make(chan struct{}, max(1, o.Slots)), full: cmp.Or(o.Full, ErrFull), drop: o.Drop}
	if l.drop == nil {
		l.drop = func() {}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		l.closed = true
		return l
	}
	if b.open == nil {
		b.open = map[*Lane]struct{}{}
	}
	b.open[l] = struct{}{}
	return l
}

// Close closes every lane, now and from now on. It waits for no attempt.
func (b *Book) Close() {
	b.mu.Lock()
	open := b.open
	b.open, b.closed = nil, true
	b.mu.Unlock()
	for l := range open {
		l.end()
	}
}

func (b *Book) forget(l *Lane) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, l)
}

// Lane lets the attempts of a probe's lane through, no more at a time than it has
// slots, and none once it is closed. A driver's probe embeds it, and has an Attempt
// beside. It is safe for concurrent use.
type Lane struct {
	book  *Book
	slots chan struct{}
	full  error
	drop  func()

	mu     sync.Mutex
	closed bool
	busy   sync.WaitGroup
}

// ErrFull is the error of attempts that find no free slot, where the driver has none of
// its own.
var ErrFull = errors.New("as many attempts as may be are under way")

// ErrClosed is the error of attempts on a lane that is closed.
var ErrClosed = errors.New("the probe is closed")

// Do makes an attempt, which is over soon after ctx ends. It is unsent when ctx has ended,
// the lane is closed, or no slot is free: those under way say what there is to say.
func (l *Lane) Do(ctx context.Context, attempt func() target.Outcome) (o target.Outcome) {
	if err := l.enter(ctx); err != nil {
		return target.Outcome{Result: target.Unsent, Err: err}
	}
	defer l.busy.Done()
	defer l.leave()
	defer func() { l.learn(o) }() // also of one that panics
	return attempt()
}

// DoDetached is Do for an attempt that nothing ends, such as a call into a file system
// that hangs. When ctx ends before the attempt its fate is unknown, since who, such as
// "the file system", did not answer. The attempt goes on, and has its slot until it
// ends; Close does not wait for it.
func (l *Lane) DoDetached(ctx context.Context, who string, attempt func() target.Outcome) (o target.Outcome) {
	defer func() { l.learn(o) }()
	if err := l.enter(ctx); err != nil {
		o = target.Outcome{Result: target.Unsent, Err: err}
		if errors.Is(err, l.full) {
			o.Result = target.Failed // as many as may be hang right now
		}
		return o
	}
	defer l.busy.Done()
	done := make(chan target.Outcome, 1)
	go func() {
		defer l.leave()
		done <- attempt()
	}()
	select {
	case o := <-done:
		return o
	case <-ctx.Done():
		return target.Outcome{Result: target.Unknown, Err: fmt.Errorf("%s did not answer: %w", who, context.Cause(ctx))}
	}
}

// enter counts an attempt in, and takes a slot for it.
func (l *Lane) enter(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case l.slots <- struct{}{}:
		l.busy.Add(1)
		return nil
	default:
		return l.full
	}
}

// learn drops what the lane keeps after an attempt that was not ok, so that those that begin
// later have new connections and speak for the service. One that was held back has met
// none.
func (l *Lane) learn(o target.Outcome) {
	if o.Result != target.OK && o.Result != target.Unsent {
		l.drop()
	}
}

func (l *Lane) leave() { <-l.slots }

// Closed reports whether the lane is closed. It is before the last Drop is called: what
// an attempt keeps under the lock that Drop takes, while this says no, is dropped.
func (l *Lane) Closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Close waits for attempts under way, which end by their deadlines. Its error is nil.
func (l *Lane) Close() error {
	l.book.forget(l)
	l.end()
	l.busy.Wait()
	return nil
}

func (l *Lane) end() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.drop()
}

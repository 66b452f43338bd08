package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// greeter opens the sessions of probes. A server that hangs is given connections all the
// same, by its kernel, and has to serve each of them once it goes on, also those that
// nobody waits for any more. One for each attempt would be hundreds a second: clients of
// a server that was frozen for 8 s waited 4 s longer, for what the measurement had left.
//
// So a greeting goes on beyond the attempt that began it, whoever waits gets the first
// session that is ready, and while a greeting hangs an attempt begins another only if
// none was begun in the first quarter of its time. That quarter keeps what is measured
// sound: each attempt is covered by a connection that is younger than itself, so it does
// not fail for an old one's way, such as to a server that clients are no longer led to.
//
// It is safe for concurrent use.
type greeter struct {
	// to names the server in errors.
	to   string
	open func(context.Context) (*session, error)
	// drop closes a session that nobody wants.
	drop func(*session)
	ctx  context.Context
	end  context.CancelCauseFunc
	busy sync.WaitGroup

	mu sync.Mutex
	// pending are the greetings under way, the oldest first.
	pending []*greeting
	// waiting are the attempts without a session, the oldest first.
	waiting []*waiter
	// begun is when the last greeting was begun.
	begun  time.Time
	closed bool
}

// greeting is a session that is being opened for an attempt, or for whoever waits once
// that has ended.
type greeting struct {
	begun time.Time
	owner *waiter
}

// waiter is an attempt that waits for a session.
type waiter struct {
	began time.Time
	// got is what came of it, at most once.
	got chan greeted
}

type greeted struct {
	session *session
	err     error
}

// patience is how many times as long as the attempt that began it a greeting may take:
// it is the first to hear of a server that goes on.
const patience = 4

// newGreeter makes one for the server to, whose greetings have what ctx has, and go on
// until close.
func newGreeter(ctx context.Context, to string, open func(context.Context) (*session, error)) *greeter {
	g := &greeter{to: to, open: open, drop: (*session).close}
	g.ctx, g.end = context.WithCancelCause(context.WithoutCancel(ctx))
	return g
}

// errGreeterClosed is what attempts get whose target was closed.
var errGreeterClosed = errors.New("the target is closed")

// take gives a session that nobody has used. It waits no longer than ctx.
func (g *greeter) take(ctx context.Context) (*session, error) {
	w := &waiter{began: time.Now(), got: make(chan greeted, 1)}
	left := adminTimeout
	if end, ok := ctx.Deadline(); ok {
		left = end.Sub(w.began)
	}
	again := time.NewTimer(left / 4)
	defer again.Stop()
	if !g.enter(w, left) {
		return nil, errGreeterClosed
	}
	for {
		select {
		case r := <-w.got:
			return r.session, r.err
		case <-again.C:
			g.insist(w, left)
		case <-ctx.Done():
			return nil, g.leave(w, context.Cause(ctx))
		}
	}
}

// enter adds an attempt, which begins a greeting unless one hangs.
func (g *greeter) enter(w *waiter, left time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.waiting = append(g.waiting, w)
	if len(g.pending) == 0 || w.began.Sub(g.pending[0].begun) < left/4 {
		g.begin(w, left)
	}
	return true
}

// insist begins a greeting for an attempt that still waits, unless one was begun after it.
func (g *greeter) insist(w *waiter, left time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed && g.begun.Before(w.began) && slices.Contains(g.waiting, w) {
		g.begin(w, left)
	}
}

// begin starts a greeting. mu is held.
func (g *greeter) begin(w *waiter, left time.Duration) {
	n := &greeting{begun: time.Now(), owner: w}
	g.pending, g.begun = append(g.pending, n), n.begun
	g.busy.Go(func() {
		ctx, cancel := context.WithTimeout(g.ctx, patience*left)
		defer cancel()
		s, err := g.open(ctx)
		g.done(n, s, err)
	})
}

// done hands a session to whoever waits, and an error to who began it.
func (g *greeter) done(n *greeting, s *session, err error) {
	g.mu.Lock()
	g.pending = slices.DeleteFunc(g.pending, func(o *greeting) bool { return o == n })
	to := n.owner
	if i := slices.Index(g.waiting, to); i < 0 {
		to = nil
	}
	if err == nil && to == nil && len(g.waiting) > 0 {
		to = g.waiting[0]
	}
	if to != nil {
		g.waiting = slices.DeleteFunc(g.waiting, func(w *waiter) bool { return w == to })
		to.got <- greeted{s, err}
	}
	g.mu.Unlock()
	if to == nil && s != nil {
		g.drop(s)
	}
}

// leave takes an attempt out whose time is over. A session that it was given in that
// moment is closed: nothing was sent on it.
func (g *greeter) leave(w *waiter, cause error) error {
	g.mu.Lock()
	g.waiting = slices.DeleteFunc(g.waiting, func(o *waiter) bool { return o == w })
	g.mu.Unlock()
	select {
	case r := <-w.got:
		if r.session == nil {
			return r.err
		}
		g.drop(r.session)
	default:
	}
	return fmt.Errorf("%s: no connection was ready in time: %w", g.to, cause)
}

// close ends all greetings, and waits until they have.
func (g *greeter) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.end(errGreeterClosed)
	g.busy.Wait()
}

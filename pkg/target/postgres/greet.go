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
// nobody waits for any more. One for each attempt is hundreds a second, and where a login
// takes the server longer than that leaves it, it never comes back: the measurement keeps
// down what it measures.
//
// So a pooled lane opens few sessions at a time, as a client's pool does, and has what its
// attempts give back; and once no login of a whole deadline's age has an answer, all lanes
// together begin one each quarter of a deadline. A login goes on for a while when the
// attempt that began it has failed, so that a slow server is not asked for ever more of
// what it has nearly done. What is measured stays sound by three rules: a fresh attempt
// gets no session that was begun before it; an attempt that fails for want of one was
// covered by a login that began in its first quarter or was its own; and as soon as there
// is an answer, each fresh attempt that still waits begins its own.
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
	// begun is when the last greeting was begun, answered when the last answer came.
	begun, answered time.Time
	closed          bool
}

// poolGreets is how many sessions a pool opens at a time, but for attempts that have
// waited for a quarter of their time.
const poolGreets = 4

// patience is how many deadlines long a greeting may go on.
const patience = 4

// greeting is a session that is being opened for an attempt, or for another once that
// has ended.
type greeting struct {
	begun time.Time
	owner *waiter
}

// waiter is an attempt that waits for a session.
type waiter struct {
	began time.Time
	// left is how long it may wait.
	left time.Duration
	// greets says that it has begun a greeting.
	greets bool
	// pool is whose sessions it may have; nil for none but new ones.
	pool *pool
	// got is what came of it, at most once.
	got chan greeted
}

type greeted struct {
	session *session
	err     error
}

// pool is what a lane keeps: sessions whose last attempt was ok. Its greeter guards it.
type pool struct {
	// room is how many it keeps at most.
	room int
	// over reports whether nothing may be kept any more.
	over func() bool
	idle []*session
}

// newGreeter makes one for the server to, whose greetings have what ctx has, and go on
// until close.
func newGreeter(ctx context.Context, to string, open func(context.Context) (*session, error)) *greeter {
	g := &greeter{to: to, open: open, drop: (*session).close}
	g.ctx, g.end = context.WithCancelCause(context.WithoutCancel(ctx))
	return g
}

// errGreeterClosed is what attempts get whose target was closed.
var errGreeterClosed = errors.New("the target is closed")

// take gives a session that the pool has or gets, or, without a pool, one that is begun
// from now on. It waits no longer than ctx.
func (g *greeter) take(ctx context.Context, from *pool) (*session, error) {
	w := &waiter{began: time.Now(), left: adminTimeout, pool: from, got: make(chan greeted, 1)}
	if end, ok := ctx.Deadline(); ok {
		w.left = max(end.Sub(w.began), time.Millisecond)
	}
	if s, err := g.enter(w); s != nil || err != nil {
		return s, err
	}
	again := time.NewTicker(w.left / 4)
	defer again.Stop()
	for {
		select {
		case r := <-w.got:
			return r.session, r.err
		case <-again.C:
			g.insist(w)
		case <-ctx.Done():
			return nil, g.leave(w, context.Cause(ctx))
		}
	}
}

// enter gives an attempt what its pool has, or has it wait.
func (g *greeter) enter(w *waiter) (*session, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errGreeterClosed
	}
	if w.pool != nil {
		if n := len(w.pool.idle); n > 0 {
			s := w.pool.idle[n-1]
			w.pool.idle = w.pool.idle[:n-1]
			return s, nil
		}
	}
	g.waiting = append(g.waiting, w)
	if !g.hangs(w) && g.greets(w.pool) < poolGreets || g.due(w) {
		g.begin(w)
	}
	return nil, nil
}

// insist begins a greeting for an attempt that waits for the next quarter of its time.
func (g *greeter) insist(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed && !w.greets && slices.Contains(g.waiting, w) && (!g.hangs(w) || g.due(w)) {
		g.begin(w)
	}
}

// hangs reports whether a greeting of a whole deadline's age has no answer, and none came
// since it was begun. mu is held.
func (g *greeter) hangs(w *waiter) bool {
	old := time.Now().Add(-w.left)
	return slices.ContainsFunc(g.pending, func(n *greeting) bool {
		return !n.begun.After(old) && !n.begun.Before(g.answered)
	})
}

// due reports whether no greeting was begun for a quarter of a deadline. mu is held.
func (g *greeter) due(w *waiter) bool { return time.Since(g.begun) >= w.left/4 }

// greets is how many greetings a pool has under way; without a pool none count. mu is
// held.
func (g *greeter) greets(of *pool) (n int) {
	for _, p := range g.pending {
		if of != nil && p.owner.pool == of {
			n++
		}
	}
	return n
}

// begin starts an attempt's greeting, which it has one of. mu is held.
func (g *greeter) begin(w *waiter) {
	w.greets = true
	n := &greeting{begun: time.Now(), owner: w}
	g.pending, g.begun = append(g.pending, n), n.begun
	g.busy.Go(func() {
		ctx, cancel := context.WithTimeout(g.ctx, patience*w.left)
		defer cancel()
		s, err := g.greet(ctx)
		g.done(n, s, err, ctx.Err() != nil)
	})
}

// greet is open, whose panic is the failure of one attempt.
func (g *greeter) greet(ctx context.Context) (s *session, err error) {
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("%s: opening a connection panicked: %v", g.to, r)
		}
	}()
	return g.open(ctx)
}

// done hands on what came of a greeting. An answer, be it a refusal, lets the fresh
// attempts that wait begin their own.
func (g *greeter) done(n *greeting, s *session, err error, late bool) {
	g.mu.Lock()
	g.pending = slices.DeleteFunc(g.pending, func(o *greeting) bool { return o == n })
	if !late && !g.closed {
		g.answered = time.Now()
	}
	wanted := true
	if i := g.heir(n, err); i >= 0 {
		g.hand(i, greeted{s, err})
	} else if s != nil {
		wanted = n.owner.pool.keep(s)
	}
	if !late && !g.closed {
		for _, w := range g.waiting {
			if w.pool == nil && !w.greets {
				g.begin(w)
			}
		}
	}
	g.mu.Unlock()
	if !wanted {
		g.drop(s)
	}
}

// heir is the place among those who wait of the attempt that gets what came of a greeting,
// -1 if none does: who began it; of a session otherwise the oldest attempt that it is not
// older than, or one that may have older ones. mu is held.
func (g *greeter) heir(n *greeting, err error) int {
	i := slices.Index(g.waiting, n.owner)
	if i >= 0 || err != nil {
		return i
	}
	return slices.IndexFunc(g.waiting, func(w *waiter) bool { return w.pool != nil || !w.began.After(n.begun) })
}

// hand gives an attempt that waits what came of it. mu is held.
func (g *greeter) hand(i int, r greeted) {
	w := g.waiting[i]
	g.waiting = slices.Delete(g.waiting, i, i+1)
	w.got <- r
}

// give hands on a session whose attempt was ok: to an attempt of its pool that waits, or
// else to the pool.
func (g *greeter) give(to *pool, s *session) {
	g.mu.Lock()
	wanted := true
	if i := slices.IndexFunc(g.waiting, func(w *waiter) bool { return w.pool == to }); i >= 0 {
		g.hand(i, greeted{session: s})
	} else {
		wanted = to.keep(s)
	}
	g.mu.Unlock()
	if !wanted {
		g.drop(s)
	}
}

// keep leaves a session in its pool, if there is one with room for it. Its greeter's mu
// is held.
func (p *pool) keep(s *session) bool {
	if p == nil || p.over() || len(p.idle) >= p.room {
		return false
	}
	p.idle = append(p.idle, s)
	return true
}

// empty closes what a pool has.
func (g *greeter) empty(p *pool) {
	g.mu.Lock()
	idle := p.idle
	p.idle = nil
	g.mu.Unlock()
	for _, s := range idle {
		g.drop(s)
	}
}

// leave takes an attempt out whose time is over. A session that it was given in that
// moment goes back.
func (g *greeter) leave(w *waiter, cause error) error {
	g.mu.Lock()
	g.waiting = slices.DeleteFunc(g.waiting, func(o *waiter) bool { return o == w })
	g.mu.Unlock()
	select {
	case r := <-w.got:
		switch {
		case r.session == nil:
			return r.err
		case w.pool == nil:
			g.drop(r.session)
		default:
			g.give(w.pool, r.session)
		}
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

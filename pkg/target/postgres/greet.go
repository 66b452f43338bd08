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
// a server that was frozen for 8 s waited seconds longer, for what the measurement had
// left, and on a busy machine it did not come back at all.
//
// So while a greeting hangs an attempt begins another only if none was begun in the first
// quarter of its time, and has what comes of a later one otherwise. What is measured stays
// sound by three rules: an attempt gets no session that is older than itself, which might
// lead to a server that clients are no longer led to; each attempt that finds none was
// covered by a greeting younger than itself; and as soon as any is answered, those who still
// wait begin their own, two for each answer, so that a server is asked as fast as it
// answers. A pooled lane's attempts have what its others give back, as clients of a pool
// do: where each had to log in, a server that just came back was kept busy with logins.
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
	// begun is when the last greeting was begun, answered when the last one was that had
	// an answer.
	begun, answered time.Time
	closed          bool
}

// greeting is a session that is being opened for an attempt, or for an older one once that
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
	pool *probe
	// got is what came of it, at most once.
	got chan greeted
}

type greeted struct {
	session *session
	// epoch is the pool's that the session was in; noEpoch of a new one.
	epoch int
	err   error
}

const noEpoch = -1

// newGreeter makes one for the server to, whose greetings have what ctx has, and go on
// until close.
func newGreeter(ctx context.Context, to string, open func(context.Context) (*session, error)) *greeter {
	g := &greeter{to: to, open: open, drop: (*session).close}
	g.ctx, g.end = context.WithCancelCause(context.WithoutCancel(ctx))
	return g
}

// errGreeterClosed is what attempts get whose target was closed.
var errGreeterClosed = errors.New("the target is closed")

// take gives a session that nobody has used, with noEpoch, or one that the pool is offered
// meanwhile, with its epoch. It waits no longer than ctx.
func (g *greeter) take(ctx context.Context, pool *probe) (*session, int, error) {
	w := &waiter{began: time.Now(), left: adminTimeout, pool: pool, got: make(chan greeted, 1)}
	if end, ok := ctx.Deadline(); ok {
		w.left = end.Sub(w.began)
	}
	again := time.NewTimer(w.left / 4)
	defer again.Stop()
	if !g.enter(w) {
		return nil, noEpoch, errGreeterClosed
	}
	for {
		select {
		case r := <-w.got:
			return r.session, r.epoch, r.err
		case <-again.C:
			g.insist(w)
		case <-ctx.Done():
			return nil, noEpoch, g.leave(w, context.Cause(ctx))
		}
	}
}

// enter adds an attempt, which begins a greeting unless they hang.
func (g *greeter) enter(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.waiting = append(g.waiting, w)
	hang := len(g.pending) > 0 && w.began.Sub(g.pending[0].begun) >= w.left/4 && !g.answered.After(g.pending[0].begun)
	if !hang {
		g.begin(w)
	}
	return true
}

// insist begins a greeting for an attempt that still waits, unless one was begun after it.
func (g *greeter) insist(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed && g.begun.Before(w.began) && slices.Contains(g.waiting, w) {
		g.begin(w)
	}
}

// begin starts an attempt's greeting, which it has one of. mu is held.
func (g *greeter) begin(w *waiter) {
	w.greets = true
	n := &greeting{begun: time.Now(), owner: w}
	g.pending, g.begun = append(g.pending, n), n.begun
	g.busy.Go(func() {
		ctx, cancel := context.WithTimeout(g.ctx, w.left)
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

// done hands a session to who began it, or else to the oldest attempt that is no younger,
// and an error to who began it. Where the server answered in time, all who wait greet it.
func (g *greeter) done(n *greeting, s *session, err error, late bool) {
	g.mu.Lock()
	g.pending = slices.DeleteFunc(g.pending, func(o *greeting) bool { return o == n })
	i := slices.Index(g.waiting, n.owner)
	if i < 0 && err == nil {
		i = slices.IndexFunc(g.waiting, func(w *waiter) bool { return !w.began.After(n.begun) })
	}
	if i >= 0 {
		to := g.waiting[i]
		g.waiting = slices.Delete(g.waiting, i, i+1)
		to.got <- greeted{s, noEpoch, err}
	}
	if !late && !g.closed {
		if n.begun.After(g.answered) {
			g.answered = n.begun
		}
		more := 2
		for _, w := range g.waiting {
			if more > 0 && !w.greets {
				g.begin(w)
				more--
			}
		}
	}
	g.mu.Unlock()
	if i < 0 && s != nil {
		g.drop(s)
	}
}

// offer hands a session that was used to an attempt of its pool that waits; false if none
// does.
func (g *greeter) offer(pool *probe, epoch int, s *session) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.waiting, func(w *waiter) bool { return w.pool == pool })
	if i < 0 {
		return false
	}
	g.waiting[i].got <- greeted{session: s, epoch: epoch}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return true
}

// leave takes an attempt out whose time is over. A session that it was given in that
// moment is closed.
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

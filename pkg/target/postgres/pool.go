package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/target/canary"
)

// pool opens and keeps the sessions of a pooled lane. A server that hangs is given
// connections all the same, by its kernel, and has to serve each of them once it goes on,
// also those that nobody waits for any more. A login for each attempt is hundreds a second,
// and where one takes the server longer than an attempt's deadline it never comes back: the
// measurement keeps down what it measures.
//
// So a pool opens few sessions at a time, as a client's does, and attempts wait for their
// turn or for what others give back. Once a login of a deadline's age has no answer, one is
// begun each quarter of a deadline. An attempt that got nothing was held back, unless it
// had a login of its own for most of its time: only that says something of the server.
//
// Nobody but the attempt that it was begun for gets a session from before the pool was
// emptied last, which each attempt does that was made and not ok: its server may be the
// wrong one by now.
//
// It is safe for concurrent use.
type pool struct {
	open func(context.Context) (*session, error)
	// room is how many sessions there may be at most, with those in use; without those
	// whose statements have no answer, or it might never open one to another server.
	room int
	// shut closes a session that nobody wants.
	shut func(*session)
	ctx  context.Context
	end  context.CancelCauseFunc
	busy sync.WaitGroup

	mu   sync.Mutex
	idle []*session
	// emptied is how often the pool was: what was begun before is not kept.
	emptied int
	// pending are the logins under way, the oldest first.
	pending []*greeting
	// waiting are the attempts without a session, those with the least time left first.
	waiting []*waiter
	// count is how many sessions there are: kept, in use, and being opened.
	count int
	// begun is when the last login was begun, answered when the last of those was that had
	// an answer, silent when the last of those was that was given up without one.
	begun, answered, silent time.Time
	closed                  bool
}

// poolGreets is how many logins a pool has under way, but for those of a server that hangs.
const poolGreets = 4

// errPoolClosed is what attempts get whose lane was closed.
var errPoolClosed = fmt.Errorf("%w: the lane is closed", canary.ErrHeldBack)

// greeting is a session that is being opened for an attempt.
type greeting struct {
	begun   time.Time
	owner   *waiter
	emptied int
}

// waiter is an attempt that waits for a session.
type waiter struct {
	began time.Time
	// deadline is how long it may take, since it began.
	deadline time.Duration
	// own says that a login was begun for it, prompt that it had most of its time for that.
	own, prompt bool
	// got is what came of it, at most once.
	got chan greeted
}

type greeted struct {
	session *session
	err     error
}

// newPool makes a pool whose logins have what ctx has, and go on until close.
func newPool(ctx context.Context, room int, open func(context.Context) (*session, error)) *pool {
	p := &pool{open: open, room: room, shut: (*session).close}
	p.ctx, p.end = context.WithCancelCause(context.WithoutCancel(ctx))
	return p
}

// newWaiter is an attempt that began then. ctx has its deadline.
func newWaiter(ctx context.Context, began time.Time) *waiter {
	w := &waiter{began: began, deadline: adminTimeout, got: make(chan greeted, 1)}
	if end, ok := ctx.Deadline(); ok {
		w.deadline = max(end.Sub(began), time.Millisecond)
	}
	return w
}

func (w *waiter) ends() time.Time { return w.began.Add(w.deadline) }

// early reports whether it has most of its time left: a login without an answer by then
// says something of the server.
func (w *waiter) early() bool { return time.Since(w.began) <= w.deadline/4 }

// tooLate is the error of an attempt whose login had too little time to say anything.
func tooLate(err error) error {
	return fmt.Errorf("%w but a login, late: %w", canary.ErrHeldBack, err)
}

// take gives a session to an attempt that began then. It waits no longer than ctx; the
// error is an ErrHeldBack if it says nothing of the server.
func (p *pool) take(ctx context.Context, began time.Time) (*session, error) {
	w := newWaiter(ctx, began)
	if s, err := p.enter(w); s != nil || err != nil {
		return s, err
	}
	again := time.NewTicker(w.deadline / 4)
	defer again.Stop()
	for {
		select {
		case r := <-w.got:
			return r.session, r.err
		case <-again.C:
			p.next(w.deadline)
		case <-ctx.Done():
			return nil, p.leave(w, context.Cause(ctx))
		}
	}
}

// enter gives an attempt what the pool has, or has it wait.
func (p *pool) enter(w *waiter) (*session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPoolClosed
	}
	if n := len(p.idle); n > 0 {
		s := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return s, nil
	}
	i := len(p.waiting)
	for i > 0 && p.waiting[i-1].ends().After(w.ends()) { // held back before it came here
		i--
	}
	p.waiting = slices.Insert(p.waiting, i, w)
	w.prompt = w.early()
	p.begin(w.deadline, true)
	w.prompt = w.prompt && w.own
	return nil, nil
}

// next begins a login if there may be one more by now.
func (p *pool) next(deadline time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin(deadline, false)
}

// begin starts the login of the youngest attempt that waits without one, which has the most
// time left for it, if there may be one more. mu is held.
func (p *pool) begin(deadline time.Duration, entering bool) {
	i := len(p.waiting) - 1
	for i >= 0 && p.waiting[i].own {
		i--
	}
	if i < 0 || p.closed || p.count >= p.room || !p.may(deadline, entering) {
		return
	}
	w := p.waiting[i]
	w.own = true
	n := &greeting{begun: time.Now(), owner: w, emptied: p.emptied}
	p.pending, p.begun = append(p.pending, n), n.begun
	p.count++
	p.busy.Go(func() {
		ctx, cancel := context.WithDeadline(p.ctx, w.ends())
		defer cancel()
		s, err := p.greet(ctx)
		p.done(n, s, err, err != nil && ctx.Err() != nil)
	})
}

// may reports whether one more login may be begun. Those that were begun before one that
// has an answer are not counted: they hang where clients are led no more. mu is held.
func (p *pool) may(deadline time.Duration, entering bool) bool {
	if p.silent.After(p.answered) {
		// Only who has all of its time yet can tell that the server hangs on.
		return entering && time.Since(p.begun) >= deadline/4
	}
	asked := 0
	for _, n := range p.pending {
		if !n.begun.Before(p.answered) {
			asked++
		}
	}
	return asked < poolGreets
}

// greet is open, whose panic is the failure of one attempt.
func (p *pool) greet(ctx context.Context) (s *session, err error) {
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("opening a connection panicked: %v", r)
		}
	}()
	return p.open(ctx)
}

// done hands on what came of a login: to its attempt, or a session to any other.
func (p *pool) done(n *greeting, s *session, err error, late bool) {
	p.mu.Lock()
	p.pending = slices.DeleteFunc(p.pending, func(o *greeting) bool { return o == n })
	switch {
	case late && n.owner.prompt && n.begun.After(p.silent):
		p.silent = n.begun
	case !late && n.begun.After(p.answered):
		p.answered = n.begun
	}
	wanted := false
	if i := slices.Index(p.waiting, n.owner); err != nil {
		p.count--
		if late && !n.owner.prompt {
			err = tooLate(err)
		}
		if i >= 0 {
			p.hand(i, greeted{err: err})
		}
	} else {
		s.emptied = n.emptied
		if wanted = i >= 0; wanted {
			p.hand(i, greeted{session: s})
		} else {
			wanted = p.keep(s)
		}
	}
	for range poolGreets {
		p.begin(n.owner.deadline, false)
	}
	p.mu.Unlock()
	if s != nil && !wanted {
		p.shut(s)
	}
}

// hand gives an attempt that waits what came of it. mu is held.
func (p *pool) hand(i int, r greeted) {
	w := p.waiting[i]
	p.waiting = slices.Delete(p.waiting, i, i+1)
	w.got <- r
}

// give hands on a session whose attempt was ok: to one that waits, or to the pool, which
// closes what was begun before it was emptied.
func (p *pool) give(s *session) {
	p.mu.Lock()
	wanted := p.keep(s)
	p.mu.Unlock()
	if !wanted {
		p.shut(s)
	}
}

// keep gives a session to an attempt that waits, or leaves it in the pool, if it may be
// kept; else it counts no more. mu is held.
func (p *pool) keep(s *session) bool {
	switch {
	case p.closed || s.emptied != p.emptied:
		p.count--
		return false
	case len(p.waiting) > 0:
		// Who has the least time left may get no answer in it, which empties the pool.
		p.hand(len(p.waiting)-1, greeted{session: s})
	default:
		p.idle = append(p.idle, s)
	}
	return true
}

// lost takes a session out of the count, which its attempt closes.
func (p *pool) lost() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count--
}

// empty closes what is kept; what is in use or being opened is not kept any more.
func (p *pool) empty() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.emptied++
	p.count -= len(idle)
	p.mu.Unlock()
	for _, s := range idle {
		p.shut(s)
	}
}

// leave takes an attempt out whose time is over. A session that it was given in that
// moment goes back.
func (p *pool) leave(w *waiter, cause error) error {
	p.mu.Lock()
	p.waiting = slices.DeleteFunc(p.waiting, func(o *waiter) bool { return o == w })
	own := w.prompt
	p.mu.Unlock()
	select {
	case r := <-w.got:
		if r.session == nil {
			return r.err
		}
		own = false // there was one
		p.give(r.session)
	default:
	}
	if own {
		return fmt.Errorf("no connection was ready in time: %w", cause)
	}
	return fmt.Errorf("%w: the lane waited for connections that it had asked for before: %w", canary.ErrHeldBack, cause)
}

// close ends all logins and what is kept, and waits until it has.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for len(p.waiting) > 0 {
		p.hand(0, greeted{err: errPoolClosed})
	}
	p.mu.Unlock()
	p.end(errPoolClosed)
	p.empty()
	p.busy.Wait()
}

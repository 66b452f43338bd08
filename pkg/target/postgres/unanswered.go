package postgres

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// mostUnanswered is how many statements of a lane may be without an answer after their
// attempts have ended.
const mostUnanswered = 8

// unanswered are a lane's statements that have no answer though their attempts have ended. A
// server goes on with each: one that waits for a synchronous standby, or for a lock, does
// not notice that its client has gone. Attempts that all sent theirs would take a server
// all its connections within seconds, and a stall of writes would become an outage.
//
// So their connections are kept until the answer comes, which shows the server's return as
// well as any other, and as long as there are mostUnanswered of one server, attempts wait.
// Each quarter of a deadline one of them opens a session, to see whether clients are led to
// another server by now, and whether this one is still at what it owes.
//
// It is safe for concurrent use.
type unanswered struct {
	mu sync.Mutex
	// on counts the sessions by the server that they are of.
	on       map[string]int
	sessions map[*session]struct{}
	// last is the server of the session that was opened last, at opened.
	last   string
	opened time.Time
	// looked is when an attempt last began to look where clients are led.
	looked time.Time
	// changed is closed when those who wait are to see whether they may go on.
	changed chan struct{}
	closed  bool
	busy    sync.WaitGroup
}

func newUnanswered() *unanswered {
	return &unanswered{on: map[string]int{}, sessions: map[*session]struct{}{}, changed: make(chan struct{})}
}

// wait returns when an attempt may have a session; look says that it must be a new one,
// waited that it was held back until now. The error is an errHeldBack: its time is over,
// with nothing sent.
func (s *unanswered) wait(ctx context.Context) (look, waited bool, err error) {
	every := adminTimeout / 4
	if end, ok := ctx.Deadline(); ok {
		every = time.Until(end) / 4
	}
	for {
		n, changed, next := s.turn(every)
		if next <= 0 {
			return n >= mostUnanswered, waited, nil
		}
		waited = true
		again := time.NewTimer(next)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			err = fmt.Errorf("%w: the server has not answered %d statements of this lane: %w", errHeldBack, n, context.Cause(ctx))
		}
		if again.Stop(); err != nil {
			return false, true, err
		}
	}
}

// turn says how many statements have no answer from the server that clients are led to, as
// far as is known, and how long an attempt has to wait unless that changes. One that has
// not is taken to look.
func (s *unanswered) turn(every time.Duration) (n int, changed <-chan struct{}, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, now := s.on[s.last], time.Now()
	if n < mostUnanswered || s.closed {
		return 0, nil, 0
	}
	if next = every - now.Sub(s.looked); next <= 0 {
		s.looked = now
	}
	return n, s.changed, next
}

// owedBy are the processes that owe an answer of the server that a session leads to.
func (s *unanswered) owedBy(c *session) (owed []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.opened.After(s.opened) {
		led := s.last != c.server
		s.last, s.opened = c.server, c.opened
		if led {
			s.tell()
		}
	}
	for o := range s.sessions {
		if o.server == c.server {
			owed = append(owed, strconv.FormatUint(uint64(o.pg.PID()), 10))
		}
	}
	return owed
}

// forget lets go of what a server is no longer at.
func (s *unanswered) forget(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		if c.server == server {
			_ = c.raw.Conn.Close() // which ends its reading
		}
	}
}

// add keeps a session whose statement has no answer until that comes, or the server ends
// it.
func (s *unanswered) add(c *session) {
	s.mu.Lock()
	if s.closed || !c.pg.IsClosed() { // pgconn reads on only in what it gave up
		s.mu.Unlock()
		c.close()
		return
	}
	defer s.mu.Unlock()
	c.raw.linger()
	s.sessions[c] = struct{}{}
	s.on[c.server]++
	s.busy.Go(func() {
		<-c.pg.CleanupDone() // all that the server had to say was read
		c.close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, c)
		if s.on[c.server]--; s.on[c.server] == 0 {
			delete(s.on, c.server)
		}
		s.tell()
	})
}

// tell has those who wait look again. mu is held.
func (s *unanswered) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// close closes what is kept, now and from now on, and waits until it is.
func (s *unanswered) close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.sessions {
		_ = c.raw.Conn.Close()
	}
	s.tell()
	s.mu.Unlock()
	s.busy.Wait()
}

// wire is a session's TCP connection. pgconn gives one up whose deadline passed: it says
// goodbye, reads what still comes, for a while, and closes it. One that lingers is read
// until the server closes it, or its session does.
type wire struct {
	net.Conn
	mu      sync.Mutex
	lingers bool
}

// SetDeadline is the connection's, until it lingers.
func (w *wire) SetDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lingers {
		return nil
	}
	return w.Conn.SetDeadline(t)
}

// linger takes away the deadline for good.
func (w *wire) linger() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lingers = true
	_ = w.Conn.SetDeadline(time.Time{}) // of a connection that is closed already: its reading has ended
}

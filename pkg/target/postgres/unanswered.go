package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/target/canary"
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
// Each quarter of a deadline one of them opens a session. Where that leads to the same
// server, the oldest statements are cancelled, so that there are no more of them with its
// own, whose answer shows what the server makes of new ones.
//
// It is safe for concurrent use.
type unanswered struct {
	// gate is shut while the server that clients are led to owes too much.
	gate *canary.Gate
	mu   sync.Mutex
	// owed are the sessions, in the order in which they came.
	owed []*session
	// last is the server of the session that was opened last, at opened.
	last   string
	opened time.Time
	closed bool
	busy   sync.WaitGroup
}

// debt is how a session stands with what its lane is owed.
type debt int

const (
	owesNothing debt = iota
	// asking: its attempt is under way, in the place of statements that are cancelled.
	asking
	// owes: its attempt has ended without an answer.
	owes
	// freed: its statement is being cancelled, and counts no more.
	freed
	// doubtful: it was to be cancelled, and nobody knows whether it was, so that an answer
	// shows nothing of the server; or it was not sent.
	doubtful
)

func newUnanswered() *unanswered {
	s := &unanswered{}
	s.gate = canary.NewGate(func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.closed && s.of(s.last) >= mostUnanswered
	})
	return s
}

// of is how many statements have no answer from a server. mu is held.
func (s *unanswered) of(server string) (n int) {
	for _, o := range s.owed {
		if o.server == server && o.debt != freed {
			n++
		}
	}
	return n
}

// wait is Gate.Pass.
func (s *unanswered) wait(ctx context.Context) (looks bool, err error) {
	looks, err = s.gate.Pass(ctx)
	if err != nil {
		return false, fmt.Errorf("%w: the server has not answered %d statements of this lane", err, mostUnanswered)
	}
	return looks, nil
}

// enter says what has to be cancelled before a session may be used, which then counts in
// its place until leave or add. The error is an ErrHeldBack: there is nothing to cancel,
// and too much under way already.
func (s *unanswered) enter(c *session) (free []*session, err error) {
	if s.ledTo(c) {
		s.gate.Tell()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	more := s.of(c.server) + 1 - mostUnanswered
	if more <= 0 {
		return nil, nil
	}
	for _, o := range s.owed {
		if o.server == c.server && (o.debt == owes || o.debt == doubtful) && len(free) < more {
			free = append(free, o)
		}
	}
	if len(free) == 0 {
		return nil, fmt.Errorf("%w: %d statements of this lane are under way at a server that owes answers", canary.ErrHeldBack, mostUnanswered)
	}
	for _, o := range free {
		o.debt = freed
	}
	c.debt = asking
	s.owed = append(s.owed, c)
	return free, nil
}

// ledTo reports whether a session shows that clients are led to another server by now.
func (s *unanswered) ledTo(c *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.opened.After(s.opened) {
		return false
	}
	was := s.last
	s.last, s.opened = c.server, c.opened
	return s.last != was
}

// free cancels, by a session, statements that enter gave it, and lets go of their
// connections: also of those whose process is not found, as after a cut network, and where
// the server lets nobody cancel. If it does not say, they are owed as before.
func (s *unanswered) free(ctx context.Context, c *session, free []*session) error {
	tags := make([]string, len(free))
	for i, o := range free {
		tags[i] = o.tag
	}
	_, err := c.rows(ctx, "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE state = 'active' AND right(query, $1::int) = ANY ($2::text[])",
		strconv.Itoa(len(c.tag)), `{"`+strings.Join(tags, `","`)+`"}`)
	if sqlCode(err) != "" {
		err = nil // else no attempt would be made here any more
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range free {
		if o.debt = doubtful; err == nil {
			_ = o.raw.Conn.Close() // which ends its reading
		}
	}
	if err != nil {
		return fmt.Errorf("cancel statements that have no answer: %w", err)
	}
	s.owed = slices.DeleteFunc(s.owed, func(o *session) bool { return slices.Contains(free, o) })
	return nil
}

// doubt leaves a session's place taken whose statement was not sent, for want of time, when
// others had been cancelled for it. With one place free all who wait would go on.
func (s *unanswered) doubt(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.debt == asking {
		c.debt = doubtful
	}
}

// leave takes a session out that stands as it says.
func (s *unanswered) leave(c *session, as debt) {
	s.mu.Lock()
	left := c.debt == as
	if left {
		c.debt = owesNothing
		s.owed = slices.DeleteFunc(s.owed, func(o *session) bool { return o == c })
	}
	s.mu.Unlock()
	if left {
		s.gate.Tell()
	}
}

// add keeps a session whose statement has no answer until that comes, or the server ends
// it.
func (s *unanswered) add(c *session) {
	if !s.keep(c) {
		c.close()
		s.leave(c, asking)
	}
}

func (s *unanswered) keep(c *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !c.pg.IsClosed() { // pgconn reads on only in what it gave up
		return false
	}
	if c.debt == owesNothing {
		s.owed = append(s.owed, c)
	}
	c.debt = owes
	c.raw.linger()
	s.busy.Go(func() {
		<-c.pg.CleanupDone() // all that the server had to say was read
		c.close()
		s.leave(c, owes)
	})
	return true
}

// close closes what is kept, now and from now on, and waits until it is.
func (s *unanswered) close() {
	s.mu.Lock()
	s.closed = true
	for _, c := range s.owed {
		if c.debt != asking {
			_ = c.raw.Conn.Close()
		}
	}
	s.mu.Unlock()
	s.gate.Tell()
	s.busy.Wait()
}

// wire is a session's TCP connection. pgconn gives one up whose deadline passed: it says
// goodbye, reads what still comes, for a while, and closes it. Of a goodbye a pooler such
// as PgBouncer makes that the client has gone, and tells it nothing more of what the server
// is at. So nothing is written once a deadline has passed, and the first that comes then is
// the answer, which ends it. One that lingers is read until then, or until the server
// closes it, or its session does.
type wire struct {
	net.Conn
	mu      sync.Mutex
	lingers bool
	// mute says that a deadline has passed, answered that something came after that.
	mute, answered bool
}

// Read is the connection's, until it is answered.
func (w *wire) Read(b []byte) (int, error) {
	w.mu.Lock()
	answered := w.answered
	w.mu.Unlock()
	if answered {
		return 0, io.EOF
	}
	n, err := w.Conn.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered = w.mute && n > 0
	w.mute = w.mute || errors.Is(err, os.ErrDeadlineExceeded)
	return n, err
}

// Write is the connection's, until a deadline has passed.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	mute := w.mute
	w.mu.Unlock()
	if mute {
		return len(b), nil
	}
	n, err := w.Conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.mute = true
	}
	return n, err
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

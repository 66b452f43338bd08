package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
)

// owing is a lane of which a server has not answered so many statements, the oldest first.
func owing(server string, n int) *unanswered {
	u := newUnanswered()
	u.ledTo(&session{server: server, opened: time.Now()})
	for range n {
		ours, _ := net.Pipe()
		u.owed = append(u.owed, &session{server: server, debt: owes, raw: &wire{Conn: ours}})
	}
	return u
}

// waits makes an attempt's way through the gate, and says whether it had to look.
func waits(u *unanswered) (look bool, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
	defer cancel()
	began := time.Now()
	look, err = u.wait(ctx)
	return look, time.Since(began), err
}

// shut fails the test unless attempts are held back, but for those that look.
func shut(t *testing.T, u *unanswered) {
	t.Helper()
	look, took, err := waits(u)
	if !look && !errors.Is(err, canary.ErrHeldBack) {
		t.Errorf("an attempt was let through after %v, %v", took, err)
	}
}

// TestAStatementTakesTheOldestOnesPlace, so that there are no more of them than before,
// whatever comes of it.
func TestAStatementTakesTheOldestOnesPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := owing("a", mostUnanswered+25)
		owed := u.owed
		var asks []*session
		for i := range mostUnanswered {
			c := &session{server: "a", opened: time.Now()}
			asks = append(asks, c)
			free, err := u.enter(c)
			first, n := 26+i-1, 1
			if i == 0 {
				first, n = 0, 26
			}
			if err != nil || len(free) != n || free[0] != owed[first] {
				t.Fatalf("statement %d: %d are cancelled, %v", i, len(free), err)
			}
			u.owed = append(u.owed[:0:0], u.owed[n:]...) // as they are let go
			shut(t, u)
		}
		// What is under way is not cancelled.
		if free, err := u.enter(&session{server: "a"}); len(free) > 0 || !errors.Is(err, canary.ErrHeldBack) {
			t.Errorf("%d are cancelled, %v", len(free), err)
		}
		if u.of("a") != mostUnanswered {
			t.Errorf("%d are counted", u.of("a"))
		}
		time.AfterFunc(20*time.Millisecond, func() { u.leave(asks[3], asking) })
		if look, took, err := waits(u); look || took != 20*time.Millisecond || err != nil {
			t.Errorf("after an answer: look: %t after %v, %v", look, took, err)
		}
	})
}

// TestWhatWasPerhapsCancelledSaysNothing: an answer to it may be the cancelling's, which
// had no answer itself. It stays owed, and is the next to be cancelled.
func TestWhatWasPerhapsCancelledSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := owing("a", mostUnanswered)
		c := &session{server: "a", opened: time.Now()}
		free, err := u.enter(c)
		if len(free) != 1 || err != nil {
			t.Fatalf("%d are cancelled, %v", len(free), err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := u.free(ended, c, free); !errors.Is(err, canary.ErrHeldBack) {
			t.Errorf("cancelling without time: %v", err)
		}
		u.leave(c, asking)
		u.leave(free[0], owes)
		shut(t, u)
		if again, err := u.enter(&session{server: "a"}); len(again) != 1 || again[0] != free[0] || err != nil {
			t.Errorf("%d are cancelled then, %v", len(again), err)
		}
	})
}

// TestWhatWasNotSentHoldsItsPlace: where others were cancelled for it, or all who wait would
// go on.
func TestWhatWasNotSentHoldsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := owing("a", mostUnanswered)
		c := &session{server: "a", opened: time.Now()}
		free, err := u.enter(c)
		if len(free) != 1 || err != nil {
			t.Fatalf("%d are cancelled, %v", len(free), err)
		}
		u.owed = u.owed[1:] // as it is let go
		u.doubt(c)
		u.leave(c, asking)
		if u.of("a") != mostUnanswered {
			t.Errorf("%d are counted", u.of("a"))
		}
		shut(t, u)
	})
}

// TestAnotherServerIsAsked: who looks is led to another one, which owes nothing; then all
// are, and what the first one owes counts no more.
func TestAnotherServerIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := owing("a", mostUnanswered)
		shut(t, u)
		time.AfterFunc(20*time.Millisecond, func() {
			if free, err := u.enter(&session{server: "b", opened: time.Now()}); len(free) > 0 || err != nil {
				t.Errorf("%d are cancelled, %v", len(free), err)
			}
		})
		if look, took, err := waits(u); look || took != 20*time.Millisecond || err != nil {
			t.Errorf("look: %t after %v, %v", look, took, err)
		}
		// A session that was begun before tells nothing of where clients are led now.
		if free, err := u.enter(&session{server: "a"}); len(free) != 1 || err != nil {
			t.Errorf("%d are cancelled, %v", len(free), err)
		}
		if look, took, err := waits(u); look || err != nil || took != 0 {
			t.Errorf("look: %t after %v, %v", look, took, err)
		}
	})
}

func TestAClosedLaneHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := owing("a", mostUnanswered)
		shut(t, u)
		time.AfterFunc(20*time.Millisecond, u.close)
		if _, took, err := waits(u); err != nil || took != 20*time.Millisecond {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// aSession is one that is open, at a server that says nothing.
func aSession(t *testing.T) *session {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = theirs.Close() })
	cfg, err := pgconn.ParseConfig("host=x user=x dbname=x sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	raw := &wire{Conn: ours}
	pg, err := pgconn.Construct(&pgconn.HijackedConn{Conn: raw, Config: cfg, TxStatus: 'I'})
	if err != nil {
		t.Fatal(err)
	}
	return &session{pg: pg, raw: raw, server: "a", opened: time.Now()}
}

// aProbe is a pooled lane whose sessions are what open says.
func aProbe(t *testing.T, u *unanswered, open func() *session) *probe {
	s := &servers{}
	p := &probe{servers: s, unanswered: u, pool: newPool(t.Context(), 1, func(context.Context) (*session, error) { return open(), nil })}
	p.Lane = s.probes.Open(canary.LaneOptions{Slots: 1, Drop: p.drop})
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestWhatSentNothingIsUnsent: the attempt's time is over when it has its session, which is
// kept, as nothing came of it; or its lane is closed.
func TestWhatSentNothingIsUnsent(t *testing.T) {
	c := aSession(t)
	p := aProbe(t, newUnanswered(), func() *session { return c })
	for _, kind := range []func(context.Context, *session, int64) target.Outcome{p.write, p.read} {
		ctx, cancel := context.WithCancel(t.Context())
		p.attempt = func(ctx context.Context, c *session, seq int64) target.Outcome {
			cancel()
			return kind(ctx, c, seq)
		}
		if o := p.Attempt(ctx, 1); o.Result != target.Unsent || o.Connected || o.Asked != 0 || !errors.Is(o.Err, context.Canceled) {
			t.Errorf("an attempt without time: %c, connected: %t, asked after %v: %v", o.Result, o.Connected, o.Asked, o.Err)
		}
		if len(p.pool.idle) != 1 {
			t.Error("its session is not kept")
		}
	}
	p.pool.close()
	if o := p.Attempt(t.Context(), 2); o.Result != target.Unsent || o.Connected || !errors.Is(o.Err, errPoolClosed) {
		t.Errorf("an attempt whose pool is closed: %c, connected: %t: %v", o.Result, o.Connected, o.Err)
	}
}

// TestWhoLooksHasANewSession: what is kept may be of another server than clients are led to.
func TestWhoLooksHasANewSession(t *testing.T) {
	u := owing("a", mostUnanswered)
	old := aSession(t)
	p := aProbe(t, u, func() *session {
		c := aSession(t)
		c.server = "b"
		return c
	})
	p.pool.idle, p.pool.count = []*session{old}, 1
	p.attempt = func(_ context.Context, c *session, _ int64) target.Outcome { return target.Outcome{Result: target.OK} }
	ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
	defer cancel()
	if o := p.Attempt(ctx, 1); o.Result != target.OK || !o.Connected || o.Asked <= 0 || u.last != "b" {
		t.Errorf("%c, connected: %t, asked after %v, at server %s: %v", o.Result, o.Connected, o.Asked, u.last, o.Err)
	}
}

// TestAnAnswerEndsAConnectionThatHadNone: nothing is written in it after its deadline has
// passed, also no goodbye, and all that there is to read is the answer.
func TestAnAnswerEndsAConnectionThatHadNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		w := &wire{Conn: ours}
		b := make([]byte, 10)
		if err := w.SetDeadline(time.Now().Add(testDeadline)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		w.linger()
		if n, err := w.Write([]byte("goodbye")); n != 7 || err != nil { // nobody reads it
			t.Errorf("%d bytes, %v", n, err)
		}
		go func() { _, _ = theirs.Write([]byte("answer")) }()
		if n, err := w.Read(b); string(b[:n]) != "answer" || err != nil {
			t.Errorf("%q, %v", b[:n], err)
		}
		if n, err := w.Read(b); n != 0 || err != io.EOF {
			t.Errorf("%q, %v", b[:n], err)
		}
	})
}

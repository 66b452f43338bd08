package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// world is a server as a greeter sees it, on a virtual clock: it answers a greeting
// that reaches it, lets it hang, or refuses it.
type world struct {
	mu sync.Mutex
	// hangs is closed when the server goes on; nil while it answers.
	hangs   chan struct{}
	refuses bool
	// begun are the moments at which greetings were begun.
	begun []time.Time
	// open counts the sessions that are neither used nor closed.
	open map[*session]bool
}

var errRefused = errors.New("connection refused")

// login is how long a server takes that answers.
const loginTime = 5 * time.Millisecond

func (w *world) greet(ctx context.Context) (*session, error) {
	w.mu.Lock()
	w.begun = append(w.begun, time.Now())
	hangs, refuses := w.hangs, w.refuses
	w.mu.Unlock()
	if refuses {
		return nil, errRefused
	}
	if hangs != nil {
		select {
		case <-hangs:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	time.Sleep(loginTime)
	s := &session{}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[s] = true
	return s, nil
}

func (w *world) drop(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, s)
}

func (w *world) set(hangs, refuses bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hangs != nil {
		close(w.hangs)
		w.hangs = nil
	}
	if hangs {
		w.hangs = make(chan struct{})
	}
	w.refuses = refuses
}

// since is how many greetings were begun from then on.
func (w *world) since(from time.Time) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, at := range w.begun {
		if !at.Before(from) {
			n++
		}
	}
	return n
}

func newWorld() (*world, *greeter) {
	w := &world{open: map[*session]bool{}}
	g := newGreeter(context.Background(), "service db", w.greet)
	g.drop = w.drop
	return w, g
}

// try is an attempt's login.
type try struct {
	began, ended time.Time
	err          error
}

// attempts makes one attempt each interval, for so long, each with a deadline.
func attempts(g *greeter, w *world, interval, deadline, long time.Duration) []*try {
	var all sync.WaitGroup
	var tries []*try
	for range long / interval {
		one := &try{began: time.Now()}
		tries = append(tries, one)
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			s, err := g.take(ctx)
			one.ended, one.err = time.Now(), err
			if err == nil {
				w.drop(s)
			}
		})
		time.Sleep(interval)
	}
	all.Wait()
	return tries
}

const (
	testInterval = 10 * time.Millisecond
	testDeadline = 250 * time.Millisecond
)

// TestAHungServerIsLeftFewConnections is the point of a greeter.
func TestAHungServerIsLeftFewConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newWorld()
		defer g.close()
		w.set(true, false)
		began := time.Now()
		tries := attempts(g, w, testInterval, testDeadline, 8*time.Second)
		for _, one := range tries {
			if !errors.Is(one.err, context.DeadlineExceeded) {
				t.Fatalf("an attempt at a hung server: %v", one.err)
			}
		}
		// 16 a second, and the first few before it is known that they hang.
		if n := w.since(began); n < 100 || n > 8*16+10 {
			t.Errorf("%d connections in 8 s for %d attempts", n, len(tries))
		}
		w.set(false, false)
		if s, err := g.take(context.Background()); err != nil {
			t.Errorf("after the server went on: %v", err)
		} else {
			w.drop(s)
		}
	})
}

// TestTheFirstAnswerIsHeardAtOnce: the attempts that wait when a server goes on are the
// first to be served.
func TestTheFirstAnswerIsHeardAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newWorld()
		defer g.close()
		w.set(true, false)
		began := time.Now()
		time.AfterFunc(3*time.Second, func() { w.set(false, false) })
		served := 0
		for _, one := range attempts(g, w, testInterval, testDeadline, 4*time.Second) {
			if one.err == nil && one.ended.Sub(began) == 3*time.Second+loginTime {
				served++
			}
		}
		// One for each greeting of the last second, whoever began it.
		if served < 14 {
			t.Errorf("%d attempts had a session %v after the server went on", served, loginTime)
		}
	})
}

// TestARefusalIsHeardAtOnce: nothing is held back where a server refuses.
func TestARefusalIsHeardAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newWorld()
		defer g.close()
		w.set(false, true)
		for _, one := range attempts(g, w, testInterval, testDeadline, time.Second) {
			if !errors.Is(one.err, errRefused) || !one.ended.Equal(one.began) {
				t.Fatalf("an attempt took %v: %v", one.ended.Sub(one.began), one.err)
			}
		}
	})
}

// TestEachFailureHadAConnectionOfItsOwnTime draws servers that answer, hang, refuse, and
// are replaced by others that clients are led to without a word. An attempt that found
// no session in its time was covered by a greeting that is younger than itself: what it
// says of the service is not what an old connection says. Every session is used once,
// or closed.
func TestEachFailureHadAConnectionOfItsOwnTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		deadline := time.Duration(rapid.IntRange(40, 400).Draw(rt, "deadline")) * time.Millisecond
		interval := time.Duration(rapid.IntRange(5, 100).Draw(rt, "interval")) * time.Millisecond
		turns := rapid.SliceOfN(rapid.IntRange(0, 2), 1, 8).Draw(rt, "turns")
		var problem string
		synctest.Test(t, func(*testing.T) { problem = live(deadline, interval, turns) })
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// live plays turns of what a server does, half a second each, and says what went wrong.
func live(deadline, interval time.Duration, turns []int) string {
	w, g := newWorld()
	go func() {
		for _, turn := range turns {
			w.set(turn == 1, turn == 2)
			time.Sleep(500 * time.Millisecond)
		}
		w.set(false, false)
	}()
	tries := attempts(g, w, interval, deadline, time.Duration(len(turns)+1)*500*time.Millisecond)
	g.close()
	for _, one := range tries {
		switch {
		case one.ended.Sub(one.began) > deadline:
			return fmt.Sprintf("an attempt took %v of %v", one.ended.Sub(one.began), deadline)
		case !errors.Is(one.err, context.DeadlineExceeded):
			continue
		}
		covered := false
		for _, at := range w.begun {
			covered = covered || !at.Before(one.began) && at.Sub(one.began) <= deadline/4
		}
		if !covered {
			return fmt.Sprintf("an attempt failed for connections that are older than itself, with a deadline of %v", deadline)
		}
	}
	if len(w.open) > 0 {
		return fmt.Sprintf("%d sessions were neither used nor closed", len(w.open))
	}
	return ""
}

// TestASessionThatComesTooLateIsClosed: it was given to an attempt that had just ended.
func TestASessionThatComesTooLateIsClosed(t *testing.T) {
	w, g := newWorld()
	s, late := &session{}, &waiter{got: make(chan greeted, 1)}
	w.open[s] = true
	late.got <- greeted{session: s}
	if err := g.leave(late, context.DeadlineExceeded); !errors.Is(err, context.DeadlineExceeded) || len(w.open) > 0 {
		t.Errorf("%v; %d sessions are open", err, len(w.open))
	}
}

// TestAClosedTargetLeavesNoGreeting: what goes on beyond its attempt ends with the target.
func TestAClosedTargetLeavesNoGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newWorld()
		w.set(true, false)
		ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
		defer cancel()
		if _, err := g.take(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		at := time.Now()
		g.close()
		if took := time.Since(at); took != 0 {
			t.Errorf("closing waited %v", took)
		}
		if _, err := g.take(context.Background()); !errors.Is(err, errGreeterClosed) {
			t.Errorf("after it was closed: %v", err)
		}
	})
}

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

	"github.com/firedrill/firedrill/pkg/target/canary"
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
	// open are the sessions that are neither used nor closed, from when they are of.
	open map[*session]time.Time
}

var errRefused = errors.New("connection refused")

// login is how long a server takes that answers.
const loginTime = 5 * time.Millisecond

func (w *world) greet(ctx context.Context) (*session, error) {
	w.mu.Lock()
	at := time.Now()
	w.begun = append(w.begun, at)
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
	w.open[s] = at
	return s, nil
}

func (w *world) drop(s *session) { w.use(s) }

// use takes a session, and says from when it is.
func (w *world) use(s *session) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.open[s]
	delete(w.open, s)
	return at
}

// replace leads clients to another server, which answers: the one that hangs never does.
func (w *world) replace() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hangs, w.refuses = nil, false
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
	w := &world{open: map[*session]time.Time{}}
	g := newGreeter(context.Background(), "service db", w.greet)
	g.drop = w.drop
	return w, g
}

// try is an attempt's login.
type try struct {
	began, ended time.Time
	// session is from when the session is that it got.
	session time.Time
	err     error
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
			s, _, err := g.take(ctx, nil)
			one.ended, one.err = time.Now(), err
			if err == nil {
				one.session = w.use(s)
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
		if s, _, err := g.take(context.Background(), nil); err != nil {
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
		at := began.Add(3 * time.Second)
		first, all := 0, 0
		for _, one := range attempts(g, w, testInterval, testDeadline, 4*time.Second) {
			if one.err == nil && one.ended.Equal(at.Add(loginTime)) {
				first++
			}
			// Those who answer double with each login.
			const soon = 6 * loginTime
			waits := one.began.Before(at) && one.began.Add(testDeadline).After(at.Add(soon))
			switch {
			case waits && (one.err != nil || one.ended.After(at.Add(soon))):
				t.Errorf("an attempt that waited since %v had, %v after the server went on: %v", at.Sub(one.began), one.ended.Sub(at), one.err)
			case waits:
				all++
			}
		}
		if first < 3 || all < 20 {
			t.Errorf("%d attempts had a session at the first answer, %d soon after", first, all)
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

// TestNobodyFailsForAServerThatWasReplaced: clients are led to another server while
// greetings hang, which the one before never answers.
func TestNobodyFailsForAServerThatWasReplaced(t *testing.T) {
	for _, interval := range []time.Duration{5 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			w, g := newWorld()
			defer g.close()
			w.set(true, false)
			back := time.Now().Add(2 * time.Second)
			time.AfterFunc(2*time.Second, w.replace)
			tries := attempts(g, w, interval, testDeadline, 4*time.Second)
			answered := back.Add(time.Hour)
			for _, one := range tries {
				if one.err == nil && one.ended.Before(answered) {
					answered = one.ended
				}
			}
			wait := 0
			for _, one := range tries {
				if one.ended.After(back) {
					wait++
				}
				switch took := one.ended.Sub(one.began); {
				case one.began.After(back) && one.err != nil:
					t.Fatalf("every %v: an attempt failed that began %v after the service was back: %v", interval, one.began.Sub(back), one.err)
				case one.began.After(answered) && took != loginTime:
					t.Fatalf("every %v: an attempt took %v that began %v after an answer", interval, took, one.began.Sub(answered))
				}
			}
			if n := w.since(back); n > wait {
				t.Errorf("every %v: %d attempts made %d connections", interval, wait, n)
			}
		})
	}
}

// TestAPoolIsSharedInAReturn: a server that comes back has hardly any logins to serve, and
// an attempt gets what its own lane gave back, and no other's.
func TestAPoolIsSharedInAReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newWorld()
		defer g.close()
		w.set(true, false)
		back := time.Now().Add(2 * time.Second)
		time.AfterFunc(2*time.Second, func() { w.set(false, false) })
		var lanes [2]struct {
			probe
			mine map[*session]bool
		}
		var all sync.WaitGroup
		for range 300 {
			for i := range lanes {
				l := &lanes[i]
				if l.mine == nil {
					l.mine, l.servers, l.Lane = map[*session]bool{}, &servers{greeter: g}, new(canary.Book).Open(canary.LaneOptions{})
				}
				began := time.Now()
				all.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
					defer cancel()
					s, epoch, err := l.take(ctx)
					if err != nil {
						if began.After(back) {
							t.Errorf("an attempt failed that began %v after the return: %v", began.Sub(back), err)
						}
						return
					}
					time.Sleep(2 * time.Millisecond)
					l.mu.Lock()
					if w.use(s).IsZero() && !l.mine[s] {
						t.Errorf("lane %d got another lane's session", i)
					}
					l.mine[s] = true
					l.mu.Unlock()
					l.give(s, epoch)
				})
			}
			time.Sleep(testInterval)
		}
		all.Wait()
		if n := w.since(back); n == 0 || n > 40 {
			t.Errorf("%d logins after the return, for two lanes of one attempt every %v", n, testInterval)
		}
	})
}

// TestEachFailureHadAConnectionOfItsOwnTime draws servers that answer, hang, refuse, and
// are replaced by others that clients are led to without a word. An attempt that found
// no session in its time was covered by a greeting that is younger than itself, and one
// that found one has none that is older: what it says of the service is not what an old
// connection says. None that began while the service answered fails. Every session is
// used once, or closed.
func TestEachFailureHadAConnectionOfItsOwnTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		deadline := time.Duration(rapid.IntRange(40, 400).Draw(rt, "deadline")) * time.Millisecond
		interval := time.Duration(rapid.IntRange(5, 100).Draw(rt, "interval")) * time.Millisecond
		turns := rapid.SliceOfN(rapid.IntRange(answers, moves), 1, 8).Draw(rt, "turns")
		var problem string
		synctest.Test(t, func(*testing.T) { problem = live(deadline, interval, turns) })
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// What a server does in a turn: it hangs, refuses, or answers, as the same one that hung or
// another in its place.
const (
	answers = iota
	hangs
	refuses
	moves
)

const turnTime = 500 * time.Millisecond

// live plays turns of what a server does, and says what went wrong.
func live(deadline, interval time.Duration, turns []int) string {
	w, g := newWorld()
	turns = append(turns, answers)
	start := time.Now()
	go func() {
		for i, turn := range turns {
			if i > 0 {
				time.Sleep(turnTime)
			}
			if turn == moves {
				w.replace()
			} else {
				w.set(turn == hangs, turn == refuses)
			}
		}
	}()
	tries := attempts(g, w, interval, deadline, time.Duration(len(turns))*turnTime)
	g.close()
	for _, one := range tries {
		turn, next := turns[one.began.Sub(start)/turnTime], answers
		if n := int(one.began.Add(deadline).Sub(start) / turnTime); n < len(turns) {
			next = turns[n]
		}
		up := func(turn int) bool { return turn == answers || turn == moves }
		if problem := one.check(w, deadline, up(turn) && up(next) && one.began.Sub(start)%turnTime > 0); problem != "" {
			return problem
		}
	}
	if len(w.open) > 0 {
		return fmt.Sprintf("%d sessions were neither used nor closed", len(w.open))
	}
	return ""
}

// check says what is wrong with an attempt, which may not fail where the service was up
// all the time.
func (one *try) check(w *world, deadline time.Duration, up bool) string {
	if took := one.ended.Sub(one.began); took > deadline {
		return fmt.Sprintf("an attempt took %v of %v", took, deadline)
	}
	if one.err == nil {
		if one.session.Before(one.began) {
			return fmt.Sprintf("an attempt got a session that is %v older than itself", one.began.Sub(one.session))
		}
		return ""
	}
	if up {
		return fmt.Sprintf("an attempt with %v failed while the service was up: %v", deadline, one.err)
	}
	if !errors.Is(one.err, context.DeadlineExceeded) {
		return ""
	}
	for _, at := range w.begun {
		if !at.Before(one.began) && at.Sub(one.began) <= deadline/4 {
			return ""
		}
	}
	return fmt.Sprintf("an attempt failed for connections that are older than itself, with a deadline of %v", deadline)
}

// TestASessionThatComesTooLateIsClosed: it was given to an attempt that had just ended.
func TestASessionThatComesTooLateIsClosed(t *testing.T) {
	w, g := newWorld()
	s, late := &session{}, &waiter{got: make(chan greeted, 1)}
	w.open[s] = time.Now()
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
		if _, _, err := g.take(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		at := time.Now()
		g.close()
		if took := time.Since(at); took != 0 {
			t.Errorf("closing waited %v", took)
		}
		if _, _, err := g.take(context.Background(), nil); !errors.Is(err, errGreeterClosed) {
			t.Errorf("after it was closed: %v", err)
		}
	})
}

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
	// begun are the moments at which greetings were begun, under how many are under way.
	begun []time.Time
	under int
	// takes is how long a login takes while so many are under way.
	takes func(under int) time.Duration
	pools [2]*pool
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
	w.under++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.under--
		w.mu.Unlock()
	}()
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
	w.mu.Lock()
	takes := w.takes(w.under)
	w.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
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
	w := &world{open: map[*session]time.Time{}, takes: func(int) time.Duration { return loginTime }}
	for i := range w.pools {
		w.pools[i] = &pool{room: 40, over: func() bool { return false }}
	}
	g := newGreeter(context.Background(), "service db", w.greet)
	g.drop = w.drop
	return w, g
}

// try is an attempt's login.
type try struct {
	began, ended time.Time
	// session is from when the session is that it got, unless it was used before.
	session time.Time
	// pool is whose it may have, foreign says that it got one that others used.
	pool    *pool
	foreign bool
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
			s, err := g.take(ctx, nil)
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

// lanes makes what the lanes of two probes do: a pooled attempt and a fresh one each
// interval, each with its deadline, which use what they get for two milliseconds.
func lanes(g *greeter, w *world, interval, long time.Duration) (tries []*try) {
	var all sync.WaitGroup
	mine := map[*pool]map[*session]bool{}
	var mu sync.Mutex
	for range long / interval {
		for _, from := range []*pool{w.pools[0], nil, w.pools[1], nil} {
			one := &try{began: time.Now(), pool: from}
			tries = append(tries, one)
			all.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
				defer cancel()
				s, err := g.take(ctx, from)
				one.ended, one.err = time.Now(), err
				if err != nil {
					return
				}
				mu.Lock()
				one.session = w.use(s)
				if mine[from] == nil {
					mine[from] = map[*session]bool{}
				}
				one.foreign = one.session.IsZero() && !mine[from][s]
				mine[from][s] = true
				mu.Unlock()
				time.Sleep(2 * time.Millisecond)
				if from != nil {
					g.give(from, s)
				}
			})
		}
		time.Sleep(interval)
	}
	all.Wait()
	return tries
}

// TestAHungServerIsLeftFewConnections is the point of a greeter.
func TestAHungServerIsLeftFewConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newWorld()
		defer g.close()
		w.set(true, false)
		began := time.Now()
		tries := lanes(g, w, testInterval, 8*time.Second)
		for _, one := range tries {
			if !errors.Is(one.err, context.DeadlineExceeded) {
				t.Fatalf("an attempt at a hung server: %v", one.err)
			}
			if problem := w.uncovered(one, testDeadline); problem != "" { // also of the last, after whom nobody comes
				t.Fatal(problem)
			}
		}
		// Until the first has waited for a deadline it is not known that they hang; then
		// it is 16 a second. Half of the attempts are fresh, at 100 a second.
		const first, then = 2*25 + 2*(poolGreets+19), 16 * 8
		if n := w.since(began); n < then*3/4 || n > first+then+10 {
			t.Errorf("%d connections in 8 s for %d attempts", n, len(tries))
		}
		if n := w.since(began.Add(time.Second)); n > 16*7+5 {
			t.Errorf("%d connections in the last 7 s", n)
		}
		w.set(false, false)
		if s, err := g.take(context.Background(), nil); err != nil {
			t.Errorf("after the server went on: %v", err)
		} else {
			w.drop(s)
		}
	})
}

// TestTheFirstAnswerIsHeardAtOnce: the attempts that wait when a server goes on are the
// first to be served, and nobody fails from then on.
func TestTheFirstAnswerIsHeardAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newWorld()
		defer g.close()
		w.set(true, false)
		at := time.Now().Add(3 * time.Second)
		time.AfterFunc(3*time.Second, func() { w.set(false, false) })
		first, all := 0, 0
		for _, one := range lanes(g, w, testInterval, 4*time.Second) {
			if one.err == nil && one.ended.Equal(at.Add(loginTime)) {
				first++
			}
			// What is begun at the first answer takes as long again.
			const soon = 3 * loginTime
			waits := one.began.Before(at) && one.began.Add(testDeadline).After(at.Add(soon))
			switch {
			case waits && (one.err != nil || one.ended.After(at.Add(soon))):
				t.Errorf("an attempt that waited since %v had, %v after the server went on: %v", at.Sub(one.began), one.ended.Sub(at), one.err)
			case waits:
				all++
			case one.began.After(at) && one.err != nil:
				t.Errorf("an attempt that began %v after the return failed: %v", one.began.Sub(at), one.err)
			}
		}
		if first < 3 || all < 80 {
			t.Errorf("%d attempts had a session at the first answer, %d soon after", first, all)
		}
	})
}

// TestASlowServerGetsThrough: where a login takes longer than a deadline, and more than the
// server can do come at once, as on a machine that is too busy, a login for each attempt
// would keep it from ever serving one. Those that it has begun are let be, and its pooled
// clients are served.
func TestASlowServerGetsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newWorld()
		defer g.close()
		w.takes = func(under int) time.Duration { return time.Duration(under) * 40 * time.Millisecond }
		w.set(true, false)
		time.AfterFunc(2*time.Second, func() { w.set(false, false) })
		began := time.Now()
		ok := 0
		tries := lanes(g, w, testInterval, 6*time.Second)
		for _, one := range tries {
			if one.pool != nil && one.began.Sub(began) > 4*time.Second && one.err == nil {
				ok++
			}
		}
		if want := len(tries) / 2 / 3; ok < want*99/100 {
			t.Errorf("%d of %d pooled attempts were served in the last 2 s", ok, want)
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

// TestAPoolIsSharedInAReturn: a server that comes back has hardly any logins of pooled
// lanes to serve, and an attempt gets what its own lane gave back, and no other's.
func TestAPoolIsSharedInAReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newWorld()
		defer g.close()
		w.set(true, false)
		back := time.Now().Add(2 * time.Second)
		time.AfterFunc(2*time.Second, func() { w.set(false, false) })
		fresh := 0
		for _, one := range lanes(g, w, testInterval, 3*time.Second) {
			if one.foreign {
				t.Error("an attempt got a session that another lane used")
			}
			if one.pool == nil && one.ended.After(back) {
				fresh++
			}
		}
		if n := w.since(back); n < fresh || n > fresh+2*poolGreets {
			t.Errorf("%d logins after the return, for two pooled lanes and %d fresh attempts", n, fresh)
		}
	})
}

// TestAPoolOpensFewAtATime: and more only for attempts that have waited for a while.
func TestAPoolOpensFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, g := newWorld()
		defer g.close()
		w.takes = func(int) time.Duration { return 100 * time.Millisecond }
		began := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
				defer cancel()
				s, err := g.take(ctx, w.pools[0])
				if err != nil {
					t.Error(err)
					return
				}
				w.use(s)
				g.give(w.pools[0], s)
			})
		}
		synctest.Wait()
		if n := w.since(began); n != poolGreets {
			t.Errorf("%d logins at once, want %d", n, poolGreets)
		}
		all.Wait()
		if n := w.since(began); n != 20 { // each has waited for a quarter, and nobody gave back
			t.Errorf("%d logins in the end, want one each", n)
		}
	})
}

// TestAPoolKeepsNoMoreThanItsRoom: nor anything once its lane is closed.
func TestAPoolKeepsNoMoreThanItsRoom(t *testing.T) {
	w, g := newWorld()
	defer g.close()
	p := w.pools[0]
	for range p.room + 3 {
		s := &session{}
		w.open[s] = time.Now()
		g.give(p, s)
	}
	if len(p.idle) != p.room || len(w.open) != p.room {
		t.Errorf("%d kept, %d open, room is for %d", len(p.idle), len(w.open), p.room)
	}
	if g.empty(p); len(w.open) > 0 {
		t.Errorf("%d are open after the pool was emptied", len(w.open))
	}
	p.over = func() bool { return true }
	s := &session{}
	w.open[s] = time.Now()
	if g.give(p, s); len(p.idle) > 0 || len(w.open) > 0 {
		t.Errorf("%d kept, %d open of a lane that is closed", len(p.idle), len(w.open))
	}
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
	return w.uncovered(one, deadline)
}

// uncovered says of an attempt that failed at a server that hangs if no connection was
// begun in its first quarter.
func (w *world) uncovered(one *try, deadline time.Duration) string {
	w.mu.Lock()
	defer w.mu.Unlock()
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
		if _, err := g.take(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		at := time.Now()
		g.close()
		if took := time.Since(at); took != 0 {
			t.Errorf("closing waited %v", took)
		}
		if _, err := g.take(context.Background(), nil); !errors.Is(err, errGreeterClosed) {
			t.Errorf("after it was closed: %v", err)
		}
	})
}

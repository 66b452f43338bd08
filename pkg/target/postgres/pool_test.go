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

// world is a server as a pool sees it, on a virtual clock: it answers a login that reaches
// it, lets it hang, or refuses it.
type world struct {
	mu sync.Mutex
	// hangs is closed when the server goes on; nil while it answers.
	hangs   chan struct{}
	refuses bool
	// begun are the moments at which logins were begun, under how many are under way, and
	// most how many were at a time.
	begun       []time.Time
	under, most int
	// takes is how long a login takes while so many are under way.
	takes func(under int) time.Duration
	// open are the sessions that are not closed, from when they are.
	open map[*session]time.Time
}

var errRefused = errors.New("connection refused")

// loginTime is how long a server takes that answers.
const (
	loginTime    = 5 * time.Millisecond
	testInterval = 10 * time.Millisecond
	testDeadline = 250 * time.Millisecond
	testRoom     = 40
)

func (w *world) login(ctx context.Context) (*session, error) {
	w.mu.Lock()
	at := time.Now()
	w.begun = append(w.begun, at)
	hangs, refuses := w.hangs, w.refuses
	w.under++
	w.most = max(w.most, w.under)
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

func (w *world) shut(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, s)
}

// of is from when a session is.
func (w *world) of(s *session) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open[s]
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

// since is how many logins were begun from then on.
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

func newWorld() (*world, *pool) {
	w := &world{open: map[*session]time.Time{}, takes: func(int) time.Duration { return loginTime }}
	p := newPool(context.Background(), testRoom, w.login)
	p.shut = w.shut
	return w, p
}

// try is an attempt.
type try struct {
	began, ended time.Time
	// session is from when the session is that it got, emptied when the pool was last,
	// as the attempt began.
	session, emptied time.Time
	err              error
}

// attempts makes one attempt each interval, for so long, each with its deadline, which use
// what they get for two milliseconds. As those of a lane do, failures empty the pool but
// for those of attempts that were held back.
func attempts(p *pool, w *world, interval, deadline, long time.Duration) []*try {
	var all sync.WaitGroup
	var mu sync.Mutex
	var tries []*try
	var emptied time.Time
	for range long / interval {
		mu.Lock()
		one := &try{began: time.Now(), emptied: emptied}
		mu.Unlock()
		tries = append(tries, one)
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			s, err := p.take(ctx, time.Now())
			mu.Lock()
			defer mu.Unlock()
			one.ended, one.err = time.Now(), err
			switch {
			case err == nil:
				one.session = w.of(s)
				all.Go(func() {
					time.Sleep(2 * time.Millisecond)
					p.give(s)
				})
			case !errors.Is(err, canary.ErrHeldBack):
				emptied = time.Now()
				p.empty()
			}
		})
		time.Sleep(interval)
	}
	all.Wait()
	return tries
}

// TestAHungServerIsLeftFewConnections is the point of the pool.
func TestAHungServerIsLeftFewConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld()
		defer p.close()
		w.set(true, false)
		began := time.Now()
		held := 0
		for _, one := range attempts(p, w, testInterval, testDeadline, 8*time.Second) {
			if !errors.Is(one.err, context.DeadlineExceeded) {
				t.Fatalf("an attempt at a hung server: %v", one.err)
			}
			if errors.Is(one.err, canary.ErrHeldBack) {
				held++
			}
		}
		if n := w.since(began); n < 100 || n > 16*8+poolGreets || held != 800-n { // each login says something
			t.Errorf("%d connections in 8 s, %d of 800 attempts were held back", n, held)
		}
		w.set(false, false)
		time.Sleep(testDeadline)
		for _, one := range attempts(p, w, testInterval, testDeadline, time.Second) {
			if one.err != nil {
				t.Errorf("after the server went on: %v", one.err)
			}
		}
	})
}

// TestTheFirstAnswerIsHeardAtOnce: the attempts that wait when a server goes on are the
// first to be served, by few logins.
func TestTheFirstAnswerIsHeardAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld()
		defer p.close()
		w.set(true, false)
		at := time.Now().Add(3 * time.Second)
		time.AfterFunc(3*time.Second, func() { w.set(false, false) })
		first, all := 0, 0
		for _, one := range attempts(p, w, testInterval, testDeadline, 4*time.Second) {
			const soon = 6 * loginTime
			if one.err == nil && one.ended.Equal(at.Add(loginTime)) {
				first++
			}
			switch waits := one.began.Before(at) && one.began.Add(testDeadline).After(at.Add(soon)); {
			case waits && (one.err != nil || one.ended.After(at.Add(soon))):
				t.Errorf("an attempt that waited since %v had, %v after the server went on: %v", at.Sub(one.began), one.ended.Sub(at), one.err)
			case waits:
				all++
			case one.began.After(at) && one.err != nil:
				t.Errorf("an attempt that began %v after the return failed: %v", one.began.Sub(at), one.err)
			}
		}
		if first < 3 || all < 20 {
			t.Errorf("%d attempts had a session at the first answer, %d soon after", first, all)
		}
		if n := w.since(at); n > 4*poolGreets {
			t.Errorf("%d logins after the return", n)
		}
	})
}

// TestABusyServerGetsThrough: the more logins come at once, the longer each takes, as on a
// machine that is too busy. A login for each attempt would keep it down for ever.
func TestABusyServerGetsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld()
		defer p.close()
		w.takes = func(under int) time.Duration { return time.Duration(under) * 30 * time.Millisecond }
		w.set(true, false)
		time.AfterFunc(2*time.Second, func() { w.set(false, false) })
		began := time.Now()
		bad := 0
		for _, one := range attempts(p, w, testInterval, testDeadline, 4*time.Second) {
			if one.began.Sub(began) > 3*time.Second && one.err != nil {
				bad++
			}
		}
		if bad > 0 {
			t.Errorf("%d attempts failed a second after the return", bad)
		}
	})
}

// TestARefusalIsHeardAtOnce: nothing is held back where a server refuses, also where one
// before it hangs.
func TestARefusalIsHeardAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld()
		defer p.close()
		w.set(false, true)
		for _, one := range attempts(p, w, testInterval, testDeadline, time.Second) {
			if !errors.Is(one.err, errRefused) || !one.ended.Equal(one.began) {
				t.Fatalf("an attempt took %v: %v", one.ended.Sub(one.began), one.err)
			}
		}
	})
}

// TestAnotherServersRefusalIsHeard soon, while logins hang at the one before.
func TestAnotherServersRefusalIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld()
		defer p.close()
		w.set(true, false)
		at := time.Now().Add(time.Second)
		time.AfterFunc(time.Second, func() {
			w.mu.Lock()
			w.hangs, w.refuses = nil, true
			w.mu.Unlock()
		})
		for _, one := range attempts(p, w, testInterval, testDeadline, 2*time.Second) {
			if one.began.After(at.Add(testDeadline/4+testInterval)) && (!errors.Is(one.err, errRefused) || !one.ended.Equal(one.began)) {
				t.Fatalf("an attempt that began %v after it took %v: %v", one.began.Sub(at), one.ended.Sub(one.began), one.err)
			}
		}
	})
}

// TestAPoolOpensFewAtATime, and no more than it has room for.
func TestAPoolOpensFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld()
		p.room = 6
		defer p.close()
		var used []*session
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), testDeadline)
				defer cancel()
				s, err := p.take(ctx, time.Now())
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					used = append(used, s)
				} else if !errors.Is(err, canary.ErrHeldBack) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if w.most != poolGreets || len(used) != 6 || len(w.open) != 6 {
			t.Errorf("%d logins at once, %d sessions in use, %d open", w.most, len(used), len(w.open))
		}
		w.shut(used[0])
		p.lost()
		if _, err := p.take(t.Context(), time.Now()); err != nil {
			t.Errorf("when there was room again: %v", err)
		}
	})
}

// TestTheOneWithMostTimeIsServed of those that wait: the others may get no answer in time,
// which empties the pool.
func TestTheOneWithMostTimeIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := newWorld()
		p.room = 1
		defer p.close()
		s, err := p.take(t.Context(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan int)
		var all sync.WaitGroup
		for i, left := range []time.Duration{200, 250, 30} {
			all.Go(func() {
				began := time.Now().Add(left*time.Millisecond - testDeadline)
				ctx, cancel := context.WithDeadline(t.Context(), began.Add(testDeadline))
				defer cancel()
				if _, err := p.take(ctx, began); err == nil {
					served <- i
				}
			})
			synctest.Wait()
		}
		p.give(s)
		if i := <-served; i != 1 {
			t.Errorf("attempt %d is served first", i)
		}
		all.Wait()
	})
}

// TestALateLoginSaysNothing: an attempt that was held back until shortly before its end has
// no answer to its login. That is no sign that the server hangs.
func TestALateLoginSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld()
		defer p.close()
		w.set(true, false)
		for _, waited := range []time.Duration{0, 200 * time.Millisecond} {
			began := time.Now().Add(-waited)
			ctx, cancel := context.WithDeadline(t.Context(), began.Add(testDeadline))
			p.silent = time.Time{}
			_, err := p.take(ctx, began)
			synctest.Wait() // its login has ended
			if late := waited > 0; errors.Is(err, canary.ErrHeldBack) != late || p.silent.IsZero() != late {
				t.Errorf("after it had waited for %v: silent since %v, %v", waited, p.silent, err)
			}
			cancel()
		}
	})
}

// TestWhatIsOlderThanTheLastEmptyingIsNotKept: neither what was in use, nor what was being
// opened.
func TestWhatIsOlderThanTheLastEmptyingIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld()
		defer p.close()
		take := func() *session {
			s, err := p.take(t.Context(), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		idle, used := take(), take()
		p.give(idle)
		late := make(chan *session)
		p.mu.Lock()
		p.idle = nil // so that the next one has to be opened
		p.mu.Unlock()
		go func() { late <- take() }()
		synctest.Wait()
		p.mu.Lock()
		p.idle = []*session{idle}
		p.mu.Unlock()
		p.empty()
		opened := <-late
		p.give(used)
		p.give(opened)
		if len(w.open) > 0 || len(p.idle) > 0 || p.count != 0 {
			t.Errorf("%d are open, %d kept, %d counted", len(w.open), len(p.idle), p.count)
		}
	})
}

// TestEveryWorldEndsWell draws servers that answer, hang, refuse, and are replaced by others
// that clients are led to without a word. No attempt gets a session that was begun before
// the pool was emptied last, as that was when the attempt began; one that failed for want
// of a session, and was not held back, had a login of its own. None that began while the
// service answered fails but for being held back right after a hang. Every session is
// closed in the end, and there are never more than there is room for.
func TestEveryWorldEndsWell(t *testing.T) {
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
	w, p := newWorld()
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
	tries := attempts(p, w, interval, deadline, time.Duration(len(turns))*turnTime)
	p.close()
	for _, one := range tries {
		up := true
		for at := one.began.Sub(start) / turnTime; at <= one.ended.Sub(start)/turnTime && int(at) < len(turns); at++ {
			up = up && (turns[at] == answers || turns[at] == moves)
		}
		switch took := one.ended.Sub(one.began); {
		case took > deadline:
			return fmt.Sprintf("an attempt took %v of %v", took, deadline)
		case one.err == nil && one.session.Before(one.emptied):
			return fmt.Sprintf("an attempt got a session that was begun %v before the pool was emptied", one.emptied.Sub(one.session))
		case one.err != nil && up && one.began.Sub(start)%turnTime > 0 && !errors.Is(one.err, canary.ErrHeldBack):
			return fmt.Sprintf("an attempt with %v failed while the service was up: %v", deadline, one.err)
		}
	}
	if len(w.open) > 0 || p.count != 0 || w.most > testRoom {
		return fmt.Sprintf("%d sessions are open in the end, %d counted; %d logins at once", len(w.open), p.count, w.most)
	}
	return ""
}

// TestAClosedPoolLeavesNothing: what goes on beyond its attempt ends with the lane.
func TestAClosedPoolLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld()
		w.set(true, false)
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				if _, err := p.take(context.Background(), time.Now()); !errors.Is(err, errPoolClosed) {
					t.Errorf("an attempt that waits: %v", err)
				}
			})
		}
		synctest.Wait()
		at := time.Now()
		p.close()
		all.Wait()
		if took := time.Since(at); took != 0 {
			t.Errorf("closing took %v", took)
		}
		if _, err := p.take(context.Background(), time.Now()); !errors.Is(err, errPoolClosed) {
			t.Errorf("after it was closed: %v", err)
		}
	})
}

// TestALoginThatPanicsFailsOneAttempt.
func TestALoginThatPanicsFailsOneAttempt(t *testing.T) {
	_, p := newWorld()
	defer p.close()
	p.open = func(context.Context) (*session, error) { panic("no map") }
	if _, err := p.take(t.Context(), time.Now()); err == nil || p.count != 0 {
		t.Errorf("%v, %d sessions", err, p.count)
	}
}

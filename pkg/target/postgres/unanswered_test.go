package postgres

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// owing is a lane of which a server has not answered so many statements.
func owing(server string, n int) *unanswered {
	u := newUnanswered()
	u.owedBy(&session{server: server, opened: time.Now()})
	u.on[server] = n
	return u
}

// answer is what happens when one of them is answered.
func (s *unanswered) answer(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on[server]--
	s.tell()
}

// waits makes an attempt's way to its session, and says whether it had to look.
func waits(u *unanswered) (look bool, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
	defer cancel()
	began := time.Now()
	look, _, err = u.wait(ctx)
	return look, time.Since(began), err
}

func TestFewUnansweredHoldNobodyBack(t *testing.T) {
	u := owing("a", mostUnanswered-1)
	if look, _, err := waits(u); look || err != nil {
		t.Errorf("look: %t, %v", look, err)
	}
}

// TestManyUnansweredAreNotMadeMore: one attempt looks in each quarter of a deadline, and the
// others end in time with nothing sent.
func TestManyUnansweredAreNotMadeMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := owing("a", mostUnanswered)
		var looks, held atomic.Int64
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				switch look, took, err := waits(u); {
				case look && err == nil:
					looks.Add(1)
					u.owedBy(&session{server: "a", opened: time.Now()})
				case errors.Is(err, context.DeadlineExceeded) && took == testDeadline:
					held.Add(1)
				default:
					t.Errorf("look: %t after %v, %v", look, took, err)
				}
			})
			time.Sleep(testInterval)
		}
		all.Wait()
		// 2 s, and the last one's deadline.
		if n := looks.Load(); n < 30 || n > 37 || held.Load() != 200-n {
			t.Errorf("%d looked, %d were held back", n, held.Load())
		}
	})
}

// TestAnAnswerLetsAttemptsGoOn, at once.
func TestAnAnswerLetsAttemptsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := owing("a", mostUnanswered)
		u.looked = time.Now()
		time.AfterFunc(20*time.Millisecond, func() { u.answer("a") })
		if look, took, err := waits(u); look || err != nil || took != 20*time.Millisecond {
			t.Errorf("look: %t after %v, %v", look, took, err)
		}
	})
}

// TestAnotherServerIsAsked: who looks is led to another one, which owes nothing; then all
// are, and what the first one owes counts no more.
func TestAnotherServerIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := owing("a", mostUnanswered)
		u.looked = time.Now()
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				look, took, err := waits(u)
				if err != nil || took != testDeadline/4 {
					t.Errorf("look: %t after %v, %v", look, took, err)
				}
				if look {
					u.owedBy(&session{server: "b", opened: time.Now()})
				}
			})
		}
		all.Wait()
		// A session that was begun before tells nothing of where clients are led now.
		u.owedBy(&session{server: "a"})
		if look, took, err := waits(u); look || err != nil || took != 0 {
			t.Errorf("look: %t after %v, %v", look, took, err)
		}
	})
}

func TestAClosedLaneHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := owing("a", mostUnanswered)
		u.looked = time.Now()
		time.AfterFunc(20*time.Millisecond, u.close)
		if _, took, err := waits(u); err != nil || took != 20*time.Millisecond {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

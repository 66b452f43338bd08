package canary_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/firedrill/firedrill/pkg/target/canary"
)

const (
	interval = 10 * time.Millisecond
	deadline = 250 * time.Millisecond
)

// pass makes an attempt's way through a gate.
func pass(g *canary.Gate) (looks, waited bool, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	began := time.Now()
	looks, waited, err = g.Pass(ctx)
	return looks, waited, time.Since(began), err
}

func TestAnOpenGateHoldsNobody(t *testing.T) {
	g := canary.NewGate(func() bool { return false })
	if looks, waited, _, err := pass(g); looks || waited || err != nil {
		t.Errorf("looks: %t, waited: %t, %v", looks, waited, err)
	}
}

// TestAShutGateLetsFewThrough: one attempt looks in each quarter of a deadline, and the
// others end in time with nothing sent.
func TestAShutGateLetsFewThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := canary.NewGate(func() bool { return true })
		var looked, held atomic.Int64
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				switch looks, waited, took, err := pass(g); {
				case looks && err == nil:
					looked.Add(1)
				case waited && errors.Is(err, canary.ErrHeldBack) && errors.Is(err, context.DeadlineExceeded) && took == deadline:
					held.Add(1)
				default:
					t.Errorf("looks: %t after %v, %v", looks, took, err)
				}
			})
			time.Sleep(interval)
		}
		all.Wait()
		// 2 s, and the last one's deadline.
		if n := looked.Load(); n < 30 || n > 37 || held.Load() != 200-n {
			t.Errorf("%d looked, %d were held back", n, held.Load())
		}
	})
}

// TestAGateThatOpensLetsAllGoOn, at once, and says that they waited.
func TestAGateThatOpensLetsAllGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Bool
		g := canary.NewGate(func() bool { return !open.Load() })
		if looks, waited, took, err := pass(g); !looks || waited || took != 0 || err != nil {
			t.Errorf("the first one looks: %t, waited: %t, after %v, %v", looks, waited, took, err)
		}
		time.AfterFunc(20*time.Millisecond, func() { open.Store(true); g.Tell() })
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if looks, waited, took, err := pass(g); looks || !waited || took != 20*time.Millisecond || err != nil {
					t.Errorf("looks: %t, waited: %t, after %v, %v", looks, waited, took, err)
				}
			})
		}
		all.Wait()
	})
}

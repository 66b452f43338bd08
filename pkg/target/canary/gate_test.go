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
func pass(g *canary.Gate) (looks bool, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	began := time.Now()
	looks, err = g.Pass(ctx)
	return looks, time.Since(began), err
}

func TestAnOpenGateHoldsNobody(t *testing.T) {
	g := canary.NewGate(func() bool { return false })
	if looks, _, err := pass(g); looks || err != nil {
		t.Errorf("looks: %t, %v", looks, err)
	}
}

// TestAShutGateLetsFewThrough: one attempt looks in each quarter of a deadline, and the
// others end in time with nothing sent.
func TestAShutGateLetsFewThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := canary.NewGate(func() bool { return true })
		var looked, late, held atomic.Int64
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				switch looks, took, err := pass(g); {
				case looks && err == nil:
					looked.Add(1)
					if took > 0 {
						late.Add(1)
					}
				case errors.Is(err, canary.ErrHeldBack) && errors.Is(err, context.DeadlineExceeded) && took == deadline:
					held.Add(1)
				default:
					t.Errorf("looks: %t after %v, %v", looks, took, err)
				}
			})
			time.Sleep(interval)
		}
		all.Wait()
		// 2 s, and the last one's deadline. As long as others come, those look who do.
		if n := looked.Load(); n < 25 || n > 37 || late.Load() > 3 || held.Load() != 200-n {
			t.Errorf("%d looked, %d of them after a while, %d were held back", n, late.Load(), held.Load())
		}
	})
}

// TestAGateThatOpensLetsAllGoOn, at once.
func TestAGateThatOpensLetsAllGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Bool
		g := canary.NewGate(func() bool { return !open.Load() })
		if looks, took, err := pass(g); !looks || took != 0 || err != nil {
			t.Errorf("the first one looks: %t, after %v, %v", looks, took, err)
		}
		time.AfterFunc(20*time.Millisecond, func() { open.Store(true); g.Tell() })
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if looks, took, err := pass(g); looks || took != 20*time.Millisecond || err != nil {
					t.Errorf("looks: %t, after %v, %v", looks, took, err)
				}
			})
		}
		all.Wait()
	})
}

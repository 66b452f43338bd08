package pace

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what a pace sees.
type world struct {
	*Pace
	at    time.Time
	disks float64
}

func newWorld(most int) *world {
	w := &world{at: time.Unix(0, 0)}
	w.Pace = New(most, func() time.Time { return w.at }, func() (float64, bool) { return w.disks, true })
	return w
}

// Allowed is how much may be under way now.
func (p *Pace) Allowed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.allowed
}

// second lets one pass in which as much is under way as is allowed, and everything is
// answered so late.
func (w *world) second(t *testing.T, latency time.Duration, throttled bool) int {
	t.Helper()
	n := w.Allowed()
	for range n {
		if err := w.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		w.Answered(latency, false)
	}
	w.Answered(latency, throttled)
	w.at = w.at.Add(window)
	for range n {
		w.Release()
	}
	return w.Allowed()
}

func TestItFallsToHalfAndRisesByOne(t *testing.T) {
	w := newWorld(16)
	for i, s := range []struct {
		latency   time.Duration
		throttled bool
		disks     float64
		want      int
	}{
		{5 * time.Millisecond, false, 0, 16},
		{5 * time.Millisecond, true, 0, 8},
		{5 * time.Millisecond, false, 0, 9},
		{900 * time.Millisecond, false, 0, 10}, // slower, and not slow
		{1500 * time.Millisecond, false, 0, 5},
		{5 * time.Millisecond, false, 30, 2},
		{5 * time.Millisecond, false, 10, 2}, // neither
		{5 * time.Millisecond, false, 0, 3},
		{5 * time.Millisecond, true, 50, 1},
		{5 * time.Millisecond, true, 50, 1},
		{5 * time.Millisecond, false, 0, 2},
	} {
		w.disks = s.disks
		if got := w.second(t, s.latency, s.throttled); got != s.want {
			t.Fatalf("second %d: %d, want %d", i, got, s.want)
		}
	}
	for range 30 {
		w.second(t, 5*time.Millisecond, false)
	}
	if got := w.Allowed(); got != 16 {
		t.Errorf("in the end %d", got)
	}
}

// A server that is far away is slow at its best, and does not suffer.
func TestAFarServerIsNotHeldAgainstIt(t *testing.T) {
	w := newWorld(8)
	for range 20 {
		if got := w.second(t, 3*time.Second, false); got != 8 {
			t.Fatalf("%d", got)
		}
	}
}

// A store that gets so slow that hardly anything is answered is not taken for an idle
// one.
func TestFewAnswersAreNoGoodSign(t *testing.T) {
	w := newWorld(16)
	w.second(t, 5*time.Millisecond, false)
	lowest := w.Allowed()
	for range 40 {
		if err := w.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			w.Answered(10*time.Second, false)
		}
		w.at = w.at.Add(window)
		w.Release()
		if n := w.Allowed(); n > lowest {
			t.Fatalf("it rose from %d to %d", lowest, n)
		} else {
			lowest = n
		}
	}
	if lowest != 1 {
		t.Errorf("it fell to %d only", lowest)
	}
}

// What is not asked for is not allowed in advance.
func TestItDoesNotRiseUnused(t *testing.T) {
	w := newWorld(8)
	w.second(t, time.Millisecond, true)
	for range 10 {
		w.at = w.at.Add(window)
		w.Answered(time.Millisecond, false)
	}
	// Of the first of them all hands were still full.
	if got := w.Allowed(); got > 5 {
		t.Errorf("%d", got)
	}
}

func TestNeverMoreThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(5, time.Now, func() (float64, bool) { return 0, false })
		var now, highest atomic.Int32
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i)*time.Second)
				defer cancel()
				if err := p.Acquire(ctx); err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					return
				}
				n := now.Add(1)
				for h := highest.Load(); n > h && !highest.CompareAndSwap(h, n); h = highest.Load() {
				}
				time.Sleep(3 * time.Second)
				p.Answered(time.Millisecond, i%7 == 0)
				now.Add(-1)
				p.Release()
			})
		}
		all.Wait()
		if highest.Load() > 5 || p.underway != 0 || len(p.wait) != 0 {
			t.Errorf("up to %d at once; at the end %d, %d", highest.Load(), p.underway, len(p.wait))
		}
	})
}

func TestFullAvg10(t *testing.T) {
	const text = "some avg10=5.68 avg60=6.49 avg300=4.81 total=1037892942\nfull avg10=23.11 avg60=0.25 avg300=0.46 total=527647373\n"
	if got, known := fullAvg10(text); !known || got != 23.11 {
		t.Errorf("%v, %v", got, known)
	}
	for _, text := range []string{"", "full", "full avg10=", "full avg10=x ", "some avg10=1.00 avg60=0"} {
		if got, known := fullAvg10(text); known {
			t.Errorf("%q: %v", text, got)
		}
	}
}

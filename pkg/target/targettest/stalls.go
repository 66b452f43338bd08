package targettest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Stalls watches how long this process was not given the processor: limits on a
// busy machine have to allow for it, and on an idle one stay tight. Its methods
// are safe for concurrent use.
type Stalls struct{ longest atomic.Int64 }

// WatchStalls watches until the test ends.
func WatchStalls(t *testing.T) *Stalls {
	t.Helper()
	const every = 5 * time.Millisecond
	s, stop := &Stalls{}, make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTimer(every)
		defer tick.Stop()
		for {
			slept := time.Now()
			tick.Reset(every)
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			s.longest.Store(max(s.longest.Load(), int64(time.Since(slept)-every)))
		}
	})
	t.Cleanup(func() { close(stop); wg.Wait() })
	return s
}

// Longest is the longest stall so far.
func (s *Stalls) Longest() time.Duration { return time.Duration(s.longest.Load()) }

package observer

import (
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/sched"
)

const (
	// minProcs is how many threads may run Go code in a process that observes.
	minProcs = 16
	// timeSlice is what each of its threads asks of the kernel at a time, the
	// shortest there is.
	timeSlice = 100 * time.Microsecond
)

// punctual keeps attempts on time beside programs that use all processors, as long as
// anything is watched (ADR 11). Its methods are safe for concurrent use.
//
// A thread that the kernel preempts keeps its timers, so there are more threads for
// Go code than cores. Who sets GOMAXPROCS keeps what was set. And a thread that asks
// for short slices may run as soon as it wakes, where others are asked to wait for
// the end of a slice; its share of the processor is the same.
type punctual struct {
	mu sync.Mutex
	// kept counts what is watched.
	kept int
	// raised is true while GOMAXPROCS is this one's.
	raised bool
}

// onTime is the process's: GOMAXPROCS is as well, and sessions share it.
var onTime punctual

// keep begins to keep attempts on time; release, which may be called more than once,
// ends it. With the last release GOMAXPROCS is the runtime's to choose again. The
// slices stay short, which is no advantage by itself.
func (p *punctual) keep() (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept++; p.kept == 1 {
		if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < minProcs {
			runtime.GOMAXPROCS(minProcs)
			p.raised = true
		}
		sched.ShortSlices(timeSlice)
	}
	return sync.OnceFunc(p.release)
}

func (p *punctual) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept--; p.kept == 0 && p.raised {
		runtime.SetDefaultGOMAXPROCS()
		p.raised = false
	}
}

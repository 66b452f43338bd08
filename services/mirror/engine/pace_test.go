package engine

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// few lets no more than a number be under way, and counts.
type few struct {
	room chan struct{}
	mu   sync.Mutex
	// got and back count what was acquired and released.
	got, back int
}

func (f *few) Acquire(ctx context.Context) error {
	select {
	case f.room <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got++
	return nil
}

func (f *few) Release() {
	<-f.room
	f.mu.Lock()
	defer f.mu.Unlock()
	f.back++
}

// Batches, single files, parts of a large one, deletes: all wait for their turn, and
// none for itself.
func TestThePaceBoundsAllThatIsUnderWay(t *testing.T) {
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{PartsAbove: 6 << 20, Batch: 8}))
	w.job.Guards.Percent, w.job.Guards.Scans = 100, 1
	for i := range 30 {
		w.write(fmt.Sprintf("small/%02d", i), "content")
	}
	w.write("middle", strings.Repeat("x", 300<<10))
	w.write("large", strings.Repeat("0123456789abcdef", 11<<16))
	pace := &few{room: make(chan struct{}, 1)}
	w.pool = func(Pool) Pool { return Local{Worker: &Worker{Places: w.job.Places, Pace: pace}} }
	w.whole()
	w.same()
	if pace.got != pace.back || pace.got < 3+3 { // three parts, one file, one directory, batches
		t.Errorf("%d acquired and %d released", pace.got, pace.back)
	}
	w.remove("small/07")
	w.remove("large")
	before := pace.got
	w.whole()
	w.same()
	if pace.got != pace.back || pace.got == before {
		t.Errorf("%d acquired and %d released, after deletes", pace.got, pace.back)
	}
}

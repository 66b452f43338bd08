package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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

// What grows so much while it is read that it is written in parts then keeps no place
// that its parts wait for.
func TestAFileThatGrowsIntoPartsKeepsThePace(t *testing.T) {
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{PartsAbove: 6 << 20}))
	w.write("grows", strings.Repeat("x", 5<<20))
	var once sync.Once
	w.from.after = func(string) {
		once.Do(func() {
			f, err := os.OpenFile(filepath.Join(w.dir, "grows"), os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = f.WriteString(strings.Repeat("y", 3<<20))
			must(t, err)
			must(t, f.Close())
		})
	}
	pace := &few{room: make(chan struct{}, 1)}
	w.pool = func(Pool) Pool { return Local{Worker: &Worker{Places: w.job.Places, PartSize: 5 << 20, Pace: pace}} }
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if r, err := w.try(ctx); err != nil || !r.Whole() {
		t.Fatalf("got %+v, %v", r, err)
	}
	w.same()
	if pace.got != pace.back || pace.got != 1+2 { // the try that found it growing, and two parts
		t.Errorf("%d acquired and %d released", pace.got, pace.back)
	}
}

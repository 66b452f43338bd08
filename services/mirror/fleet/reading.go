package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
)

// A large file is one item for as long as it takes: so that its run is not taken for
// standing still, workers tell every now and then how much they have read. It goes
// where results go, as what nobody waits for.

// readSoFar is what a worker has read for a run since it opened the run's places.
type readSoFar struct {
	Bytes int64 `json:"bytes"`
}

// readKind begins the last token of the subject that such a message has.
const readKind = "read-"

// reader counts what this process reads for one run.
type reader struct {
	mirror, run string
	bytes       atomic.Int64
	told        int64 // by tell's goroutine only
}

func (r *reader) count(n int) { r.bytes.Add(int64(n)) }

// readers are those of the runs that this process works for.
type readers struct {
	mu   sync.Mutex
	open map[*reader]struct{}
}

func newReaders() *readers { return &readers{open: map[*reader]struct{}{}} }

func (rs *readers) add(r *reader) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.open[r] = struct{}{}
}

func (rs *readers) remove(r *reader) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	delete(rs.open, r)
}

func (rs *readers) moved() []*reader {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var out []*reader
	for r := range rs.open {
		if r.bytes.Load() != r.told {
			out = append(out, r)
		}
	}
	return out
}

// tell publishes what was read until ctx ends. That a message is lost costs nothing
// but a moment's progress on a screen.
func (rs *readers) tell(ctx context.Context, c Config) {
	me := readKind + strings.ToLower(rand.Text()[:10])
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, r := range rs.moved() {
			n := r.bytes.Load()
			if err := c.Bus.PublishMirrorRead(ctx, r.mirror, r.run, me, readSoFar{n}); err != nil {
				c.Log.Debug("tell what was read", "mirror", r.mirror, "run", r.run, "error", err)
				continue
			}
			r.told = n
		}
	}
}

// tally adds up what all workers have read for one run.
type tally struct {
	// here is what this process has read that plans the run.
	here atomic.Int64
	mu   sync.Mutex
	by   map[string]int64
}

func (t *tally) count(n int) { t.here.Add(int64(n)) }

func (t *tally) take(r bus.Record) {
	var got readSoFar
	if json.Unmarshal(r.Data, &got) != nil {
		return // another version's
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[string]int64{}
	}
	t.by[r.Kind] = max(t.by[r.Kind], got.Bytes)
}

func (t *tally) bytes() (sum int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.by {
		sum += n
	}
	return sum + t.here.Load()
}

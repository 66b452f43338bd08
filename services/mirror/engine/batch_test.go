package engine

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// hurting is a place to which some of a batch comes damaged, so many times.
type hurting struct {
	*spy
	key   string
	times int
	sizes []int
}

func (h *hurting) PutBatch(ctx context.Context, ws []place.Write) []place.Outcome {
	h.sizes = append(h.sizes, len(ws))
	if len(h.sizes) > h.times {
		return h.spy.PutBatch(ctx, ws)
	}
	out := make([]place.Outcome, len(ws))
	for i, w := range ws {
		if w.Entry.Path == h.key {
			out[i].Err = fmt.Errorf("put %q: %w", h.key, place.ErrDamaged)
		} else {
			out[i] = h.spy.PutBatch(ctx, []place.Write{w})[0]
		}
	}
	return out
}

// What arrives damaged of a batch is sent again, and only that, as often as what is sent
// alone.
func TestWhatIsDamagedInABatchIsSentAgain(t *testing.T) {
	for times, sizes := range map[int][]int{1: {20, 1}, DefaultTries: {20, 1, 1}} {
		w := between(t, plan.Mirror, openBucket(t, false, store.Options{}))
		for i := range 20 {
			w.write(fmt.Sprintf("f%02d", i), fmt.Sprint("content ", i))
		}
		h := &hurting{spy: w.to, key: "f07", times: times}
		w.job.Places[plan.Dest] = h
		r := w.run()
		if fmt.Sprint(h.sizes) != fmt.Sprint(sizes) {
			t.Errorf("%d times: sent batches of %v, want %v", times, h.sizes, sizes)
		}
		if lost := int64(times / DefaultTries); r.Failed != lost || r.Done[plan.Put] != 20-lost {
			t.Errorf("%d times: got %+v", times, r)
		}
		w.whole()
		w.same()
	}
}

// What was listed by its name is known once it was opened: sent again it is not asked what
// it is.
func TestWhatIsSentAgainIsKnownByThen(t *testing.T) {
	from := openBucket(t, false, store.Options{})
	w := between(t, plan.Mirror, from)
	w.write("a", "content a")
	w.write("b", "content b")
	w.whole()
	w = between(t, plan.Mirror, openLocal(t, t.TempDir()))
	named := &telling{spy: from}
	w.from = from
	w.job.Places[plan.Source] = named
	from.took()
	hurt := map[string]bool{}
	var mu sync.Mutex
	w.to.refuses = func(write place.Write) error {
		mu.Lock()
		defer mu.Unlock()
		if hurt[write.Entry.Path] {
			return nil
		}
		hurt[write.Entry.Path] = true
		return fmt.Errorf("put: %w", place.ErrDamaged)
	}
	w.whole()
	if took := fmt.Sprint(from.took()); took != "[open a open b]" || named.open.Load() != 0 {
		t.Errorf("it did %s, and left %d open", took, named.open.Load())
	}
	w.same()
}

package engine

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// A content that was read, arrived damaged and was not stored is sent again; what is
// rotten where it lies, or may have been stored, is not.
func TestWhatIsDamagedOnItsWayIsSentAgain(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		for _, key := range []string{"once", "always", "rotten"} {
			w.write(key, strings.Repeat(key[:1], 1<<20))
		}
		var mu sync.Mutex
		times := map[string]int{}
		to.refuses = func(write place.Write) error {
			r, err := write.Open(t.Context())
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				err = errors.Join(err, r.Close())
			}
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			key := write.Entry.Key()
			times[key]++
			switch {
			case key == "rotten":
				return fmt.Errorf("put %q: %w", key, place.ErrCorrupt)
			case key == "always" || times[key] == 1:
				return fmt.Errorf("put %q: %w", key, place.ErrDamaged)
			}
			return nil
		}
		r := w.run()
		if r.Failed != 2 || r.Done[plan.Put] != 1 {
			t.Fatalf("got %+v", r)
		}
		for _, f := range r.Failures {
			if !errors.Is(f.Err, place.ErrCorrupt) || f.Key == "once" {
				t.Errorf("%q: %v", f.Key, f.Err)
			}
		}
		if times["once"] != 2 || times["always"] != DefaultTries || times["rotten"] != 1 {
			t.Errorf("it was tried %v times", times)
		}
		to.refuses = nil
		w.whole()
		w.same()
	})
}

// A part that is damaged again and again was sent often enough: the other parts are not
// sent anew because of it.
func TestADamagedPartIsNoReasonToSendAllAgain(t *testing.T) {
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{PartsAbove: 6 << 20}))
	w.write("large", strings.Repeat("0123456789abcdef", 11<<16)) // 11 MiB: 5, 5 and 1
	w.to.putPart = func(number int) error {
		if number == 2 {
			return fmt.Errorf("part %d: %w", number, place.ErrDamaged)
		}
		return nil
	}
	if r := w.run(); r.Failed != 1 || !errors.Is(r.Failures[0].Err, place.ErrDamaged) {
		t.Fatalf("got %+v", r)
	}
	if took := strings.Join(w.to.took(), ","); strings.Count(took, "start large") != 1 || strings.Count(took, "abort") != 1 {
		t.Errorf("it did %q", took)
	}
	w.to.putPart = nil
	w.whole()
	w.same()
}

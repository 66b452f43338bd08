package engine

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// A content that was read and arrived damaged was not stored: it is sent again.
func TestWhatIsDamagedOnItsWayIsSentAgain(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		w.write("once", strings.Repeat("a", 1<<20))
		w.write("always", strings.Repeat("b", 1<<20))
		var mu sync.Mutex
		times := map[string]int{}
		to.refuses = func(write place.Write) error {
			r, err := write.Open(t.Context())
			must(t, err)
			_, err = io.Copy(io.Discard, r)
			must(t, errors.Join(err, r.Close()))
			mu.Lock()
			defer mu.Unlock()
			key := write.Entry.Key()
			if times[key]++; key == "always" || times[key] == 1 {
				return fmt.Errorf("put %q: %w", key, place.ErrCorrupt)
			}
			return nil
		}
		r := w.run()
		if r.Failed != 1 || r.Failures[0].Key != "always" || !errors.Is(r.Failures[0].Err, place.ErrCorrupt) || r.Done[plan.Put] != 1 {
			t.Fatalf("got %+v", r)
		}
		if times["once"] != 2 || times["always"] != DefaultTries {
			t.Errorf("it was tried %v times", times)
		}
		to.refuses = nil
		w.whole()
		w.same()
	})
}

package bus_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
)

// TestOneOfManyHalts: whoever halts at the same time as others learns whose reason
// it is, and replaces it neither then nor later.
func TestOneOfManyHalts(t *testing.T) {
	b := newWorld(t).connect("cli")
	for range 3 {
		var switched atomic.Int32
		var reason atomic.Value
		befores := make([]bus.Halt, 8)
		var wg sync.WaitGroup
		for i := range befores {
			wg.Go(func() {
				h := bus.Halt{Halted: true, By: "me", Reason: fmt.Sprint("reason ", i)}
				before, done, err := b.SwitchHalt(t.Context(), h)
				if err != nil {
					t.Error(err)
				}
				if befores[i] = before; done {
					switched.Add(1)
					reason.Store(h.Reason)
				}
			})
		}
		wg.Wait()
		now, err := b.HaltState(t.Context())
		if err != nil || switched.Load() != 1 || now.Reason != reason.Load() {
			t.Fatalf("%d have halted, the last %v; the state is %+v, %v", switched.Load(), reason.Load(), now, err)
		}
		for i, before := range befores {
			if before.Halted && before.Reason != now.Reason {
				t.Errorf("halt %d was told %+v", i, before)
			}
		}
		if before, done, err := b.SwitchHalt(t.Context(), bus.Halt{By: "me"}); err != nil || !done || before != now {
			t.Fatalf("released: %+v, %v, %v", before, done, err)
		}
		if _, done, err := b.SwitchHalt(t.Context(), bus.Halt{By: "me"}); err != nil || done {
			t.Fatalf("released once more: %v, %v", done, err)
		}
	}
}

type namedAnswer struct{ N int }

func (a namedAnswer) MessageID() string { return fmt.Sprint("answer ", a.N) }

func TestAnAnswerIsStoredOnce(t *testing.T) {
	b := newWorld(t).connect("injector")
	for _, n := range []int{1, 1, 2, 1} {
		if err := b.PublishResult(t.Context(), "me", "x", namedAnswer{n}); err != nil {
			t.Fatal(err)
		}
	}
	if got := resultsOf(t, b, "me", "x", time.Time{}); len(got) != 2 {
		t.Errorf("%s", got)
	}
	if got := resultsOf(t, b, "me", "x", time.Now().Add(time.Hour)); len(got) != 0 {
		t.Errorf("of the next hour: %s", got)
	}
	first := 0
	err := b.ResultsOf(t.Context(), "me", "x", time.Now().Add(-time.Hour), func([]byte) error { first++; return bus.Stop })
	if err != nil || first != 1 {
		t.Errorf("%d, %v", first, err)
	}
}

func resultsOf(t *testing.T, b *bus.Bus, who, name string, since time.Time) (out []string) {
	t.Helper()
	err := b.ResultsOf(t.Context(), who, name, since, func(raw []byte) error {
		out = append(out, string(raw))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

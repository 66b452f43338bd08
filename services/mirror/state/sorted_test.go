package state_test

import (
	"fmt"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/state"
)

// However few fit into memory, all come out in order, and of equal keys the last.
func TestSortedGivesTheLastOfEachKeyInOrder(t *testing.T) {
	for _, many := range []int{0, 1, 5000} {
		dir := t.TempDir()
		s, err := state.OpenSmall(dir)
		must(t, err)
		sorted, err := s.Sorted()
		must(t, err)
		for round := range 3 {
			for i := range many {
				n := i * 7919 % many
				p := left(fmt.Sprintf("%06d", n), int64(round))
				p.Source.Path = "another/than the key\x00"
				must(t, sorted.Add(p))
			}
		}
		for range 2 {
			i := 0
			for p, err := range sorted.All() {
				must(t, err)
				if want := fmt.Sprintf("%06d", i); p.Key != want || p.Source.MTime != left(want, 2).Source.MTime || p.Source.Path != "another/than the key\x00" {
					t.Fatalf("got %+v as %q", p, want)
				}
				i++
			}
			if i != many {
				t.Fatalf("%d of %d", i, many)
			}
		}
		onlyFiles(t, dir, "lock")
		must(t, sorted.Close())
		must(t, s.Close())
		if _, err := s.Sorted(); err == nil {
			t.Error("it sorts in a state that is closed")
		}
	}
}

// The records would take 60 MB of memory.
func TestMemoryDoesNotGrowWithWhatIsSorted(t *testing.T) {
	const many, most = 150_000, 40 << 20
	s := opened(t, t.TempDir())
	pasts := cheap()
	grown := heapPeak(t)
	sorted, err := s.Sorted()
	must(t, err)
	for i := range many {
		must(t, sorted.Add(pasts(i*7919%many)))
	}
	count := 0
	for _, err := range sorted.All() {
		must(t, err)
		count++
	}
	if got := grown(); got > most || count != many {
		t.Errorf("%d records; the heap grew by %d KiB, at most %d KiB are allowed", count, got>>10, most>>10)
	} else {
		t.Logf("the heap grew by %d KiB", got>>10)
	}
	must(t, sorted.Close())
}

package state_test

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// numbered is one of many files, in the order of their keys.
func numbered(i int) plan.Past {
	return left(fmt.Sprintf("projects/client-%03d/report-%02d/page-%03d.html", i/1000, i/50%20, i%50), int64(i))
}

// heapPeak measures the most bytes of heap, garbage included, from now until the
// call of what it gives.
func heapPeak(t testing.TB) (grown func() int64) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	read := func() int64 {
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	runtime.GC()
	before := read()
	most := before
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.Tick(time.Millisecond); ; {
			select {
			case <-tick:
				most = max(most, read())
			case <-stop:
				return
			}
		}
	})
	end := sync.OnceFunc(func() {
		close(stop)
		wg.Wait()
	})
	t.Cleanup(end)
	return func() int64 {
		end()
		return most - before
	}
}

// noteMany notes the files of which step is a divisor, out of order.
func noteMany(t testing.TB, s *state.Store, many, step int, pasts func(int) plan.Past) {
	t.Helper()
	const stride = 7919 // a prime, so that every file has its turn
	for i := range many {
		if n := i * stride % many; n%step == 0 {
			must(t, s.Note(pasts(n)))
		}
	}
}

// The notes would take 60 MB of memory, and more with what it takes to find them.
func TestMemoryDoesNotGrowWithTheNotes(t *testing.T) {
	const many = 150_000
	if most := runMany(t, many); most > 48<<20 {
		t.Errorf("the heap grew by %d KiB, at most %d KiB are allowed", most>>10, 48<<10)
	} else {
		t.Logf("the heap grew by %d KiB", most>>10)
	}
}

// runMany is two runs over many files, and gives the bytes by which the heap grew.
func runMany(t testing.TB, many int) int64 {
	t.Helper()
	s := opened(t, t.TempDir())
	pasts := cheap()
	grown := heapPeak(t)
	noteMany(t, s, many, 1, pasts)
	must(t, s.Commit())
	noteMany(t, s, many, 10, pasts)
	must(t, s.Commit())
	count := 0
	for _, err := range s.Past() {
		must(t, err)
		count++
	}
	if count != many {
		t.Errorf("%d records, want %d", count, many)
	}
	return grown()
}

func BenchmarkMemory(b *testing.B) {
	for _, many := range []int{250_000, 1_000_000} {
		b.Run(fmt.Sprint(many), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(runMany(b, many))/(1<<20), "peak-MiB")
			}
		})
	}
}

// cheap gives files like those of numbered that take less time to make up.
func cheap() func(int) plan.Past {
	p := numbered(0)
	return func(i int) plan.Past {
		p := p
		p.Key = fmt.Sprintf("projects/client-%03d/report-%02d/page-%03d.html", i/1000, i/50%20, i%50)
		p.Source.Path, p.Dest.Path = p.Key, p.Key
		p.Source.Change.Inode = uint64(i)
		for k := range 4 {
			p.Source.Sum.BLAKE3[8*k] = byte(i >> k)
		}
		p.Dest.Sum.BLAKE3 = p.Source.Sum.BLAKE3
		return p
	}
}

// filled is a state of a million files.
func filled(b *testing.B) *state.Store {
	b.Helper()
	s := opened(b, b.TempDir())
	for i := range 1_000_000 {
		must(b, s.Note(numbered(i)))
	}
	must(b, s.Commit())
	return s
}

func BenchmarkReadMillion(b *testing.B) {
	s := filled(b)
	b.ReportAllocs()
	grown := heapPeak(b)
	for b.Loop() {
		n := 0
		for _, err := range s.Past() {
			must(b, err)
			n++
		}
		if n != 1_000_000 {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(grown())/(1<<20), "peak-MiB")
}

func BenchmarkCommit(b *testing.B) {
	s := filled(b)
	for _, step := range []int{1, 100, 1_000_000} {
		b.Run(fmt.Sprintf("one-in-%d", step), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				noteMany(b, s, 1_000_000, step, numbered)
				b.StartTimer()
				must(b, s.Commit())
			}
		})
	}
}

func BenchmarkNote(b *testing.B) {
	s := opened(b, b.TempDir())
	p := numbered(1)
	b.ReportAllocs()
	for b.Loop() {
		must(b, s.Note(p))
	}
}

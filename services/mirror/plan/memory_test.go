package plan_test

import (
	"encoding/gob"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

func synthetic(i int) entry.Entry {
	return entry.Entry{
		Path: fmt.Sprintf("d%03d/e%03d/file-%06d", i/10_000, i/100%100, i), Size: 4096, Mode: 0o644, MTime: int64(i),
		Change: entry.Change{FS: entry.FSID{1}, Inode: uint64(i), CTime: int64(i)},
	}
}

func numbered(many int, keep func(i int) bool) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for i := range many {
			if keep(i) && !yield(synthetic(i), nil) {
				return
			}
		}
	}
}

// fileSpill keeps actions in a file.
type fileSpill struct {
	f   *os.File
	enc *gob.Encoder
}

func newFileSpill(t testing.TB) *fileSpill {
	f, err := os.Create(filepath.Join(t.TempDir(), "spill"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // removed with its directory
	return &fileSpill{f, gob.NewEncoder(f)}
}

func (s *fileSpill) Push(a plan.Action) error { return s.enc.Encode(a) }

func (s *fileSpill) All() iter.Seq2[plan.Action, error] {
	return func(yield func(plan.Action, error) bool) {
		if _, err := s.f.Seek(0, io.SeekStart); err != nil {
			yield(plan.Action{}, err)
			return
		}
		for dec := gob.NewDecoder(s.f); ; {
			var a plan.Action
			err := dec.Decode(&a)
			if err == io.EOF || !yield(a, err) || err != nil {
				return
			}
		}
	}
}

// planOf merges so many entries, of which a tenth is new, a tenth is to be deleted, and
// the rest is equal.
func planOf(t testing.TB, many int) *plan.Plan {
	rules := plan.Rules{
		Mode: plan.Mirror, Lists: [2]plan.Attr{plan.AllAttrs, plan.AllAttrs}, Roots: [2]entry.FSID{{1}, {1}}, ScanStart: time.Unix(1<<30, 0),
		Guards: plan.Guards{Scans: 1, Number: -1, Percent: 100, Markers: [2]plan.Marker{{Want: "x", Got: "x"}}},
	}
	in := plan.Input{
		Source: numbered(many, func(i int) bool { return i%10 != 0 }),
		Dest:   numbered(many, func(i int) bool { return i%10 != 1 }),
		Past: func(yield func(plan.Past, error) bool) {
			for e := range numbered(many, func(i int) bool { return i%10 != 1 }) {
				if !yield(plan.Past{Key: e.Key(), Source: e, Dest: e}, nil) {
					return
				}
			}
		},
	}
	p, err := plan.New(in, rules, newFileSpill(t))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Pain 1 (rclone#7974, mc#3376): memory that grows with the tree.
func TestMemoryDoesNotGrowWithTheTreePain1(t *testing.T) {
	// Were only what is to be copied held, it would take many times the bound.
	const many, bound = 250_000, 1 << 20
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	p := planOf(t, many)
	before, most, seen := heap(), uint64(0), 0
	counts := map[plan.Op]int{}
	for a, err := range p.Actions() {
		if err != nil {
			t.Fatal(err)
		}
		counts[a.Op]++
		if seen++; seen%25_000 == 0 {
			most = max(most, heap())
		}
	}
	if counts[plan.Equal] != many*8/10 || counts[plan.Put] != many/10 || counts[plan.Delete] != many/10 {
		t.Fatalf("counts %v", counts)
	}
	if most > before+bound {
		t.Errorf("the heap grew by %d KiB, at most %d KiB are allowed", (most-before)>>10, bound>>10)
	}
	t.Logf("heap grew by %d KiB", (max(most, before)-before)>>10)
}

func BenchmarkMillion(b *testing.B) {
	for b.Loop() {
		for _, err := range planOf(b, 1_000_000).Actions() {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

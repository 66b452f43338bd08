package proof_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

func diff(t fataler, a, b []byte) (out []proof.Difference) {
	t.Helper()
	for d, err := range proof.Diff(open(t, a), open(t, b)) {
		if err != nil {
			t.Fatalf("Diff: %v", err)
		}
		out = append(out, d)
	}
	return out
}

func TestDiffFindsWhatDiffersAndNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawEntries(t)
		var b []entry.Entry
		for _, e := range a { // most of it again, some of it altered
			switch rapid.IntRange(0, 9).Draw(t, "fate") {
			case 0:
			case 1:
				e.Size++
				b = append(b, e)
			default:
				b = append(b, e)
			}
		}
		b = sorted(append(b, rapid.SliceOfN(rapid.Custom(drawEntry), 0, 5).Draw(t, "new")...))
		fileA, _ := write(t, a)
		fileB, _ := write(t, b)

		byKey := map[string]*proof.Difference{}
		at := func(key string) *proof.Difference {
			if byKey[key] == nil {
				byKey[key] = &proof.Difference{Key: key}
			}
			return byKey[key]
		}
		for _, e := range a {
			at(e.Key()).InA, at(e.Key()).A = true, e
		}
		for _, e := range b {
			at(e.Key()).InB, at(e.Key()).B = true, e
		}
		var want []proof.Difference
		for _, d := range byKey {
			if !d.InA || !d.InB || !reflect.DeepEqual(d.A, d.B) {
				want = append(want, *d)
			}
		}
		slices.SortFunc(want, func(x, y proof.Difference) int { return entry.Compare(x.Key, y.Key) })
		got := diff(t, fileA, fileB)
		if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
	})
}

// counted counts the bytes that are read.
type counted struct {
	*bytes.Reader
	n atomic.Int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Reader.ReadAt(p, off)
	c.n.Add(int64(n))
	return n, err
}

func bigTree(n int) []entry.Entry {
	list := make([]entry.Entry, n)
	for i := range list {
		e := entry.Entry{Path: fmt.Sprintf("d%03d/file-%07d", i/1000, i), Size: int64(i), Mode: 0o644, MTime: 1_700_000_000_000_000_000 + int64(i)*1_000_003}
		e.Sum.Has, e.Sum.CRC32C = entry.HasCRC32C|entry.HasBLAKE3, uint32(i)*2654435761
		for j := range e.Sum.BLAKE3 {
			e.Sum.BLAKE3[j] = byte(uint32(i*7+j) * 2654435761 >> 24)
		}
		list[i] = e
	}
	return list
}

// An insert moves no boundary but its own: all other shards are passed over.
func TestDiffReadsOnlyTheShardsThatDiffer(t *testing.T) {
	a := bigTree(100_000)
	b := slices.Insert(slices.Clone(a), 50_000, entry.Entry{Path: a[49_999].Path + "-new"})
	fileA, root := write(t, a)
	fileB, _ := write(t, b)
	if root.Shards < 10 || root.Shards > 50 {
		t.Errorf("%d shards of 100,000 entries, want about 24", root.Shards)
	}
	readers := [2]*counted{{Reader: bytes.NewReader(fileA)}, {Reader: bytes.NewReader(fileB)}}
	var ms [2]*proof.Manifest
	for i, r := range readers {
		m, err := proof.Open(r, r.Size())
		if err != nil {
			t.Fatal(err)
		}
		ms[i] = m
	}
	n := 0
	for d, err := range proof.Diff(ms[0], ms[1]) {
		if err != nil || d.Key != a[49_999].Path+"-new" || d.InA {
			t.Errorf("got %+v, %v", d, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d differences", n)
	}
	for i, r := range readers {
		if share := float64(r.n.Load()) / float64(r.Size()); share > 0.4 {
			t.Errorf("read %.0f %% of manifest %d", 100*share, i)
		}
	}
}

func TestDiffStopsWhereAShardIsCorrupt(t *testing.T) {
	var list []entry.Entry
	for _, name := range starters {
		list = append(list, entry.Entry{Path: name}, entry.Entry{Path: name + "x"})
	}
	a, _ := write(t, sorted(list))
	list[7].Size = 1
	b, _ := write(t, sorted(list))
	frame := open(t, b).Frames()[3]
	b[frame[0]+frame[1]/2] ^= 0xff
	var last error
	for _, err := range proof.Diff(open(t, a), open(t, b)) {
		last = err
	}
	if !errors.Is(last, proof.ErrCorrupt) {
		t.Errorf("got %v", last)
	}
}

func TestInclusionIsProvedOfWhatIsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawEntries(t)
		file, root := write(t, list)
		m := open(t, file)
		for _, want := range list {
			p, err := m.Prove(want.Key())
			if err != nil {
				t.Fatalf("Prove(%q): %v", want.Key(), err)
			}
			got, err := proof.VerifyInclusion(root, p)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("proof of %q: %v, %v", want.Key(), got, err)
			}
		}
		for _, key := range []string{"", "nowhere", "zzzz"} {
			if _, err := m.Prove(key); !errors.Is(err, proof.ErrNoEntry) {
				t.Fatalf("Prove(%q): %v", key, err)
			}
		}
	})
}

func TestAForgedInclusionIsRefused(t *testing.T) {
	var list []entry.Entry
	for i, name := range starters {
		for j := range i + 1 {
			list = append(list, entry.Entry{Path: fmt.Sprint(name, strings.Repeat("x", j)), Size: int64(i)})
		}
	}
	list = sorted(list)
	file, root := write(t, list)
	m := open(t, file)
	rapid.Check(t, func(t *rapid.T) {
		good, err := m.Prove(rapid.SampledFrom(list).Draw(t, "entry").Key())
		if err != nil {
			t.Fatal(err)
		}
		p, r := good, root
		p.InShard, p.InRoot = slices.Clone(p.InShard), slices.Clone(p.InRoot)
		switch rapid.IntRange(0, 9).Draw(t, "forgery") {
		case 0:
			p.Line = strings.Replace(p.Line, `"size":`, `"size":1`, 1)
		case 1:
			p.Index += rapid.SampledFrom([]int64{-1, 1, 1 << 40, -1 << 63}).Draw(t, "by")
		case 2:
			p.Shard += rapid.SampledFrom([]int64{-1, 1, 1 << 40}).Draw(t, "by")
		case 3:
			p.Lines += rapid.SampledFrom([]int64{-1, 1, 1 << 40}).Draw(t, "by")
		case 4:
			p.InRoot[rapid.IntRange(0, len(p.InRoot)-1).Draw(t, "hash")][7] ^= 1
		case 5:
			p.InRoot = p.InRoot[1:]
		case 6:
			p.InShard = append(p.InShard, proof.Hash{})
		case 7:
			r.Entries++
		case 8:
			r.Bytes++
		case 9:
			r.Hash[0] ^= 1
		}
		if e, err := proof.VerifyInclusion(r, p); !errors.Is(err, proof.ErrNotIncluded) {
			t.Fatalf("shows %+v: %v", e, err)
		}
	})
}

// Pain 1: a manifest of many entries is written and read in little memory.
func TestMemoryDoesNotGrowWithTheManifestPain1(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	template := bigTree(1)[0]
	var file bytes.Buffer
	file.Grow(128 << 20)
	w, err := proof.NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	before, most := heap(), uint64(0)
	for i := range 100_000 {
		template.Path = fmt.Sprintf("d%03d/file-%07d", i/1000, i)
		template.Sum.BLAKE3[i%32]++
		if err := w.Add(template); err != nil {
			t.Fatal(err)
		}
		if i%10_000 == 0 {
			most = max(most, heap())
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range proof.NewReader(bytes.NewReader(file.Bytes())).Entries() {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n%10_000 == 0 {
			most = max(most, heap())
		}
	}
	const bound = 24 << 20
	if most > before+bound {
		t.Errorf("the heap grew by %d KiB, at most %d KiB are allowed", (most-before)>>10, bound>>10)
	}
	t.Logf("heap grew by %d KiB, the manifest has %d KiB", (max(most, before)-before)>>10, file.Len()>>10)
}

func BenchmarkWrite(b *testing.B) {
	list := bigTree(100_000)
	for b.Loop() {
		write(b, list)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(list)), "ns/entry")
}

func BenchmarkRead(b *testing.B) {
	file, root := write(b, bigTree(100_000))
	for b.Loop() {
		if _, got, err := read(bytes.NewReader(file)); err != nil || got != root {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/entry")
	b.ReportMetric(float64(len(file))/100_000, "B/entry")
}

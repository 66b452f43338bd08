package engine

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/zeebo/blake3"
	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/pace"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

func TestHasher(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "content")
		size := rapid.Int64Range(0, 100).Draw(t, "part size")
		// A content that sums itself up is believed, and hashed no second time.
		var c place.Content
		if want := rapid.Uint32().Draw(t, "its own CRC32C"); rapid.Bool().Draw(t, "sums itself up") {
			c = summed{piece{}, func() uint32 { return want }}
		} else if rapid.Bool().Draw(t, "sums nothing up") {
			c = summed{}
		}
		h := newHasher(c, true, size)
		for rest := content; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "written at once")
			_, err := h.Write(rest[:n])
			must(t, err)
			rest = rest[n:]
		}
		got := h.sum()
		crc := crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli))
		if s, is := c.(summed); is && s.crc != nil {
			crc = s.crc()
		}
		if h.summed != nil && h.crc != 0 {
			t.Fatal("it was summed up a second time")
		}
		if got.BLAKE3 != blake3.Sum256(content) || got.CRC32C != crc {
			t.Fatal("wrong BLAKE3 or CRC32C")
		}
		if want := plainETag(content, int(size)); got.ETag != want {
			t.Fatalf("ETag %s, want %s", got.ETag, want)
		}
		if got.Contains(entry.HasPartSize) != (size > 0) || got.PartSize != size {
			t.Fatalf("part size %d of %d", got.PartSize, size)
		}
	})
}

// summed is a content that knows its CRC32C; where crc is nil it does not.
type summed struct {
	piece
	crc func() uint32
}

func (s summed) CRC32C() func() uint32 { return s.crc }

// plainETag computes an ETag as the documentation of S3 says it.
func plainETag(content []byte, size int) string {
	if size == 0 {
		sum := md5.Sum(content)
		return hex.EncodeToString(sum[:])
	}
	var all []byte
	parts := 0
	for part := range slices.Chunk(content, size) {
		sum := md5.Sum(part)
		all = append(all, sum[:]...)
		parts++
	}
	if parts == 0 {
		sum := md5.Sum(nil)
		all, parts = sum[:], 1
	}
	sum := md5.Sum(all)
	return fmt.Sprintf("%x-%d", sum, parts)
}

// The server's own ETags, not those of our books about it.
func TestETagsAreMinIOs(t *testing.T) {
	c := server.Bucket(t, false)
	client := enginetest.Client(t, c)
	const part = 5 << 20
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{0, 1, part, part + 1, 2 * part, 2*part + 77} {
		content := make([]byte, size)
		_, _ = random.Read(content)
		for _, alone := range []bool{true, false} {
			info, err := client.PutObject(t.Context(), c.Bucket, "o", bytes.NewReader(content), int64(size), minio.PutObjectOptions{PartSize: part, DisableMultipart: alone})
			must(t, err)
			partSize := int64(0)
			if strings.Contains(info.ETag, "-") {
				partSize = part
			}
			h := newHasher(nil, true, partSize)
			_, err = h.Write(content)
			must(t, err)
			if got := h.sum().ETag; got != info.ETag {
				t.Errorf("%d bytes: MinIO has %s, the hasher %s", size, info.ETag, got)
			}
		}
	}
}

func TestBatcher(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		traits := [2]place.Traits{{}, {Batch: 5, BatchBytes: 1000, Small: 300}}
		var items []Item
		emit := func(it Item) error { items = append(items, it); return nil }
		b := batcher{traits: traits, emit: emit, idle: func() bool { return false }}
		if rapid.Bool().Draw(t, "directories first") {
			b.first = emit
			b.single = true
		}
		var keys []string
		for i := range rapid.IntRange(0, 60).Draw(t, "actions") {
			a := plan.Action{Key: fmt.Sprint(i), To: plan.Dest, Op: rapid.SampledFrom([]plan.Op{plan.Put, plan.Meta, plan.MakeDir, plan.Rehash}).Draw(t, "op")}
			a.Source = entry.Entry{Path: a.Key, Size: rapid.SampledFrom([]int64{0, 1, 200, 300, 301, 5000, 2 << 20}).Draw(t, "size")}
			if a.Op == plan.MakeDir {
				a.Source.Kind, a.Source.Size = entry.Dir, 0
			}
			keys = append(keys, a.Key)
			must(t, b.add(a))
		}
		must(t, b.flush())
		must(t, b.flush()) // which has nothing left
		made := map[string]bool{}
		for _, it := range items {
			small := len(it.Actions) > 1 && it.Actions[0].Op == plan.Put
			size := int64(0)
			for i := range it.Actions {
				size += weight(&it.Actions[i])
			}
			if small && (len(it.Actions) > 5 || size > 1000) {
				t.Fatalf("%d actions of %d bytes in a batch", len(it.Actions), size)
			}
			if len(it.Actions) == 0 || len(it.Actions) > itemActions || it.Single != b.single {
				t.Fatalf("the item %+v", it)
			}
			for _, a := range it.Actions {
				if made[a.Key] {
					t.Fatalf("%s twice", a.Key)
				}
				made[a.Key] = true
			}
		}
		if len(made) != len(keys) {
			t.Fatalf("%d of %d actions", len(made), len(keys))
		}
	})
}

func TestETA(t *testing.T) {
	began := time.Unix(1000, 0)
	at := began.Add(10 * time.Second)
	for _, c := range []struct {
		p    Progress
		want time.Duration
		ok   bool
	}{
		{Progress{At: at, Began: began, Planned: true, Actions: 4, DoneActions: 1}, 30 * time.Second, true},
		{Progress{At: at, Began: began, Planned: true, Actions: 4, DoneActions: 2, Bytes: 100, DoneBytes: 10}, 90 * time.Second, true},
		{Progress{At: at, Began: began, Planned: true, Actions: 4, DoneActions: 4, Bytes: 9, DoneBytes: 9}, 0, true},
		{Progress{At: at, Began: began, Planned: true, Actions: 4}, 0, false},
		{Progress{At: at, Began: began, Planned: true, Actions: 4, DoneActions: 1, Bytes: 9}, 0, false},
		{Progress{At: at, Began: began, Actions: 4, DoneActions: 1}, 0, false},
		{Progress{At: began, Began: began, Planned: true, Actions: 4, DoneActions: 1}, 0, false},
		{Progress{At: at, Began: began, Planned: true, Actions: 1, DoneActions: 2}, 0, false},
		// A large file that is under way tells as much as files that are done.
		{Progress{At: at, Began: began, Planned: true, Actions: 1, Bytes: 100 << 20}.WithRead(50 << 20), 10 * time.Second, true},
		{Progress{At: at, Began: began, Planned: true, Actions: 2, DoneActions: 1, Bytes: 100 << 20, DoneBytes: 80 << 20}.WithRead(500 << 20), 0, true},
		{Progress{At: at, Began: began, Planned: true, Actions: 2, DoneActions: 1, Bytes: 100 << 20, DoneBytes: 80 << 20}.WithRead(10 << 20), 2500 * time.Millisecond, true},
	} {
		if got, ok := c.p.ETA(); ok != c.ok || got.Round(time.Millisecond) != c.want {
			t.Errorf("%+v: %v, %v", c.p, got, ok)
		}
	}
}

func TestProgressNeverGoesBackAndEndsWithAll(t *testing.T) {
	w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
	w.grow()
	var now atomic.Int64
	w.job.Now = func() time.Time { return later().Add(time.Duration(now.Add(1)) * time.Second) }
	var last Progress
	w.job.Watch = func(p Progress) {
		if p.DoneActions < last.DoneActions || p.DoneBytes < last.DoneBytes || p.Seen < last.Seen || p.At.Before(last.At) {
			t.Errorf("%+v after %+v", p, last)
		}
		last = p
	}
	w.whole()
	if !last.Planned || last.Actions == 0 || last.DoneActions != last.Actions || last.DoneBytes != last.Bytes || last.Failed != 0 {
		t.Errorf("at the end %+v", last)
	}
}

// piece is a content that gives little at once, and tells what it was asked after.
type piece struct {
	io.Reader
	unchanged error
}

func (p piece) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), 100)]) }
func (piece) Close() error                 { return nil }
func (p piece) Unchanged() error           { return p.unchanged }

// What is paid for is what was read, whatever the buffer holds.
func TestTheLimitCountsWhatWasRead(t *testing.T) {
	const size = 64 << 10
	const burst = 1 << 20
	limit := rate.NewLimiter(1, burst) // a burst, and then a byte each second: nothing else comes back
	s := &stream{ctx: t.Context(), content: piece{strings.NewReader(strings.Repeat("x", size)), nil}, limit: limit, left: size}
	if n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{s}, make([]byte, buffer)); err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if left := limit.Tokens(); int(left) < burst-size-10 || int(left) > burst-size+60 {
		t.Errorf("%v tokens are left of %d", left, burst)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s = &stream{ctx: ctx, content: piece{strings.NewReader(strings.Repeat("x", size)), nil}, limit: rate.NewLimiter(1, 1), left: size}
	if _, err := io.Copy(io.Discard, s); !errors.Is(err, context.Canceled) {
		t.Errorf("while it waited: %v", err)
	}
	if pace.NewLimit(0) != nil || pace.NewLimit(-1) != nil {
		t.Error("no limit limits")
	}
}

// What is shorter than all that is read at once takes its time, too.
func TestTheLimitBoundsShortRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond = 10_000
		limit, began := pace.NewLimit(perSecond), time.Now()
		for range 10 { // files of a run
			const size = 2_500
			s := &stream{ctx: t.Context(), content: piece{strings.NewReader(strings.Repeat("x", size)), nil}, limit: limit, left: size}
			if n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{s}, make([]byte, buffer)); err != nil || n != size {
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
		if took := time.Since(began).Round(time.Millisecond); took != 2500*time.Millisecond {
			t.Errorf("25,000 bytes took %v", took)
		}
	})
}

func TestTheLimitIsThatOfAllTheWorkersReads(t *testing.T) {
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{Batch: 8}))
	w.grow()
	limit := rate.NewLimiter(1e-9, 8<<20) // which never gives anything back
	var told atomic.Int64
	w.pool = func(Pool) Pool {
		return Local{Worker: &Worker{Places: w.job.Places, Limit: limit, Read: func(n int) { told.Add(int64(n)) }}}
	}
	r := w.whole()
	if spent := int64(8<<20) - int64(limit.Tokens()); spent != r.Bytes[plan.Put]-int64(len("d/e")) { // a link is not read
		t.Errorf("%d bytes were paid for and %d were copied", spent, r.Bytes[plan.Put])
	} else if told.Load() != spent {
		t.Errorf("%d bytes were told of, of %d", told.Load(), spent)
	}
}

func TestAStreamHandsNothingTornOut(t *testing.T) {
	broken := errors.New("bad sector")
	for name, c := range map[string]struct {
		r         io.Reader
		size      int64
		unchanged error
		want      error
	}{
		"whole":             {strings.NewReader("abcdef"), 6, nil, nil},
		"longer":            {strings.NewReader("abcdefgh"), 6, nil, nil}, // no more is asked for
		"shorter":           {strings.NewReader("abc"), 6, nil, place.ErrChanged},
		"touched":           {strings.NewReader("abcdef"), 6, place.ErrChanged, place.ErrChanged},
		"empty":             {strings.NewReader(""), 0, nil, nil},
		"empty and touched": {strings.NewReader(""), 0, place.ErrChanged, place.ErrChanged},
		"broken":            {io.MultiReader(strings.NewReader("abc"), failing{broken}), 6, nil, broken},
		"broken at the end": {&lastFails{strings.NewReader("abcdef"), broken}, 6, nil, broken},
	} {
		s := &stream{ctx: t.Context(), content: piece{c.r, c.unchanged}, hash: newHasher(nil, false, 0), left: c.size}
		got, err := io.ReadAll(s)
		if !errors.Is(err, c.want) || c.want == nil && int64(len(got)) != c.size || c.want != nil && int64(len(got)) >= max(c.size, 1) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if s.whole() != (c.want == nil) {
			t.Errorf("%s: whole is %v", name, s.whole())
		}
		if _, again := s.Read(make([]byte, 9)); c.want != nil && again != err || c.want == nil && again != io.EOF {
			t.Errorf("%s: asked again %v", name, again)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// lastFails gives its error with the last bytes.
type lastFails struct {
	*strings.Reader
	err error
}

func (l *lastFails) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err == nil && l.Len() == 0 {
		err = l.err
	}
	return n, err
}

// forgetful keeps nothing: what package state holds in memory is tested there.
type forgetful struct{}

func (forgetful) Empty() bool                       { return true }
func (forgetful) Past() iter.Seq2[plan.Past, error] { return func(func(plan.Past, error) bool) {} }
func (forgetful) Note(plan.Past) error              { return nil }
func (forgetful) Forget(string) error               { return nil }
func (forgetful) Sync() error                       { return nil }
func (forgetful) Commit() error                     { return nil }
func (forgetful) Load(string, any) (bool, error)    { return false, nil }
func (forgetful) Save(string, any) error            { return nil }
func (forgetful) Remove(string) error               { return nil }

// Planning and carrying out must not hold the tree.
func TestMemoryDoesNotGrowWithTheTree(t *testing.T) {
	peak := func(n int) uint64 {
		spill := &plan.MemorySpill{Limit: 1}
		var highest uint64
		seen := 0
		measure := func() {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			highest = max(highest, m.HeapAlloc)
		}
		runtime.GC()
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		pool := poolFunc{Local{}, func(_ context.Context, it Item, _ func(context.Context, Item) ([]Done, error)) ([]Done, error) {
			dones := make([]Done, len(it.Actions))
			for i, a := range it.Actions {
				a.Dest = a.Source
				dones[i].Action = a
			}
			return dones, nil
		}}
		j := Job{Places: [2]place.Place{made{n: n}, made{}}, Mode: plan.Mirror, Now: later, Store: forgetful{}, Spill: spill, Pool: pool}
		j.Each = func(Done) {
			if seen++; seen%(n/8) == 0 {
				measure()
			}
		}
		r, err := j.Run(t.Context())
		must(t, err)
		if r.Done[plan.Put]+r.Done[plan.MakeDir] != int64(n) {
			t.Fatalf("got %+v", r)
		}
		return highest - min(before.HeapAlloc, highest)
	}
	peak(1000)
	small, large := peak(2000), peak(200_000)
	const allowed = 4 << 20
	if large > small+allowed {
		t.Errorf("%d bytes for 2,000 entries and %d for 200,000", small, large)
	}
	t.Logf("%d bytes for 2,000 entries and %d for 200,000", small, large)
}

// What is to be put aside is never deleted for good instead.
func TestWhatKeepsNothingIsNotAskedToRemove(t *testing.T) {
	bin := place.Bin{Run: "r", At: later()}
	w := &Worker{Places: [2]place.Place{made{}, made{}}}
	dones, err := w.Do(t.Context(), Item{Ordered: true, Bin: bin, Actions: []plan.Action{{Op: plan.Delete, Key: "f", To: plan.Dest, Dest: entry.Entry{Path: "f"}}}})
	if must(t, err); !errors.Is(dones[0].Err, errKeepsNothing) {
		t.Errorf("it answers %v", dones[0].Err)
	}
	j := Job{Places: w.Places, Mode: plan.Mirror, Now: later, Store: forgetful{}, Pool: Local{Worker: w}, Bin: bin}
	if _, err := j.Run(t.Context()); !errors.Is(err, ErrJob) || !strings.Contains(err.Error(), "keeps nothing that is removed") {
		t.Errorf("the run: %v", err)
	}
}

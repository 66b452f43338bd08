package engine

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// halves is a world whose large file is split: it has four parts, each of them an
// item, and two workers.
type halves struct {
	*world
	bucket bucket.Config
	// ranges counts the items of parts that were carried out.
	ranges atomic.Int64
	// before is called with the number of each, and its first part, before it is
	// carried out; its error stands for the worker's.
	before func(n int64, p *PartRange) error
}

const largeSize = 3*DefaultPartSize + 12345

func newHalves(t *testing.T, mode plan.Mode) *halves {
	t.Helper()
	h := &halves{bucket: server.Bucket(t, mode == plan.TwoWay)}
	p, err := store.Open(t.Context(), h.bucket, store.Options{PartsAbove: 6 << 20})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	h.world = between(t, mode, &spy{Place: p})
	h.pool = func(Pool) Pool {
		next := Local{Worker: &Worker{Places: h.job.Places}, Items: 2, SplitAbove: 20 << 20}
		return poolFunc{next, func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
			if it.Parts != nil {
				if n := h.ranges.Add(1); h.before != nil {
					if err := h.before(n, it.Parts); err != nil {
						return []Done{{Action: it.Actions[0], Err: err}}, ctx.Err()
					}
				}
			}
			return do(ctx, it)
		}}
	}
	return h
}

// large writes the large file with a content of its own.
func (h *halves) large(seed byte) {
	h.Helper()
	content := make([]byte, largeSize)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(content)
	h.write("d/large", string(content))
}

// under counts the uploads of the large file that the server knows of.
func (h *halves) under() (n int) {
	h.Helper()
	for u := range enginetest.Client(h, h.bucket).ListIncompleteUploads(h.Context(), h.bucket.Bucket, "d/large", true) {
		must(h, u.Err)
		n++
	}
	return n
}

func (h *halves) starts() int {
	return strings.Count(strings.Join(h.to.took(), ","), "start ")
}

// remembered counts the uploads that the next run would go on with.
func (h *halves) remembered() int {
	h.Helper()
	var all []upload
	_, err := h.store.Load(UploadsName, &all)
	must(h, err)
	return len(all)
}

func TestThePartsOfAVeryLargeFileAreItems(t *testing.T) {
	h := newHalves(t, plan.Mirror)
	h.large(1)
	h.write("small", "content")
	var both sync.WaitGroup
	both.Add(2)
	h.before = func(n int64, p *PartRange) error {
		if p.Count != 1 || p.Size != DefaultPartSize {
			t.Errorf("item %d has %d parts of %d bytes", n, p.Count, p.Size)
		}
		if n <= 2 { // at once, although the file has one place among the run's items
			both.Done()
			both.Wait()
		}
		return nil
	}
	r := h.whole()
	if n := h.ranges.Load(); n != 4 || r.Done[plan.Put] != 2 {
		t.Errorf("%d items of parts, %v", n, r.Done)
	}
	h.same()
	if n, m := h.under(), h.remembered(); n+m > 0 {
		t.Errorf("%d uploads are under way, and %d remembered", n, m)
	}
	for p, err := range h.store.Past() {
		must(t, err)
		if p.Key != "d/large" {
			continue
		}
		if s := p.Source.Sum; s.Has != entry.HasCRC32C {
			t.Errorf("of the source it remembers %+v", s)
		}
		if s := p.Dest.Sum; s.Has != entry.HasCRC32C|entry.HasETag|entry.HasPartSize || s.PartSize != DefaultPartSize {
			t.Errorf("of the destination it remembers %+v", s)
		}
	}
	h.idle(CheckState)
	h.idle(CheckListing)
	h.idle(CheckAudit)
}

// As many such files as there are places leave none for their parts but their own.
func TestManyVeryLargeFilesDoNotWaitForEachOther(t *testing.T) {
	h := newHalves(t, plan.Mirror)
	for _, name := range []string{"a", "b", "c"} {
		h.write(name, strings.Repeat(name, 21<<20))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if r, err := h.try(ctx); err != nil || !r.Whole() {
		t.Fatalf("%+v, %v", r, err)
	}
	h.same()
}

func TestAVeryLargeFileThatChangesIsNotTorn(t *testing.T) {
	h := newHalves(t, plan.Mirror)
	h.large(1)
	h.before = func(n int64, _ *PartRange) error {
		if n%2 == 0 {
			h.large(byte(n))
		}
		return nil
	}
	r := h.run()
	if r.Failed != 1 || !errors.Is(r.Failures[0].Err, place.ErrChanged) {
		t.Fatalf("got %+v", r)
	}
	if _, stored := holds(t, h.to)["d/large"]; stored {
		t.Error("it was stored")
	}
	if n, m := h.under(), h.remembered(); n+m > 0 {
		t.Errorf("%d uploads are under way, and %d remembered", n, m)
	}
	h.before = nil
	h.whole()
	h.same()
}

func TestWhatIsInTheWayOfAVeryLargeFileStays(t *testing.T) {
	h := newHalves(t, plan.TwoWay)
	h.large(1)
	var once sync.Once
	h.before = func(int64, *PartRange) error {
		once.Do(func() {
			_, err := h.to.Place.Put(t.Context(), place.Write{
				Entry: entry.Entry{Path: "d/large", Size: 6, Mode: 0o644}, Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("theirs")), nil },
			})
			must(t, err)
		})
		return nil
	}
	r := h.run()
	if r.Failed != 1 || !errors.Is(r.Failures[0].Err, place.ErrChanged) {
		t.Fatalf("got %+v", r)
	}
	e, there, err := h.to.Look(t.Context(), entry.Entry{Path: "d/large"})
	if err != nil || !there || e.Size != 6 {
		t.Errorf("there is %+v, %v, %v", e, there, err)
	}
	if n, m := h.under(), h.remembered(); n+m > 0 {
		t.Errorf("%d uploads are under way, and %d remembered", n, m)
	}
}

// interrupt ends a run once some of its parts are put.
func (h *halves) interrupt() {
	h.Helper()
	ctx, cancel := context.WithCancel(h.Context())
	defer cancel()
	h.before = func(n int64, _ *PartRange) error {
		if n == 4 {
			cancel()
		}
		return nil
	}
	if _, err := h.try(ctx); !errors.Is(err, context.Canceled) {
		h.Fatalf("got %v", err)
	}
	h.before = nil
	h.ranges.Store(0)
	if n := h.starts(); n != 1 {
		h.Fatalf("%d uploads were begun", n)
	}
	if n, m := h.under(), h.remembered(); n != 1 || m != 1 {
		h.Fatalf("%d uploads are under way, and %d remembered", n, m)
	}
	h.reopen()
}

func TestAnInterruptedUploadGoesOn(t *testing.T) {
	h := newHalves(t, plan.Mirror)
	h.large(1)
	h.interrupt()
	h.whole()
	if n := h.ranges.Load(); n < 1 || n > 2 {
		t.Errorf("%d of 4 parts were uploaded by the second run, at most two were under way", n)
	}
	if n := h.starts(); n != 0 {
		t.Errorf("%d uploads were begun anew", n)
	}
	h.same()
	if n, m := h.under(), h.remembered(); n+m > 0 {
		t.Errorf("%d uploads are under way, and %d remembered", n, m)
	}
}

func TestAnInterruptedUploadIsFreed(t *testing.T) {
	for name, change := range map[string]func(*halves){
		"another content": func(h *halves) { h.large(2) },
		"gone":            func(h *halves) { h.remove("d/large") },
		"the upload is gone": func(h *halves) {
			must(h, enginetest.Client(h, h.bucket).RemoveIncompleteUpload(h.Context(), h.bucket.Bucket, "d/large"))
		},
		"other attributes": func(h *halves) { must(h, os.Chmod(filepath.Join(h.dir, "d/large"), 0o600)) },
		"it was young": func(h *halves) {
			var all []upload
			_, err := h.store.Load(UploadsName, &all)
			must(h, err)
			all[0].Began = time.Now()
			must(h, h.store.Save(UploadsName, all))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHalves(t, plan.Mirror)
			h.large(1)
			h.interrupt()
			change(h)
			h.whole()
			h.same()
			if n := h.ranges.Load(); name != "gone" && n < 4 {
				t.Errorf("%d of 4 parts were uploaded", n)
			}
			if n, m := h.under(), h.remembered(); n+m > 0 {
				t.Errorf("%d uploads are under way, and %d remembered", n, m)
			}
		})
	}
}

// A pool that gives an item of parts up ends the run, and the next one goes on.
func TestAPoolThatLosesPartsEndsTheRun(t *testing.T) {
	h := newHalves(t, plan.Mirror)
	h.large(1)
	lost := errors.New("nobody answers")
	good := h.pool
	h.pool = func(next Pool) Pool {
		return poolFunc{good(next), func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
			if it.Parts != nil && it.Parts.First == 3 {
				return nil, lost
			}
			return do(ctx, it)
		}}
	}
	if r, err := h.try(t.Context()); !errors.Is(err, lost) || r.Done[plan.Put] > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if n := h.remembered(); n != 1 {
		t.Errorf("%d uploads are remembered", n)
	}
	h.pool = good
	h.reopen()
	h.whole()
	h.same()
	if n, m := h.under(), h.remembered(); n+m > 0 {
		t.Errorf("%d uploads are under way, and %d remembered", n, m)
	}
}

// What fails in passing costs what was uploaded so far neither in this run nor in the
// next; an upload that gets no further is begun anew.
func TestAFailureCostsNoParts(t *testing.T) {
	h := newHalves(t, plan.Mirror)
	h.large(1)
	fault := errors.New("the line is cut")
	var failed atomic.Int64
	h.to.putPart = func(number int) error {
		if number == 2 && failed.Add(1) < DefaultTries {
			return fault
		}
		return nil
	}
	h.whole()
	h.same()
	if n := failed.Load(); n != DefaultTries {
		t.Errorf("part 2 was tried %d times", n)
	}
	h.large(2)
	h.to.putPart = func(number int) error {
		if number == 4 {
			return fault
		}
		return nil
	}
	for run := range 3 {
		h.to.took()
		if r := h.run(); r.Failed != 1 || !errors.Is(r.Failures[0].Err, fault) {
			t.Fatalf("run %d: %+v", run, r)
		}
		h.reopen()
		// A later one goes on, or begins anew where nothing more could be put.
		if n := h.starts(); n > 1 || run == 0 && n == 0 {
			t.Errorf("run %d began %d uploads", run, n)
		}
		if n, m := h.under(), h.remembered(); n != 1 || m != 1 {
			t.Fatalf("after run %d, %d uploads are under way, and %d remembered", run, n, m)
		}
	}
	h.to.putPart = nil
	h.ranges.Store(0)
	h.whole()
	if n := h.ranges.Load(); n < 1 || n > 3 {
		t.Errorf("%d of 4 parts were uploaded by the last run", n)
	}
	h.same()
	if n, m := h.under(), h.remembered(); n+m > 0 {
		t.Errorf("%d uploads are under way, and %d remembered", n, m)
	}
}

// An object's BLAKE3 is what its writer says. Who copies it in parts does not find out,
// and so must not pass it on.
func TestTheWordOfAnObjectsWriterIsNotPassedOn(t *testing.T) {
	c := server.Bucket(t, false)
	from, err := store.Open(t.Context(), c, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, from.Close()) })
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{PartsAbove: 6 << 20}))
	w.job.Places[plan.Source] = from
	content := strings.Repeat("x", 8<<20)
	lie := entry.Entry{Path: "large", Size: int64(len(content)), Mode: 0o644, MTime: 1e18, Sum: entry.Sum{Has: entry.HasBLAKE3, BLAKE3: [32]byte{1}}}
	_, err = enginetest.Client(t, c).PutObject(t.Context(), c.Bucket, "large", strings.NewReader(content), lie.Size, minio.PutObjectOptions{UserMetadata: lie.Meta()})
	must(t, err)
	w.whole()
	w.whole()
	for p, err := range w.store.Past() {
		must(t, err)
		if shared := p.Source.Sum.Shared(p.Dest.Sum); p.Dest.Sum.Contains(entry.HasBLAKE3) || shared.Has&(entry.HasBLAKE3|entry.HasCRC32C) != entry.HasCRC32C {
			t.Errorf("of %q it remembers %+v and %+v", p.Key, p.Source.Sum, p.Dest.Sum)
		}
	}
}

// Of what a worker is asked nothing is taken for granted.
func TestPartsThatAFileDoesNotHaveAreRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := entry.Entry{Path: "f", Size: rapid.Int64Range(0, 100).Draw(t, "size")}
		p := PartRange{Size: rapid.Int64Range(-1, 30).Draw(t, "part size"), First: rapid.IntRange(-1, 12).Draw(t, "first"), Count: rapid.IntRange(-1, 12).Draw(t, "count")}
		inside := p.Size > 0 && p.First > 0 && p.Count > 0 && int64(p.First+p.Count-2)*p.Size < e.Size
		if err := p.fits(&e); (err == nil) != inside || err != nil && !errors.Is(err, ErrRange) {
			t.Errorf("%+v of %d bytes: %v", p, e.Size, err)
		}
	})
	w := Worker{}
	for _, a := range []plan.Action{{Op: plan.Delete, Key: "f"}, {Op: plan.Put, To: plan.Dest, Key: "f", Source: entry.Entry{Path: "f", Size: 1, Kind: entry.Symlink}}} {
		dones, err := w.Do(t.Context(), Item{Actions: []plan.Action{a}, Parts: &PartRange{Size: 1, First: 1, Count: 1}})
		if err != nil || len(dones) != 1 || !errors.Is(dones[0].Err, ErrRange) {
			t.Errorf("%v, %v", dones, err)
		}
	}
}

func TestMissingParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := upload{Size: 10, Parts: make([][]byte, rapid.IntRange(1, 40).Draw(t, "parts"))}
		for i := range u.Parts {
			if rapid.Bool().Draw(t, "is there") {
				u.Parts[i] = []byte("x")
			}
		}
		bytes := rapid.Int64Range(0, 100).Draw(t, "bytes")
		for _, p := range u.missing(bytes) {
			if p.Count < 1 || p.Count > 1 && int64(p.Count)*u.Size > bytes {
				t.Fatalf("%+v for %d bytes", p, bytes)
			}
			for i := range p.Count {
				if u.Parts[p.First+i-1] != nil {
					t.Fatalf("part %d is there", p.First+i)
				}
				u.Parts[p.First+i-1] = []byte("x")
			}
		}
		if left := u.missing(bytes); len(left) > 0 {
			t.Fatalf("left over: %+v", left)
		}
	})
}

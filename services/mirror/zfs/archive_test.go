package zfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/bucket"
)

var _ Store = (*bucket.Bucket)(nil)

// saved archives a history.
func saved(t testing.TB, h *history, s Store) (*Archive, []Point) {
	t.Helper()
	a := NewArchive(s)
	points, err := a.Save(t.Context(), h.Host, h.dataset, SaveOptions{Job: "job"})
	must(t, err)
	if len(points) != len(h.snapshots) {
		t.Fatalf("%d points of %d snapshots", len(points), len(h.snapshots))
	}
	return a, points
}

func TestArchiveRestoresEachPoint(t *testing.T) {
	t.Parallel()
	h, target, s := grow(t, on(t, "source"), 2), on(t, "target"), store(t)
	a, _ := saved(t, h, s)
	// Later runs add to it.
	for range 2 {
		h.step(t)
	}
	more, err := a.Save(t.Context(), h.Host, h.dataset, SaveOptions{Job: "job"})
	must(t, err)
	if len(more) != 2 || more[0].From != h.snapshots[1].GUID || heldBy(t, h.machine, h.dataset) != "s3" {
		t.Fatalf("%+v", more)
	}
	if none, err := a.Save(t.Context(), h.Host, h.dataset, SaveOptions{Job: "job"}); err != nil || len(none) != 0 {
		t.Fatalf("%+v, %v", none, err)
	}
	points, err := a.Points(t.Context())
	must(t, err)
	if len(points) != 4 || points[0].From != 0 {
		t.Fatalf("%+v", points)
	}
	for i, p := range points {
		must(t, a.Check(t.Context(), p.GUID))
		to := target.freshName(t)
		received, err := a.Restore(t.Context(), target.Host, to, p.GUID, RestoreOptions{})
		must(t, err)
		if len(received) != i+1 || received[i].GUID != p.GUID {
			t.Fatalf("%+v", received)
		}
		same(t, target, to, p.Snapshot, h.copies[i])
	}
}

func TestRestoreGoesOn(t *testing.T) {
	t.Parallel()
	h, target := grow(t, on(t, "source"), 3), on(t, "target")
	a, points := saved(t, h, store(t))
	to := target.freshName(t)
	for i, want := range []int{1, 0, 2} {
		received, err := a.Restore(t.Context(), target.Host, to, points[[]int{0, 0, 2}[i]].GUID, RestoreOptions{BytesPerSecond: 1 << 30})
		must(t, err)
		if len(received) != want {
			t.Fatalf("%+v", received)
		}
	}
	same(t, target, to, "s2", h.copies[2])
	// Not onto what is newer, or another's.
	_, err := a.Restore(t.Context(), target.Host, to, points[1].GUID, RestoreOptions{})
	wants(t, err, ErrDiverged)
	_, err = a.Restore(t.Context(), target.Host, target.fresh(t), points[1].GUID, RestoreOptions{})
	wants(t, err, ErrNoCommon)
	_, err = a.Restore(t.Context(), target.Host, target.freshName(t), 1, RestoreOptions{})
	wants(t, err, ErrNotExist)
}

// TestArchiveBeginsAnew: an increment cannot be made to what was pruned.
func TestArchiveBeginsAnew(t *testing.T) {
	t.Parallel()
	h, target := grow(t, on(t, "source"), 2), on(t, "target")
	a, _ := saved(t, h, store(t))
	must(t, h.Release(t.Context(), h.snapshots[1], "job"))
	must(t, h.Destroy(t.Context(), h.snapshots[1]))
	h.step(t)
	points, err := a.Save(t.Context(), h.Host, h.dataset, SaveOptions{Job: "job"})
	must(t, err)
	if len(points) != 1 || points[0].From != h.snapshots[0].GUID {
		t.Fatalf("not from the newest that is left: %+v", points)
	}
	must(t, h.Destroy(t.Context(), h.snapshots[0]))
	must(t, h.Release(t.Context(), h.snapshots[2], "job"))
	must(t, h.Destroy(t.Context(), h.snapshots[2]))
	h.step(t)
	points, err = a.Save(t.Context(), h.Host, h.dataset, SaveOptions{Job: "job"})
	must(t, err)
	if len(points) != 1 || points[0].From != 0 {
		t.Fatalf("not whole: %+v", points)
	}
	all, err := a.Points(t.Context())
	must(t, err)
	for _, p := range all {
		to := target.freshName(t)
		_, err := a.Restore(t.Context(), target.Host, to, p.GUID, RestoreOptions{})
		must(t, err)
		n := slices.IndexFunc(h.snapshots, func(s Snapshot) bool { return s.GUID == p.GUID })
		same(t, target, to, p.Snapshot, h.copies[n])
	}
}

func TestArchiveDamage(t *testing.T) {
	t.Parallel()
	h, target, s := grow(t, on(t, "source"), 2), on(t, "target"), store(t)
	a, points := saved(t, h, s)
	for what, change := range map[string]func([]byte) []byte{
		"a flipped bit": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"the last byte": func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b },
		"a cut":         func(b []byte) []byte { return b[:len(b)-1] },
		"nothing left":  func(b []byte) []byte { return nil },
		"more":          func(b []byte) []byte { return append(b, 0) },
	} {
		for number, p := range points {
			key := p.partKey(0)
			var before []byte
			rewrite(t, s, key, func(b []byte) []byte { before = slices.Clone(b); return change(b) })
			for _, whole := range []bool{false, true} {
				to := target.freshName(t)
				received, err := a.Restore(t.Context(), target.Host, to, points[1].GUID, RestoreOptions{Whole: whole})
				wants(t, err, ErrCorrupt)
				damaged, ok := errors.AsType[*PartError](err)
				if !ok || damaged.Key != key || damaged.Point.GUID != p.GUID || !strings.Contains(err.Error(), key) {
					t.Errorf("%s: the part is not named: %v", what, err)
				}
				left, err := target.Snapshots(t.Context(), to)
				if len(received) == 0 {
					wants(t, err, ErrNotExist)
				} else if namesOf(left) != "s0" || namesOf(received) != "s0" || number != 1 || whole {
					t.Errorf("%s in %s: received %s, left %s", what, p.Snapshot, namesOf(received), namesOf(left))
				}
			}
			wants(t, a.Check(t.Context(), points[1].GUID), ErrCorrupt)
			rewrite(t, s, key, func([]byte) []byte { return before })
		}
	}
	must(t, a.Check(t.Context(), points[1].GUID))
	must(t, s.Delete(t.Context(), []string{points[1].partKey(0)}))
	_, err := a.Restore(t.Context(), target.Host, target.freshName(t), points[1].GUID, RestoreOptions{})
	wants(t, err, ErrCorrupt, bucket.ErrNotFound)
}

// TestArchiveDamagedInside: parts that are what their index says, of a stream that
// is not.
func TestArchiveDamagedInside(t *testing.T) {
	t.Parallel()
	h, target, s := grow(t, on(t, "source"), 1), on(t, "target"), store(t)
	a, points := saved(t, h, s)
	for what, change := range map[string]func(*Point){
		"the stream's hash":     func(p *Point) { p.Stream.BLAKE3[0]++ },
		"the stream is longer":  func(p *Point) { p.Stream.Bytes++ },
		"the stream is shorter": func(p *Point) { p.Stream.Bytes-- },
		"the guid":              func(p *Point) { p.GUID++ },
	} {
		p := points[0]
		change(&p)
		raw, err := p.encode()
		must(t, err)
		if p.GUID != points[0].GUID {
			// Its index and its parts go where such a point would have them.
			r, _, err := s.Get(t.Context(), points[0].partKey(0), 0, -1)
			must(t, err)
			part, err := io.ReadAll(r)
			must(t, errors.Join(err, r.Close()))
			_, err = s.Put(t.Context(), p.partKey(0), bytes.NewReader(part), int64(len(part)), bucket.PutOptions{})
			must(t, err)
		}
		_, err = s.Put(t.Context(), p.key(), bytes.NewReader(raw), int64(len(raw)), bucket.PutOptions{})
		must(t, err)
		to := target.freshName(t)
		_, err = a.Restore(t.Context(), target.Host, to, p.GUID, RestoreOptions{})
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := target.Snapshots(t.Context(), to); !errors.Is(err, ErrNotExist) && p.GUID == points[0].GUID {
			t.Errorf("%s: it was received", what)
		}
	}
}

func TestArchiveWithDamagedIndex(t *testing.T) {
	t.Parallel()
	h, target, s := grow(t, on(t, "source"), 3), on(t, "target"), store(t)
	a, points := saved(t, h, s)
	rewrite(t, s, points[1].key(), func(b []byte) []byte { return b[:len(b)/2] })
	left, err := a.Points(t.Context())
	wants(t, err, ErrCorrupt)
	if len(left) != 2 || !strings.Contains(err.Error(), points[1].key()) {
		t.Fatalf("%+v, %v", left, err)
	}
	// What does not need it is there; what does is not.
	to := target.freshName(t)
	_, err = a.Restore(t.Context(), target.Host, to, points[0].GUID, RestoreOptions{})
	must(t, err)
	_, err = a.Restore(t.Context(), target.Host, to, points[2].GUID, RestoreOptions{})
	wants(t, err, ErrNotExist, ErrCorrupt)
	// The next Save archives again what cannot be restored any more, and says so.
	again, err := a.Save(t.Context(), h.Host, h.dataset, SaveOptions{Job: "job"})
	wants(t, err, ErrCorrupt)
	if len(again) != 2 {
		t.Fatalf("%+v", again)
	}
	_, err = a.Restore(t.Context(), target.Host, to, points[2].GUID, RestoreOptions{})
	must(t, err)
	same(t, target, to, "s2", h.copies[2])
	_, err = a.Points(t.Context())
	must(t, err)
	// Its first upload is nobody's now.
	n, err := a.Sweep(t.Context(), time.Now().Add(time.Hour))
	must(t, err)
	if n == 0 {
		t.Error("nothing was swept")
	}
	must(t, a.Check(t.Context(), points[2].GUID))
}

// failing is a store that fails, or is left, after some puts.
type failing struct {
	Store
	puts  atomic.Int64
	after int64
	fail  func() error
}

func (f *failing) Put(ctx context.Context, key string, r io.Reader, size int64, o bucket.PutOptions) (bucket.Written, error) {
	if f.puts.Add(1) > f.after {
		if err := f.fail(); err != nil {
			return bucket.Written{}, err
		}
	}
	return f.Store.Put(ctx, key, r, size, o)
}

func TestArchiveBrokenOff(t *testing.T) {
	t.Parallel()
	h, s := grow(t, on(t, "source"), 1), store(t)
	for after := range int64(2) {
		errFull := errors.New("the bucket is full")
		_, err := NewArchive(&failing{Store: s, after: after, fail: func() error { return errFull }}).Save(t.Context(), h.Host, h.dataset, SaveOptions{Job: "job"})
		wants(t, err, errFull)
		ctx, cancel := context.WithCancel(t.Context())
		_, err = NewArchive(&failing{Store: s, after: after, fail: func() error { cancel(); return nil }}).Save(ctx, h.Host, h.dataset, SaveOptions{Job: "job"})
		wants(t, err, context.Canceled)
	}
	if left := keys(t, s); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	a, points := saved(t, h, s)
	must(t, a.Check(t.Context(), points[0].GUID))
}

// TestArchiveSweepsCrashes leaves parts without an index, as a killed process does.
func TestArchiveSweepsCrashes(t *testing.T) {
	t.Parallel()
	h, s := grow(t, on(t, "source"), 1), store(t)
	a, points := saved(t, h, s)
	for i := range 3 {
		key := fmt.Sprintf("parts/%016x-crashed00/%06d", points[0].GUID, i)
		_, err := s.Put(t.Context(), key, strings.NewReader("x"), 1, bucket.PutOptions{})
		must(t, err)
	}
	if n, err := a.Sweep(t.Context(), time.Now().Add(-time.Hour)); err != nil || n != 0 {
		t.Errorf("an upload that may be under way: %d, %v", n, err)
	}
	if n, err := a.Sweep(t.Context(), time.Now().Add(time.Hour)); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	must(t, a.Check(t.Context(), points[0].GUID))
}

// TestArchiveManyParts: a stream that takes several parts, of which one comes late,
// or once damaged on its way.
func TestArchiveManyParts(t *testing.T) {
	t.Parallel()
	source, target, s := on(t, "source"), on(t, "target"), store(t)
	h := &history{machine: source, dataset: source.fresh(t), bulk: partSize + 1<<20}
	for range 2 {
		h.step(t)
	}
	a, points := saved(t, h, s)
	if len(points[0].Parts) < 2 || len(points[1].Parts) < 2 {
		t.Fatalf("%d and %d parts", len(points[0].Parts), len(points[1].Parts))
	}
	flaky := &damaging{Store: s}
	to := target.freshName(t)
	_, err := NewArchive(flaky).Restore(t.Context(), target.Host, to, points[1].GUID, RestoreOptions{})
	must(t, err)
	if flaky.damaged.Load() == 0 {
		t.Error("nothing was damaged")
	}
	same(t, target, to, "s1", h.copies[1])

	second := points[1].partKey(1)
	rewrite(t, s, second, func(b []byte) []byte { b[0]++; return b })
	_, err = a.Restore(t.Context(), target.Host, target.freshName(t), points[1].GUID, RestoreOptions{Whole: true})
	if damaged, ok := errors.AsType[*PartError](err); !ok || damaged.Number != 1 || damaged.Key != second {
		t.Fatalf("got %v", err)
	}
}

// damaging gives each part once with its first byte wrong.
type damaging struct {
	Store
	damaged atomic.Int64
	seen    string
}

func (d *damaging) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Object, error) {
	r, o, err := d.Store.Get(ctx, key, off, n)
	if err != nil || !strings.HasPrefix(key, partPrefix) || d.seen == key {
		return r, o, err
	}
	d.seen = key
	d.damaged.Add(1)
	first := true
	return struct {
		io.Reader
		io.Closer
	}{readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		if first && n > 0 {
			p[0]++
			first = false
		}
		return n, err
	}), r}, o, nil
}

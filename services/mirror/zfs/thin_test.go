package zfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// shelf is a store in memory, for one goroutine, whose deletes may begin to fail.
type shelf struct {
	objects map[string][]byte
	// deletes is how many more succeed; negative is all.
	deletes int
}

var errShelf = errors.New("the store is away")

func (s *shelf) Put(_ context.Context, key string, r io.Reader, size int64, o bucket.PutOptions) (bucket.Written, error) {
	if _, there := s.objects[key]; there && o.IfNoneMatch {
		return bucket.Written{}, bucket.ErrPrecondition
	}
	raw, err := io.ReadAll(io.LimitReader(r, size))
	s.objects[key] = raw
	return bucket.Written{}, err
}

func (s *shelf) Get(_ context.Context, key string, off, n int64) (io.ReadCloser, bucket.Object, error) {
	raw, there := s.objects[key]
	if !there || off != 0 || n >= 0 {
		return nil, bucket.Object{}, bucket.ErrNotFound
	}
	return io.NopCloser(bytes.NewReader(raw)), bucket.Object{Key: key, Size: int64(len(raw))}, nil
}

func (s *shelf) List(_ context.Context, o bucket.ListOptions) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		for _, key := range slices.Sorted(maps.Keys(s.objects)) {
			if strings.HasPrefix(key, o.Prefix) && !yield(bucket.Object{Key: key, Size: int64(len(s.objects[key]))}, nil) {
				return
			}
		}
	}
}

func (s *shelf) Delete(_ context.Context, keys []string) error {
	if s.deletes == 0 {
		return errShelf
	}
	s.deletes--
	for _, key := range keys {
		delete(s.objects, key)
	}
	return nil
}

// put puts a point there, with parts that look right.
func (s *shelf) put(t rapid.TB, p Point) {
	raw, err := p.encode()
	if err != nil {
		t.Fatal(err)
	}
	s.objects[p.key()] = raw
	for i, part := range p.Parts {
		s.objects[p.partKey(i)] = make([]byte, part.Size)
	}
}

// drawPoints are points of a dataset, each whole or an increment to one before it, or to
// one that is not there.
func drawPoints(t *rapid.T) (points []Point) {
	at := time.Date(2023, 12, 20, 0, 0, 0, 0, time.UTC)
	for i := range rapid.IntRange(0, 40).Draw(t, "n") {
		at = at.Add(time.Duration(rapid.IntRange(-60, 30*3600).Draw(t, "gap")) * time.Second)
		p := Point{
			Version: indexVersion, Compression: compression, Dataset: "d", Snapshot: nameOf(at.Add(time.Duration(i) * time.Millisecond)), Created: at, GUID: uint64(i + 1),
			Upload: fmt.Sprintf("upload%04d", i), Stream: Stream{Bytes: 1}, Parts: []Part{{Size: 7}},
		}
		switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); {
		case i == 0 || kind == 0:
		case kind == 1:
			p.From = uint64(rapid.IntRange(1, i).Draw(t, "from"))
		case kind == 2 && rapid.Bool().Draw(t, "lost"):
			p.From = 1 << 40
		case kind == 3:
			p.Snapshot = fmt.Sprint("by-hand-", i)
			p.From = uint64(i)
		default:
			p.From = uint64(i)
		}
		points = append(points, p)
	}
	return points
}

// There is nothing that Thin can be interrupted by that makes a point useless which was
// to stay, or leaves one that was of use and is not any more.
func TestThinningKeepsWhatIsNeededWheneverItEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		points, o := drawPoints(t), ThinOptions{Keep: drawKeep(t), Taken: rapid.Bool().Draw(t, "taken")}
		if o.Keep == (Keep{}) {
			o.Keep.Daily = 1
		}
		s := &shelf{objects: map[string][]byte{}, deletes: -1}
		for _, p := range points {
			s.put(t, p)
		}
		a := NewArchive(s)
		all, err := a.Points(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		was := Restorable(all)
		plan, err := a.Thin(t.Context(), ThinOptions{Keep: o.Keep, Taken: o.Taken, DryRun: true})
		if err != nil || len(s.objects) != 2*len(points) {
			t.Fatalf("a dry run: %d objects, %v", len(s.objects), err)
		}
		gone := map[uint64]bool{}
		for _, p := range plan.Gone {
			gone[p.GUID] = true
			if !was[p.GUID] || !older(p, all[len(all)-1]) || o.Taken && !takenName().MatchString(p.Snapshot) {
				t.Fatalf("%s was to be let be", p.Name())
			}
		}
		s.deletes = rapid.IntRange(0, 2*len(points)).Draw(t, "deletes")
		done, err := a.Thin(t.Context(), o)
		if broken := s.deletes == 0 && len(done.Gone) < len(plan.Gone); broken != errors.Is(err, errShelf) || !broken && err != nil {
			t.Fatalf("%d of %d gone: %v", len(done.Gone), len(plan.Gone), err)
		}
		left, err := a.Points(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		is := Restorable(left)
		for _, p := range all {
			there := slices.ContainsFunc(left, func(q Point) bool { return q.GUID == p.GUID })
			if !gone[p.GUID] && !there {
				t.Fatalf("%s went", p.Name())
			}
			if there && was[p.GUID] != is[p.GUID] {
				t.Fatalf("%s was restorable: %v, and is: %v", p.Name(), was[p.GUID], is[p.GUID])
			}
		}
		if err := a.look(t.Context(), left); err != nil {
			t.Fatalf("of what is left: %v", err)
		}
		s.deletes = -1
		if _, err := a.Thin(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		again, err := a.Thin(t.Context(), o)
		if err != nil || len(again.Gone) != 0 {
			t.Fatalf("and then also %d, %v", len(again.Gone), err)
		}
		if left, err = a.Points(t.Context()); err != nil || len(left) != len(all)-len(plan.Gone) {
			t.Fatalf("%d are left of %d, of which %d were to go: %v", len(left), len(all), len(plan.Gone), err)
		}
	})
}

// The policy has its way where nothing builds on what it lets go.
func TestThinningKeepsByDays(t *testing.T) {
	t.Parallel()
	at := func(day, hour int) time.Time { return time.Date(2024, 3, day, hour, 0, 0, 0, time.UTC) }
	s := &shelf{objects: map[string][]byte{}, deletes: -1}
	var last uint64
	for day := 1; day <= 6; day++ {
		for hour := range 3 {
			p := Point{
				Version: indexVersion, Compression: compression, Dataset: "d", Snapshot: nameOf(at(day, hour)), Created: at(day, hour), GUID: uint64(10*day + hour),
				From: last, Upload: "upload00", Stream: Stream{Bytes: 1}, Parts: []Part{{Size: 7}},
			}
			if day%2 == 1 && hour == 0 {
				p.From = 0 // a whole one every second day
			}
			last = p.GUID
			s.put(t, p)
		}
	}
	done, err := NewArchive(s).Thin(t.Context(), ThinOptions{Keep: Keep{Daily: 2}})
	must(t, err)
	guids := func(points []Point) (out []uint64) {
		for _, p := range points {
			out = append(out, p.GUID)
		}
		return out
	}
	if got := guids(done.Gone); !slices.Equal(got, []uint64{22, 42, 21, 41, 20, 40, 12, 32, 11, 31, 10, 30}) {
		t.Errorf("gone: %v", got)
	}
	if got := guids(done.Needed); !slices.Equal(got, []uint64{50, 51, 60, 61}) {
		t.Errorf("needed: %v", got)
	}
}

func TestThinningRefusesWhatIsNotWhole(t *testing.T) {
	t.Parallel()
	h, s := grow(t, on(t, "source"), 3), store(t)
	a, old := saved(t, h, s)
	h.step(t)
	whole, err := a.save(t.Context(), h.Host, nil, h.snapshots[3], 0, nil)
	must(t, err)
	// Of those of one second none is the newest.
	for !h.step(t).Created.After(whole.Created) {
	}
	young, err := a.Save(t.Context(), h.Host, h.dataset, SaveOptions{Job: "job"})
	must(t, err)
	newest := young[len(young)-1]
	one := ThinOptions{Keep: Keep{Monthly: 1}, Read: true}
	before := keys(t, s)
	for what, broken := range map[string]struct {
		key    string
		change func([]byte) []byte
	}{
		"an index": {old[0].key(), func([]byte) []byte { return []byte("{") }},
		"a size":   {whole.partKey(0), func(b []byte) []byte { return b[1:] }},
		"a bit":    {newest.partKey(0), func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
	} {
		var was []byte
		rewrite(t, s, broken.key, func(b []byte) []byte { was = slices.Clone(b); return broken.change(b) })
		done, err := a.Thin(t.Context(), one)
		if !errors.Is(err, ErrCorrupt) || len(done.Gone) > 0 || !slices.Equal(keys(t, s), before) {
			t.Errorf("%s is broken: %v, and %d went", what, err, len(done.Gone))
		}
		rewrite(t, s, broken.key, func([]byte) []byte { return was })
	}
	// Damage in what goes keeps it from nothing.
	rewrite(t, s, old[1].partKey(0), func(b []byte) []byte { return b[1:] })
	done, err := a.Thin(t.Context(), one)
	must(t, err)
	if len(done.Gone) != 3 || len(done.Needed) != len(young) || done.Needed[0].GUID != whole.GUID {
		t.Fatalf("%d went, %d are needed", len(done.Gone), len(done.Needed))
	}
	target := on(t, "target")
	to := target.freshName(t)
	_, err = a.Restore(t.Context(), target.Host, to, newest.GUID, RestoreOptions{})
	must(t, err)
	same(t, target, to, newest.Snapshot, h.copies[len(h.copies)-1])
	if left := keys(t, s); len(left) != 2*(1+len(young)) {
		t.Errorf("left: %q", left)
	}
	// The chain goes on.
	h.step(t)
	more, err := a.Save(t.Context(), h.Host, h.dataset, SaveOptions{Job: "job"})
	must(t, err)
	checked, err := a.CheckAll(t.Context(), nil)
	must(t, err)
	if len(more) != 1 || more[0].From != newest.GUID || !checked.Whole() || checked.Points != len(young)+2 {
		t.Errorf("%+v after %+v", checked, more)
	}
}

func TestAWholePointEverySoOften(t *testing.T) {
	t.Parallel()
	h := grow(t, on(t, "source"), 1)
	a := NewArchive(store(t))
	save := func(every time.Duration) []Point {
		got, err := a.Save(t.Context(), h.Host, h.dataset, SaveOptions{Job: "job", WholeEvery: every})
		must(t, err)
		return got
	}
	save(time.Hour)
	h.step(t)
	if got := save(time.Hour); len(got) != 1 || got[0].From != h.snapshots[0].GUID {
		t.Fatalf("it is no increment: %+v", got)
	}
	// ZFS knows seconds only.
	for h.step(t).Created.Sub(h.snapshots[0].Created) < time.Second {
	}
	got := save(time.Second)
	if n := len(got); n == 0 || got[n-1].From != 0 || n > 1 && got[n-2].From == 0 {
		t.Fatalf("the last one alone should be whole: %+v", got)
	}
	h.step(t)
	if got := save(time.Hour); len(got) != 1 || got[0].From != h.snapshots[len(h.snapshots)-2].GUID {
		t.Fatalf("it is no increment to the whole one: %+v", got)
	}
	checked, err := a.CheckAll(t.Context(), nil)
	must(t, err)
	if !checked.Whole() {
		t.Errorf("%+v", checked)
	}
}

// Points that were archived by a clock that was ahead, and by one that was mended after
// it: nothing else has the data of the last ones.
func TestAClockThatWasAheadLetsNothingNewGo(t *testing.T) {
	t.Parallel()
	s := &shelf{objects: map[string][]byte{}, deletes: -1}
	for i, p := range []struct {
		from uint64
		at   time.Time
	}{
		{0, time.Date(2027, 1, 1, 10, 0, 0, 0, time.UTC)}, {1, time.Date(2027, 1, 2, 10, 0, 0, 0, time.UTC)},
		{2, time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)}, {0, time.Date(2026, 5, 2, 10, 0, 0, 0, time.UTC)},
	} {
		s.put(t, Point{
			Version: indexVersion, Compression: compression, Dataset: "d", Snapshot: nameOf(p.at), Created: p.at, GUID: uint64(i + 1), From: p.from,
			Upload: fmt.Sprintf("upload%04d", i), Stream: Stream{Bytes: 1}, Parts: []Part{{Size: 7}},
		})
	}
	done, err := NewArchive(s).Thin(t.Context(), ThinOptions{Keep: Keep{Daily: 1}, Taken: true, Stay: []uint64{4}})
	if err != nil || len(done.Gone) > 0 {
		t.Errorf("gone: %+v, %v", done.Gone, err)
	}
	done, err = NewArchive(s).Thin(t.Context(), ThinOptions{Keep: Keep{Daily: 1}, Taken: true})
	if err != nil || len(done.Gone) != 1 || done.Gone[0].GUID != 4 {
		t.Errorf("without a word for it: %+v, %v", done.Gone, err)
	}
}

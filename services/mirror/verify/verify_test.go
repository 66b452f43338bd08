package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/local"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

var server enginetest.Server

func TestMain(m *testing.M) { server.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	enginetest.Must(t, err)
}

// world is a directory and the copy that was made of it.
type world struct {
	testing.TB
	dir      string
	from, to *enginetest.Rotten
	store    *state.Store
	manifest *proof.Manifest
	// bucket is the destination, or dest is.
	bucket bucket.Config
	dest   string
}

const (
	small = "a small content with a MARK in it"
	files = 6 // that grow makes, with directories and a link
)

func large() string { return strings.Repeat("0123456789abcdef", 1<<15) + "MARK" }

func mirrored(t testing.TB, into string) *world {
	t.Helper()
	w := &world{TB: t, dir: t.TempDir()}
	enginetest.Write(t, w.dir, "small", small)
	enginetest.Write(t, w.dir, "d/large", large())
	enginetest.Write(t, w.dir, "d/e/other", "other")
	must(t, os.Symlink("d/e", filepath.Join(w.dir, "link")))
	open := func(dir string) place.Place {
		p, err := local.Open(t.Context(), dir, local.Options{})
		must(t, err)
		t.Cleanup(func() { must(t, p.Close()) })
		return p
	}
	w.from = &enginetest.Rotten{Place: open(w.dir)}
	if into == "directory" {
		w.dest = t.TempDir()
		w.to = &enginetest.Rotten{Place: open(w.dest)}
	} else {
		w.bucket = server.Bucket(t, false)
		p, err := store.Open(t.Context(), w.bucket, store.Options{})
		must(t, err)
		t.Cleanup(func() { must(t, p.Close()) })
		w.to = &enginetest.Rotten{Place: p}
	}
	w.sync()
	return w
}

// sync copies, and makes the manifest.
func (w *world) sync() {
	w.Helper()
	s, err := state.Open(w.TempDir())
	must(w, err)
	w.Cleanup(func() { must(w, s.Close()) })
	places := [2]place.Place{w.from.Place, w.to.Place}
	j := engine.Job{
		Places: places, Store: s, Pool: engine.Local{Worker: &engine.Worker{Places: places}},
		Now: func() time.Time { return time.Now().Add(time.Hour) }, // by which nothing is young
	}
	r, err := j.Run(w.Context())
	must(w, err)
	if !r.Whole() {
		w.Fatalf("not whole: %+v", r)
	}
	w.store = s
	var raw bytes.Buffer
	root, err := verify.Manifest(&raw, s.Past(), false)
	must(w, err)
	w.manifest, err = proof.Open(bytes.NewReader(raw.Bytes()), int64(raw.Len()))
	must(w, err)
	if w.manifest.Root() != root {
		w.Fatal("the manifest has another root than it was written with")
	}
}

// known is what the destination held after the copy.
func (w *world) known() iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for p, err := range w.store.Past() {
			e := p.Dest
			e.Sum = e.Sum.Shared(p.Source.Sum)
			if !yield(e, err) {
				return
			}
		}
	}
}

func (w *world) check(l proof.Level) verify.Result {
	w.Helper()
	c := verify.Check{Place: w.to, Level: l, Parallel: 3}
	if w.dest != "" {
		c.Known = w.known()
	}
	r, err := c.Against(w.Context(), w.manifest.Entries())
	must(w, err)
	return r
}

func keys(f proof.Findings) []string {
	var all []string
	for _, one := range f.First {
		all = append(all, one.Key)
	}
	return all
}

// found is everything that a check found, in short.
func found(r verify.Result) string {
	var all []string
	for _, f := range []struct {
		name string
		of   proof.Findings
	}{
		{"missing", r.Verdict.Missing}, {"extra", r.Verdict.Extra}, {"different", r.Verdict.Different},
		{"unreadable", r.Unreadable}, {"attributes", r.Verdict.MetadataOnly},
	} {
		for _, k := range keys(f.of) {
			all = append(all, f.name+" "+k)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func TestWhatWasJustCopiedIsVerified(t *testing.T) {
	for into, levels := range map[string][]proof.Level{"directory": {proof.L1, proof.L2, proof.L4}, "bucket": {proof.L1, proof.L2, proof.L4}} {
		w := mirrored(t, into)
		for _, l := range levels {
			if r := w.check(l); !r.Verified() || found(r) != "" || r.Verdict.Checked != files {
				t.Errorf("%s at %v: %v: %s", into, l, r.Verdict, found(r))
			} else if r.Verdict.Level != l {
				t.Errorf("%s at %v: reached %v", into, l, r.Verdict.Level)
			} else if told := strings.Contains(r.String(), "contents read because"); told != (into == "directory" && l == proof.L2) {
				t.Errorf("%s at %v: %v", into, l, r)
			}
		}
	}
}

// What each level can find, and what it cannot.
func TestWhatEachLevelFinds(t *testing.T) {
	for _, c := range []struct {
		into, name string
		damage     func(*world)
		want       map[proof.Level]string
	}{
		{"bucket", "a flipped bit in a large object", func(w *world) { server.Rot(w, w.bucket.Bucket, "d/large", "MARK") },
			map[proof.Level]string{proof.L1: "", proof.L2: "", proof.L4: "unreadable d/large"}},
		{"bucket", "a flipped bit in a small object", func(w *world) { server.Rot(w, w.bucket.Bucket, "small", "MARK") },
			map[proof.Level]string{proof.L1: "", proof.L2: "", proof.L4: "unreadable small"}},
		{"bucket", "a server that lies", func(w *world) { w.to.Rot("small") },
			map[proof.Level]string{proof.L1: "", proof.L2: "", proof.L4: "different small"}},
		{"bucket", "another content of the same size", func(w *world) { w.object("small", strings.Replace(small, "MARK", "mark", 1)) },
			map[proof.Level]string{proof.L1: "different small", proof.L2: "different small", proof.L4: "different small"}},
		{"bucket", "an object too many", func(w *world) { w.object("new", "x") },
			map[proof.Level]string{proof.L1: "extra new", proof.L2: "extra new", proof.L4: "extra new"}},
		{"bucket", "an object too few", func(w *world) {
			must(w, enginetest.Client(w, w.bucket).RemoveObject(w.Context(), w.bucket.Bucket, "small", minio.RemoveObjectOptions{}))
		}, map[proof.Level]string{proof.L1: "missing small", proof.L2: "missing small", proof.L4: "missing small"}},

		{"directory", "a disk that lies", func(w *world) { w.to.Rot("d/large") },
			map[proof.Level]string{proof.L1: "", proof.L2: "different d/large", proof.L4: "different d/large"}},
		{"directory", "an edit that keeps size and time", func(w *world) {
			path := filepath.Join(w.dest, "small")
			st, err := os.Stat(path)
			must(w, err)
			must(w, errors.Join(os.WriteFile(path, []byte(strings.ToUpper(small)), 0o644), os.Chtimes(path, time.Time{}, st.ModTime())))
		}, map[proof.Level]string{proof.L1: "different small", proof.L4: "different small"}},
		{"directory", "a touch that changes nothing", func(w *world) {
			path := filepath.Join(w.dest, "small")
			st, err := os.Stat(path)
			must(w, err)
			must(w, errors.Join(os.WriteFile(path, []byte(small), 0o644), os.Chtimes(path, time.Time{}, st.ModTime())))
		}, map[proof.Level]string{proof.L1: "", proof.L4: ""}},
		{"directory", "another mode", func(w *world) { must(w, os.Chmod(filepath.Join(w.dest, "d/large"), 0o600)) },
			map[proof.Level]string{proof.L1: "attributes d/large", proof.L4: "attributes d/large"}},
		{"directory", "another target", func(w *world) {
			link := filepath.Join(w.dest, "link")
			must(w, errors.Join(os.Remove(link), os.Symlink("d/x", link)))
		}, map[proof.Level]string{proof.L1: "different link", proof.L4: "different link"}},
		{"directory", "a directory for a file", func(w *world) {
			path := filepath.Join(w.dest, "small")
			must(w, errors.Join(os.Remove(path), os.Mkdir(path, 0o755)))
		}, map[proof.Level]string{proof.L1: "extra small/, missing small", proof.L4: "extra small/, missing small"}},
	} {
		w := mirrored(t, c.into)
		c.damage(w)
		for _, l := range []proof.Level{proof.L1, proof.L2, proof.L4} {
			want, has := c.want[l]
			if !has {
				continue
			}
			r := w.check(l)
			if got := found(r); got != want || r.Verified() != (want == "" || strings.HasPrefix(want, "attributes")) {
				t.Errorf("%s, %s at %v: %v: %q, want %q", c.into, c.name, l, r.Verdict, got, want)
			}
		}
	}
}

func (w *world) object(key, content string) {
	w.Helper()
	_, err := enginetest.Client(w, w.bucket).PutObject(w.Context(), w.bucket.Bucket, key, strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
	must(w, err)
}

func TestLevelsThatCannotBeHad(t *testing.T) {
	dir, b := mirrored(t, "directory"), mirrored(t, "bucket")
	for _, c := range []verify.Check{
		{Place: dir.to, Level: proof.L1}, {Place: dir.to, Level: proof.L0},
		{Place: b.to, Level: proof.L3}, {Place: b.to, Level: proof.L0}, {Place: b.to},
	} {
		if _, err := c.Against(t.Context(), b.manifest.Entries()); !errors.Is(err, verify.ErrLevel) || !strings.Contains(err.Error(), "use L") {
			t.Errorf("%v: got %v", c.Level, err)
		}
	}
}

// Whether checksums are kept is not asked of a place that is only read from: its objects
// tell.
func TestChecksumsAreTakenFromWhatIsOnlyReadFrom(t *testing.T) {
	w := mirrored(t, "bucket")
	w.bucket.ReadOnly = true
	p, err := store.Open(t.Context(), w.bucket, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	w.to.Place = p
	if r := w.check(proof.L2); !r.Verified() || r.Verdict.Level != proof.L2 || r.Read != 0 {
		t.Errorf("got %v", r)
	}
}

// The server keeps no checksums of what came in a batch: at the level of checksums it
// is read, and not passed for less.
func TestWhatABatchBroughtIsReadForL2(t *testing.T) {
	w := &world{TB: t, dir: t.TempDir(), bucket: server.Bucket(t, false)}
	for i := range 20 {
		enginetest.Write(t, w.dir, fmt.Sprintf("%02d", i), fmt.Sprintf("MARK %d", i))
	}
	p, err := local.Open(t.Context(), w.dir, local.Options{})
	must(t, err)
	q, err := store.Open(t.Context(), w.bucket, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, errors.Join(p.Close(), q.Close())) })
	w.from, w.to = &enginetest.Rotten{Place: p}, &enginetest.Rotten{Place: q}
	w.sync()
	if r := w.check(proof.L2); !r.Verified() || r.Verdict.Level != proof.L2 || r.Read != 20 || !strings.HasSuffix(r.String(), "at L2: 20") {
		t.Errorf("got %v", r)
	}
	server.Rot(t, w.bucket.Bucket, "07", "MARK")
	if r := w.check(proof.L2); r.Verified() || found(r) != "unreadable 07" {
		t.Errorf("with a flipped bit: %v: %s", r, found(r))
	}
}

// A content that was equal by its times only was never read: no hash of one side is
// that of the other, and no level vouches for it.
func TestWhatWasNeverReadIsUnchecked(t *testing.T) {
	for _, into := range []string{"directory", "bucket"} {
		w := mirrored(t, into)
		past := func(yield func(plan.Past, error) bool) {
			for p, err := range w.store.Past() {
				if p.Key == "small" {
					p.Source.Sum = entry.Sum{}
				}
				if !yield(p, err) {
					return
				}
			}
		}
		var raw bytes.Buffer
		_, err := verify.Manifest(&raw, past, false)
		must(t, err)
		w.manifest, err = proof.Open(bytes.NewReader(raw.Bytes()), int64(raw.Len()))
		must(t, err)
		for _, l := range []proof.Level{proof.L1, proof.L2, proof.L4} {
			r := w.check(l)
			if r.Verified() || found(r) != "" || !slices.Equal(keys(r.Verdict.Unchecked), []string{"small"}) {
				t.Errorf("%s at %v: %v: %s", into, l, r.Verdict, found(r))
			}
		}
	}
}

func TestUnreadableContentsAreNotVerified(t *testing.T) {
	w := mirrored(t, "directory")
	hole := errors.New("the disk has a hole")
	w.to.Place = unreadable{w.to.Place, "small", hole}
	r := w.check(proof.L4)
	if found(r) != "unreadable small" || r.Verified() || !strings.Contains(r.Unreadable.First[0].Detail, "hole") || r.Verdict.Unchecked.Count != 1 ||
		!strings.Contains(r.Verdict.Unchecked.First[0].Detail, "it could not be read: ") || !strings.Contains(r.Verdict.Unchecked.First[0].Detail, "hole") {
		t.Errorf("got %v: %+v", r.Verdict, r.Unreadable)
	}
	if r := w.check(proof.L1); !r.Verified() {
		t.Errorf("at L1: %v", r.Verdict)
	}
}

type unreadable struct {
	place.Place
	key string
	err error
}

func (u unreadable) Open(ctx context.Context, e entry.Entry, off, n int64) (place.Content, error) {
	if e.Key() == u.key {
		return nil, u.err
	}
	return u.Place.Open(ctx, e, off, n)
}

// Whenever a check is broken off, it does not say that the rest is missing.
func TestACancelledCheckSaysNothing(t *testing.T) {
	for _, into := range []string{"directory", "bucket"} {
		w := mirrored(t, into)
		for _, l := range []proof.Level{proof.L1, proof.L4} {
			for after := range files + 1 {
				ctx, cancel := context.WithCancel(t.Context())
				seen := 0
				c := verify.Check{Place: w.to, Level: l, Parallel: 1, Known: w.known(), Seen: func(entry.Entry) {
					if seen++; seen == after {
						cancel()
					}
				}}
				if after == 0 {
					cancel()
				}
				r, err := c.Against(ctx, w.manifest.Entries())
				cancel()
				if err == nil && !r.Verified() || err != nil && !errors.Is(err, context.Canceled) || err != nil && r.Verified() {
					t.Errorf("%s at %v, cancelled after %d: %v, %v", into, l, after, r.Verdict, err)
				}
			}
		}
	}
}

func TestAListingThatFailsProvesNothing(t *testing.T) {
	w := mirrored(t, "directory")
	broken := errors.New("the directory cannot be read")
	for _, l := range []proof.Level{proof.L1, proof.L4} {
		c := verify.Check{Place: listing{w.to, broken}, Level: l, Known: w.known()}
		if r, err := c.Against(t.Context(), w.manifest.Entries()); !errors.Is(err, broken) || r.Verified() {
			t.Errorf("at %v: %v, %v", l, r.Verdict, err)
		}
	}
	want := func(yield func(entry.Entry, error) bool) { yield(entry.Entry{}, broken) }
	c := verify.Check{Place: w.to, Level: proof.L4}
	if r, err := c.Against(t.Context(), want); !errors.Is(err, broken) || r.Verified() {
		t.Errorf("without a manifest: %v, %v", r.Verdict, err)
	}
	if _, err := verify.Manifest(&bytes.Buffer{}, func(yield func(plan.Past, error) bool) { yield(plan.Past{}, broken) }, false); !errors.Is(err, broken) {
		t.Errorf("a manifest of what cannot be read: %v", err)
	}
}

// TestAManifestThatIsGivenUpIsWrittenNoFurther, though what was packed of it is on its way.
func TestAManifestThatIsGivenUpIsWrittenNoFurther(t *testing.T) {
	broken := errors.New("the state cannot be read")
	for many := 1000; many < 4000; many += 37 { // wherever in a block it is given up
		var file given
		_, err := verify.Manifest(&file, func(yield func(plan.Past, error) bool) {
			for i := range many {
				e := entry.Entry{Path: fmt.Sprintf("%06d", i)}
				if !yield(plan.Past{Key: e.Path, Source: e, Dest: e}, nil) {
					return
				}
			}
			yield(plan.Past{}, broken)
		}, false)
		file.up = true // which the race detector sees, too
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
		if file.late {
			t.Fatal("it was written to afterwards")
		}
	}
}

// given is a file that may be given up.
type given struct{ up, late bool }

func (g *given) Write(p []byte) (int, error) {
	g.late = g.late || g.up
	return len(p), nil
}

// listing fails behind the first entry, and goes on.
type listing struct {
	place.Place
	err error
}

func (l listing) Entries(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		first := true
		for e, err := range l.Place.Entries(ctx, o) {
			if !yield(e, err) || first && !yield(entry.Entry{}, l.err) {
				return
			}
			first = false
		}
	}
}

func TestTheFilterIsForBothSides(t *testing.T) {
	w := mirrored(t, "directory")
	must(t, os.RemoveAll(filepath.Join(w.dest, "d")))
	enginetest.Write(t, w.dest, "d/new", "x")
	c := verify.Check{Place: w.to, Level: proof.L4, Filter: func(path string, _ entry.Kind) bool { return path != "d" && !strings.HasPrefix(path, "d/") }}
	if r, err := c.Against(t.Context(), w.manifest.Entries()); err != nil || !r.Verified() {
		t.Errorf("%v, %v: %s", r.Verdict, err, found(r))
	}
}

// A bucket has no directories unless somebody made them; a copy of it in a directory
// has.
func TestImpliedDirectoriesAreNotTooMany(t *testing.T) {
	w := &world{TB: t, dest: t.TempDir(), bucket: server.Bucket(t, false)}
	for _, key := range []string{"a", "d/e/f", "d/g", "x y/z"} {
		w.object(key, "content of "+key)
	}
	p, err := store.Open(t.Context(), w.bucket, store.Options{})
	must(t, err)
	q, err := local.Open(t.Context(), w.dest, local.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, errors.Join(p.Close(), q.Close())) })
	w.from, w.to = &enginetest.Rotten{Place: p}, &enginetest.Rotten{Place: q}
	w.sync()
	for _, l := range []proof.Level{proof.L1, proof.L4} {
		if r := w.check(l); !r.Verified() || r.Verdict.Checked != 4 {
			t.Errorf("at %v: %v: %s", l, r.Verdict, found(r))
		}
	}
	must(t, os.Mkdir(filepath.Join(w.dest, "d/empty"), 0o755))
	if r := w.check(proof.L4); found(r) != "extra d/empty/" {
		t.Errorf("with one too many: %s", found(r))
	}
}

func TestManyAreReadAtOnceAndToldInOrder(t *testing.T) {
	w := &world{TB: t, dir: t.TempDir(), dest: t.TempDir()}
	for i := range 300 {
		enginetest.Write(t, w.dir, fmt.Sprintf("%03d", i), strings.Repeat("x", i))
	}
	for _, side := range []struct {
		dir  string
		into **enginetest.Rotten
	}{{w.dir, &w.from}, {w.dest, &w.to}} {
		p, err := local.Open(t.Context(), side.dir, local.Options{})
		must(t, err)
		t.Cleanup(func() { must(t, p.Close()) })
		*side.into = &enginetest.Rotten{Place: p}
	}
	w.sync()
	w.to.Rot("123")
	var seen []string
	c := verify.Check{Place: w.to, Level: proof.L4, Parallel: 7, Seen: func(e entry.Entry) { seen = append(seen, e.Key()) }}
	r, err := c.Against(t.Context(), w.manifest.Entries())
	must(t, err)
	if found(r) != "different 123" || len(seen) != 300 || !slices.IsSorted(seen) {
		t.Errorf("%s, %d seen", found(r), len(seen))
	}
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// telling is a spy of a place that tells what it opens, which a spy alone hides.
type telling struct {
	*spy
	// before is called with the key of what is about to be opened.
	before func(key string)
	// open counts the contents that nobody has closed.
	open atomic.Int64
}

func (s *telling) OpenNamed(ctx context.Context, listed entry.Entry) (place.Content, entry.Entry, error) {
	s.note("open", listed.Key())
	if s.before != nil {
		s.before(listed.Key())
	}
	c, e, err := s.Place.(place.Named).OpenNamed(ctx, listed)
	if c == nil {
		return nil, e, err
	}
	s.open.Add(1)
	return &counted{Content: c, open: &s.open}, e, err
}

// counted counts its closing.
type counted struct {
	place.Content
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Content.Close()
}

// servers are those that a bucket is tried on.
var servers = map[string]func(testing.TB, bucket.Config) (bucket.Config, *enginetest.Proxy){
	"MinIO": enginetest.Counting, "plain S3": enginetest.Plain,
}

// full makes a bucket hold all that is awkward.
func full(t testing.TB, c bucket.Config) bucket.Config {
	t.Helper()
	p, err := store.Open(t.Context(), c, store.Options{})
	must(t, err)
	w := between(t, plan.Copy, &spy{Place: p})
	w.grow()
	editor := enginetest.Editor{TB: t, Dir: filepath.Join(w.dir, "edited"), Rand: rand.New(rand.NewPCG(1, 2))}
	must(t, os.Mkdir(editor.Dir, 0o755))
	editor.Edit(60)
	must(t, unix.Mknod(filepath.Join(w.dir, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	must(t, os.Symlink(strings.Repeat("é/", 1000), filepath.Join(w.dir, "far")))
	must(t, unix.Chmod(filepath.Join(w.dir, "many/03"), 0o4755))
	w.whole()
	must(t, p.Close())
	return c
}

// out makes a world that copies out of a bucket. told says that names are listed and what
// is opened tells the rest; otherwise attributes are listed.
func out(t testing.TB, c bucket.Config, told bool) (*world, *telling) {
	t.Helper()
	p, err := store.Open(t.Context(), c, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	from := &telling{spy: &spy{Place: p}}
	w := &world{TB: t, from: from.spy, to: openLocal(t, t.TempDir()), state: t.TempDir()}
	w.job = &Job{Places: [2]place.Place{from, w.to}, Mode: plan.Copy, Now: later}
	if !told {
		w.job.Places[plan.Source] = from.spy
	}
	w.reopen()
	t.Cleanup(func() { must(t, w.store.Close()) })
	return w, from
}

// left is what is remembered, but for what tells two files apart that are alike.
func (w *world) left() map[string]plan.Past {
	w.Helper()
	all := map[string]plan.Past{}
	for p, err := range w.store.Past() {
		must(w, err)
		p.Dest.Change = entry.Change{}
		all[p.Key] = p
	}
	return all
}

// alike checks that two worlds look alike, and remember the same.
func alike(t testing.TB, a, b *world) {
	t.Helper()
	if one, other := enginetest.Tree(t, a.to.String()), enginetest.Tree(t, b.to.String()); !maps.Equal(one, other) || len(one) < 10 {
		t.Fatalf("one is\n%q\nand the other\n%q", one, other)
	}
	if one, other := a.left(), b.left(); !reflect.DeepEqual(one, other) {
		t.Fatalf("of one is remembered\n%+v\nand of the other\n%+v", one, other)
	}
	var facts [2]Facts
	for i, w := range []*world{a, b} {
		_, err := w.store.Load(FactsName, &facts[i])
		must(t, err)
		facts[i].Identities[plan.Dest] = ""
		if facts[i].Listed.IsZero() {
			t.Error("the listing does not count")
		}
		facts[i].Listed = facts[0].Listed
	}
	if facts[0] != facts[1] {
		t.Fatalf("the facts are %+v and %+v", facts[0], facts[1])
	}
}

// A first copy out of a bucket asks once for each object, on a server that lists metadata
// and on one that does not, and is what one with all attributes listed is.
func TestAFirstCopyAsksForEachObjectOnce(t *testing.T) {
	for name, through := range servers {
		t.Run(name, func(t *testing.T) {
			c, p := through(t, server.Bucket(t, false))
			full(t, c)
			told, _ := out(t, c, true)
			whole, _ := out(t, c, false)
			p.Took()
			r := told.whole()
			asked := p.Took()
			if n := int(r.Seen[plan.Source]); asked["GET object"] != n || asked["HEAD object"] != 0 || asked["GET bucket with metadata"] != 0 || n < 50 {
				t.Errorf("for %d objects it asked %v", n, asked)
			}
			other := whole.whole()
			if asked := p.Took(); asked["HEAD object"]+asked["GET bucket with metadata"] == 0 {
				t.Errorf("the listing of attributes asked %v", asked)
			}
			alike(t, told, whole)
			if !maps.Equal(r.Done, other.Done) || !maps.Equal(r.Bytes, other.Bytes) || r.Seen != other.Seen {
				t.Errorf("one run says\n%+v\nand the other\n%+v", r, other)
			}
			for _, check := range []Check{CheckAuto, CheckListing, CheckAudit} {
				told.idle(check)
			}
		})
	}
}

// Only where nothing is known and nothing is there does what is opened tell all: else it
// would not all be opened.
func TestAttributesAreListedWhereNotAllIsOpened(t *testing.T) {
	c := full(t, server.Bucket(t, false))
	for name, prepare := range map[string]func(*world){
		"something is there": func(w *world) { enginetest.Write(w, w.to.String(), "zz", "x") },
		"a dry run":          func(w *world) { w.job.DryRun = true },
		"an audit":           func(w *world) { w.job.Check = CheckAudit },
		"two-way":            func(w *world) { w.job.Mode, w.job.Trust = plan.TwoWay, plan.TrustHashes },
		"something is known": func(w *world) {
			w.job.Filter = func(path string, _ entry.Kind) bool { return path == "empty" }
			w.whole()
			w.job.Filter, w.job.Check = nil, CheckListing
			must(w, os.Remove(filepath.Join(w.to.String(), "empty")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, from := out(t, c, true)
			prepare(w)
			from.took()
			w.whole()
			if opened := from.took(); len(opened) > 0 {
				t.Errorf("it did %q", opened)
			}
		})
	}
	t.Run("a bucket", func(t *testing.T) {
		w, from := out(t, c, true)
		to := openBucket(t, false, store.Options{})
		w.job.Places[plan.Dest], w.to = to, to
		w.whole()
		w.same()
		if opened := from.took(); len(opened) > 0 {
			t.Errorf("it did %q", opened)
		}
	})
}

// What a dry run says is what the run does that lists names.
func TestADryRunSaysWhatACopyByNamesDoes(t *testing.T) {
	w, from := out(t, full(t, server.Bucket(t, false)), true)
	w.job.DryRun = true
	dry, _ := w.told()
	w.job.DryRun = false
	real, _ := w.told()
	if !slices.Equal(dry, real) || len(from.took()) < 50 {
		t.Errorf("the dry run said\n%s\nand the run did\n%s", strings.Join(dry, "\n"), strings.Join(real, "\n"))
	}
}

// holding is a place that cannot hold all.
type holding struct {
	*spy
	holds func(entry.Entry) error
}

func (h holding) Traits() place.Traits {
	t := h.spy.Traits()
	t.Holds = h.holds
	return t
}

// What the destination cannot hold is known only when it was opened, and told as ever.
func TestWhatCannotBeHeldIsToldThoughNamesAreListed(t *testing.T) {
	c := full(t, server.Bucket(t, false))
	refused := errors.New("not here")
	var worlds [2]*world
	var reports [2]Report
	for i, told := range []bool{true, false} {
		w, from := out(t, c, told)
		w.job.Places[plan.Dest] = holding{w.to, func(e entry.Entry) error {
			if e.Kind == entry.Symlink || e.Kind == entry.CharDevice || e.Mode&0o4000 != 0 || e.Kind == entry.Dir && e.Mode == 0o750 || e.Path == "empty" {
				return refused
			}
			return nil
		}}
		w.job.DryRun = true
		dry, _ := w.told()
		w.job.DryRun = false
		real, r := w.told()
		if worlds[i], reports[i] = w, r; !slices.Equal(dry, real) {
			t.Errorf("the dry run said\n%s\nand the run did\n%s", strings.Join(dry, "\n"), strings.Join(real, "\n"))
		}
		if n := from.open.Load(); n != 0 {
			t.Errorf("%d contents were left open", n)
		}
		keys := map[string]bool{}
		for _, a := range reports[i].Unholdable {
			if keys[a.Key] = true; !errors.Is(a.Err, refused) {
				t.Errorf("%q: %v", a.Key, a.Err)
			}
		}
		for _, key := range []string{"link", "far", "null", "many/03", "d/", "empty"} {
			if !keys[key] {
				t.Errorf("told: %t: %q was not refused: %v", told, key, keys)
			}
		}
	}
	alike(t, worlds[0], worlds[1])
	if !maps.Equal(reports[0].Done, reports[1].Done) || reports[0].Failed > 0 {
		t.Errorf("one run says\n%+v\nand the other\n%+v", reports[0], reports[1])
	}
}

// Between the listing and the opening everything may happen.
func TestWhatChangesBeforeItIsOpened(t *testing.T) {
	c := full(t, server.Bucket(t, false))
	behind, err := store.Open(t.Context(), c, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, behind.Close()) })
	var w *world
	attrs := entry.Entry{Mode: 0o604, UID: 5, GID: 6, MTime: 1_500_000_000_000_000_001}
	write := func(e entry.Entry, content string) {
		have, there, err := behind.Look(t.Context(), e)
		if must(t, err); !there {
			t.Errorf("%q is gone", e.Path)
		}
		e.Mode, e.UID, e.GID, e.MTime, e.Size = attrs.Mode, attrs.UID, attrs.GID, attrs.MTime, int64(len(content))
		_, err = behind.Put(t.Context(), place.Write{Entry: e, Have: have, Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(content)), nil
		}})
		must(t, err)
	}
	w, from := out(t, c, true)
	from.before = func(key string) {
		switch key {
		case "many/00": // another content
			write(entry.Entry{Path: key}, "changed since")
		case "many/01": // another kind
			write(entry.Entry{Path: key, Kind: entry.Symlink, Target: "elsewhere"}, "")
		case "many/02": // gone
			have, _, err := behind.Look(t.Context(), entry.Entry{Path: key})
			must(t, errors.Join(err, behind.Remove(t.Context(), []entry.Entry{have})[0]))
		case "link": // a link becomes a file
			write(entry.Entry{Path: key}, "a file now")
		case "mode": // something comes to be where nothing was
			enginetest.Write(t, w.to.String(), key, "somebody else's")
		}
	}
	r := w.run()
	if n := from.open.Load(); n != 0 {
		t.Errorf("%d contents were left open", n)
	}
	failed := map[string]bool{}
	for _, f := range r.Failures {
		if failed[f.Key] = true; !errors.Is(f.Err, place.ErrChanged) {
			t.Errorf("%q: %v", f.Key, f.Err)
		}
	}
	if !maps.Equal(failed, map[string]bool{"many/02": true, "mode": true}) {
		t.Errorf("failed: %+v", r.Failures)
	}
	tree := enginetest.Tree(t, w.to.String())
	for path, want := range map[string]string{
		"many/00": fmt.Sprintf("100604 5:6 %d changed since", attrs.MTime), "many/01": "link elsewhere",
		"link": fmt.Sprintf("100604 5:6 %d a file now", attrs.MTime), "mode": "somebody else's", "many/02": "",
	} {
		if got := tree[path]; got != want && !(path == "mode" && strings.HasSuffix(got, want)) {
			t.Errorf("%q is %q and not %q", path, got, want)
		}
	}
	from.before = nil
	w.whole() // which looks at what stood in the way
	w.same()
}

// refusing is a place that writes nothing, and does not even read what it should write.
type refusing struct{ *spy }

var errRefused = errors.New("no")

func (refusing) Put(context.Context, place.Write) (entry.Entry, error) {
	return entry.Entry{}, errRefused
}

func TestAContentThatNobodyReadsIsClosed(t *testing.T) {
	w, from := out(t, full(t, server.Bucket(t, false)), true)
	w.job.Places[plan.Dest] = refusing{w.to}
	r := w.run()
	if n := from.open.Load(); n != 0 || r.Failed < 30 || !errors.Is(r.Failures[0].Err, errRefused) {
		t.Errorf("%d contents were left open: %+v", n, r.Failures)
	}
}

// A copy that is cut off is gone on with, and is in the end what it would have been.
func TestACopyByNamesThatIsCutOffIsGoneOnWith(t *testing.T) {
	c := full(t, server.Bucket(t, false))
	whole, _ := out(t, c, false)
	whole.whole()
	for opens := 1; opens < 50; opens += 7 {
		w, from := out(t, c, true)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		n := 0
		from.before = func(string) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == opens {
				cancel()
			}
		}
		if _, err := w.try(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("after %d: %v", opens, err)
		}
		cancel()
		w.reopen()
		from.before = nil
		w.whole()
		if one, other := enginetest.Tree(t, w.to.String()), enginetest.Tree(t, whole.to.String()); !maps.Equal(one, other) {
			t.Fatalf("after %d one is\n%q\nand the other\n%q", opens, one, other)
		}
		w.same()
	}
}

// An item of names only is no use to a place that tells nothing.
func TestAPlaceThatTellsNothingRefusesNames(t *testing.T) {
	w, from := out(t, full(t, server.Bucket(t, false)), false)
	worker := &Worker{Places: [2]place.Place{from.spy, w.to}}
	e := entry.Entry{Path: "empty"}
	dones, err := worker.Do(t.Context(), Item{Names: true, Actions: []plan.Action{{Op: plan.Put, Key: "empty", To: plan.Dest, Source: e}}})
	if err != nil || !errors.Is(dones[0].Err, errNamed) {
		t.Errorf("%+v, %v", dones, err)
	}
	if _, err := os.Lstat(filepath.Join(w.to.String(), "empty")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
}

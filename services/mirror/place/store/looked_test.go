package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// simple opens a new bucket on a server that has no more than S3.
func simple(t testing.TB, o Options) (bucket.Config, *Place, *enginetest.Proxy) {
	t.Helper()
	c, plain := enginetest.Plain(t, newBucket(t, server(t), minio.MakeBucketOptions{}))
	p := opened(t, c, o)
	plain.Took()
	return c, p, plain
}

// listedWith lists all, where this is known.
func listedWith(t testing.TB, p *Place, known iter.Seq2[entry.Entry, error]) map[string]entry.Entry {
	t.Helper()
	all := map[string]entry.Entry{}
	for e, err := range p.Entries(t.Context(), place.ListOptions{Known: known}) {
		must(t, err)
		all[e.Key()] = e
	}
	return all
}

// known streams entries by key, and then an error if there is one.
func known(all map[string]entry.Entry, err error) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if !yield(all[key], nil) {
				return
			}
		}
		if err != nil {
			yield(entry.Entry{}, err)
		}
	}
}

// many fills a bucket with one of each kind and some more.
func many(t testing.TB, p *Place) {
	t.Helper()
	for i := range 26 {
		put(t, p, file(fmt.Sprintf("d/%s%c", strings.Repeat("x", i%7), 'a'+i), "text"))
	}
	_, err := p.MakeDir(t.Context(), entry.Entry{Path: "d", Kind: entry.Dir, Mode: 0o755, MTime: mtime})
	must(t, err)
	for _, e := range []entry.Entry{
		{Path: "far", Kind: entry.Symlink, Target: strings.Repeat("é/", 1000)}, {Path: "link", Kind: entry.Symlink, Target: "d"},
		{Path: "fifo", Kind: entry.Fifo}, {Path: "null", Kind: entry.CharDevice, Device: 259},
	} {
		e.Mode, e.MTime = 0o600, mtime
		_, err := p.Put(t.Context(), place.Write{Entry: e})
		must(t, err)
	}
}

// Where no metadata is listed each object is asked for once, and none of which it is known
// what it is.
func TestWhatIsKnownIsNotLookedAt(t *testing.T) {
	_, p, plain := simple(t, Options{})
	many(t, p)
	plain.Took()
	all := listedWith(t, p, nil)
	// Of a link with a long target the content is asked for, too.
	if asked := plain.Took(); asked["HEAD object"] != len(all) || asked["GET object"] != 1 || len(all) != 31 {
		t.Errorf("%d objects: asked %v", len(all), asked)
	}
	for key, e := range all {
		if e.Change.CTime == 0 || e.Change.OfInode() {
			t.Errorf("nothing tells whether %q changes: %+v", key, e)
		}
	}
	again := listedWith(t, p, known(all, nil))
	if asked := plain.Took(); asked["HEAD object"]+asked["GET object"] != 0 || !reflect.DeepEqual(again, all) {
		t.Errorf("asked %v for\n%v", asked, again)
	}
	// Of what is known of a part only, or not without an error, the rest is asked for.
	part := maps.Clone(all)
	maps.DeleteFunc(part, func(key string, _ entry.Entry) bool { return key > "fifo" || key == "d/" })
	again = listedWith(t, p, known(part, errors.New("damaged")))
	if asked := plain.Took(); asked["HEAD object"] != 3 || !reflect.DeepEqual(again, all) {
		t.Errorf("asked %v for\n%v", asked, again)
	}
}

// Whatever is written is another thing by its time, also where it has the same content.
func TestWhatWasWrittenAgainIsLookedAt(t *testing.T) {
	c, p, plain := simple(t, Options{})
	many(t, p)
	all := listedWith(t, p, nil)
	want := maps.Clone(all)
	now, err := p.SetAttrs(t.Context(), with(all["d/a"], 0o4711), all["d/a"])
	must(t, err)
	want["d/a"] = now
	behind(t, c, "d/xb", "text", minio.PutObjectOptions{}) // without what it was
	delete(want, "d/xb")
	behind(t, c, "aa new one", "text", minio.PutObjectOptions{})
	must(t, errors.Join(p.Remove(t.Context(), []entry.Entry{all["fifo"]})...))
	delete(want, "fifo")
	plain.Took()
	again := listedWith(t, p, known(all, nil))
	if asked := plain.Took(); asked["HEAD object"] != 3 || asked["GET object"] != 0 {
		t.Errorf("asked %v", asked)
	}
	if e := again["d/xb"]; e.Mode != 0o644 || e.MTime == mtime || e.Size != 4 {
		t.Errorf("what others wrote is %+v", e)
	}
	delete(again, "d/xb")
	delete(again, "aa new one")
	for key, e := range want {
		if got := again[key]; !equal(got, e) {
			t.Errorf("%q is %+v and not %+v", key, got, e)
		}
	}
	if len(again) != len(want) {
		t.Errorf("got %v", again)
	}
}

func with(e entry.Entry, mode uint32) entry.Entry {
	e.Mode = mode
	return e
}

// In the second in which an object was written it may be written once more, and then has
// the same time: until that is over nothing tells whether it changed.
func TestWhatWasJustWrittenIsLookedAtAgain(t *testing.T) {
	_, p, plain := simple(t, Options{})
	put(t, p, file("f", "content"))
	plain.Still()
	all := listedWith(t, p, nil)
	if all["f"].Change != (entry.Change{}) {
		t.Errorf("it is %+v", all["f"])
	}
	for name, e := range names(t, p) {
		_, e, err := p.OpenNamed(t.Context(), e)
		if must(t, err); e.Change != (entry.Change{}) {
			t.Errorf("%q is %+v", name, e)
		}
	}
	_, err := p.SetAttrs(t.Context(), with(all["f"], 0o4711), all["f"])
	must(t, err)
	if e := listedWith(t, p, known(all, nil))["f"]; e.Mode != 0o4711 {
		t.Errorf("it is %+v", e)
	}
}

// Size, ETag and time must all be what they were.
func TestWhatTellsThatNothingChanged(t *testing.T) {
	was := entry.Entry{Path: "b", Size: 4, Mode: 0o600, Sum: entry.Sum{Has: entry.HasETag, ETag: "one"}, Change: entry.Change{CTime: 7}}
	as := entry.Entry{Path: "b", Size: 4, MTime: 7, Sum: was.Sum}
	link := was
	link.Kind, link.Target, link.Size = entry.Symlink, "far", 3
	altered := func(e entry.Entry, by func(*entry.Entry)) entry.Entry {
		by(&e)
		return e
	}
	for name, c := range map[string]struct {
		was, listed entry.Entry
		told        bool
	}{
		"same":         {was, as, true},
		"another time": {was, altered(as, func(e *entry.Entry) { e.MTime++ }), false},
		"another ETag": {was, altered(as, func(e *entry.Entry) { e.Sum.ETag = "other" }), false},
		"another size": {was, altered(as, func(e *entry.Entry) { e.Size++ }), false},
		"a link":       {link, as, true}, // its size is its target's
		"another key":  {altered(was, func(e *entry.Entry) { e.Path = "a" }), as, false},
		"nothing told": {altered(was, func(e *entry.Entry) { e.Change = entry.Change{} }), as, false},
		"an inode":     {altered(was, func(e *entry.Entry) { e.Change.Inode = 5 }), as, false},
	} {
		m := remember(known(map[string]entry.Entry{"b": c.was}, nil))
		got := c.listed
		if told := m.tells(&got); told != c.told || told && !reflect.DeepEqual(got, c.was) || !told && !reflect.DeepEqual(got, c.listed) {
			t.Errorf("%s: %t, %+v", name, told, got)
		}
		m.stop()
	}
}

// An object that was replaced after it was listed has the time of what replaced it, and
// nothing that a later listing would show again.
func TestWhatWasReplacedSinceItWasListed(t *testing.T) {
	_, p, _ := simple(t, Options{})
	listed := entry.Entry{Path: "f", Size: 4, MTime: 5e9, Sum: entry.Sum{Has: entry.HasETag, ETag: "one"}}
	now := bucket.Object{Key: "f", Size: 4, ETag: "other", LastModified: time.Unix(9, 0), Asked: time.Unix(100, 0)}
	e, err := p.asListed(listed, now)
	if err != nil || e.MTime != 9e9 || e.Change != (entry.Change{}) {
		t.Errorf("%+v, %v", e, err)
	}
	now.ETag = "one"
	e, err = p.asListed(listed, now)
	if err != nil || e.MTime != 5e9 || e.Change != (entry.Change{CTime: 5e9}) {
		t.Errorf("%+v, %v", e, err)
	}
	// A server that does not say what time it is tells nothing.
	now.Asked = time.Time{}
	if e, err = p.asListed(listed, now); err != nil || e.Change != (entry.Change{}) {
		t.Errorf("%+v, %v", e, err)
	}
}

// What goes while a bucket is listed is left out, what is left out by the filter is not
// asked for, and whoever ends early leaves nothing behind.
func TestLookingWhileOthersRemove(t *testing.T) {
	c, p, plain := simple(t, Options{})
	many(t, p)
	plain.Took()
	n := 0
	for e, err := range p.Entries(t.Context(), place.ListOptions{Filter: func(path string, kind entry.Kind) bool { return kind == entry.Dir || path == "link" }}) {
		if must(t, err); e.Kind != entry.Dir && e.Kind != entry.Symlink {
			t.Errorf("it gives %+v", e)
		}
		n++
	}
	if asked := plain.Took(); asked["HEAD object"] != 2 || n != 2 {
		t.Errorf("for %d entries it asked %v", n, asked)
	}
	var once sync.Once
	racing := opened(t, proxy(t, c, func(q *http.Request) {
		if q.Method == http.MethodHead && strings.HasSuffix(q.URL.Path, "/null") {
			once.Do(func() {
				must(t, admin(t, c).RemoveObject(t.Context(), c.Bucket, "null", minio.RemoveObjectOptions{}))
			})
		}
	}, nil), Options{})
	all, errs := listed(t, racing)
	if _, there := all["null"]; there || len(all) != 30 || len(errs) > 0 {
		t.Errorf("got %v, %v", all, errs)
	}
	for range p.Entries(t.Context(), place.ListOptions{Known: known(all, nil)}) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, last = range p.Entries(ctx, place.ListOptions{}) {
		cancel()
	}
	wants(t, last, context.Canceled)
}

// narrow lets one at a time.
type narrow struct {
	room  chan struct{}
	turns atomic.Int64
}

func (n *narrow) Acquire(ctx context.Context) error {
	select {
	case n.room <- struct{}{}:
		n.turns.Add(1)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *narrow) Release() { <-n.room }

func TestLookingKeepsThePace(t *testing.T) {
	c, p, _ := simple(t, Options{})
	many(t, p)
	pace := &narrow{room: make(chan struct{}, 1)}
	var under, crowded atomic.Int64
	paced := opened(t, proxy(t, c, func(q *http.Request) {
		if q.Method == http.MethodHead && under.Add(1) > 1 {
			crowded.Add(1)
		}
	}, func(r *http.Response) error {
		if r.Request.Method == http.MethodHead {
			under.Add(-1)
		}
		return nil
	}), Options{Pace: pace})
	if all := listedWith(t, paced, nil); len(all) != 31 || pace.turns.Load() != 31 || crowded.Load() > 0 || len(pace.room) != 0 {
		t.Errorf("%d objects, %d turns, %d too early", len(all), pace.turns.Load(), crowded.Load())
	}
}

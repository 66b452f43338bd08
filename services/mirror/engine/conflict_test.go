package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// twin is a world with another state and the same places.
func (w *world) twin() *world {
	w.Helper()
	other := &world{TB: w.TB, dir: w.dir, from: w.from, to: w.to, state: w.TempDir()}
	job := *w.job
	other.job = &job
	other.reopen()
	w.Cleanup(func() { must(w, other.store.Close()) })
	return other
}

// overtaken has something happen before the first item is carried out, of what was planned
// before that.
func (w *world) overtaken(first func(), change func(*Item)) {
	var once sync.Once
	w.pool = func(p Pool) Pool {
		return poolFunc{p, func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
			once.Do(first)
			if change != nil {
				change(&it)
			}
			return do(ctx, it)
		}}
	}
}

// What another run with the same source has just written is no failure, however it is
// written, and is remembered as if it had been there.
func TestWhatAnotherRunWroteJustSoIsDone(t *testing.T) {
	for name, open := range map[string]func() *spy{
		"directory": func() *spy { return openLocal(t, t.TempDir()) },
		"bucket":    func() *spy { return openBucket(t, false, store.Options{}) },
		"plain bucket": func() *spy {
			c, _ := enginetest.Plain(t, server.Bucket(t, false))
			p, err := store.Open(t.Context(), c, store.Options{})
			must(t, err)
			t.Cleanup(func() { must(t, p.Close()) })
			return &spy{Place: p}
		},
	} {
		for how, change := range map[string]func(*Item){"batches": nil, "alone": func(it *Item) { it.Single = true }} {
			t.Run(name+" "+how, func(t *testing.T) {
				w := between(t, plan.Mirror, open())
				for i := range 30 {
					w.write(fmt.Sprintf("%s/d/f%02d", how, i), fmt.Sprint("content ", i))
				}
				w.write(how+"/empty", "")
				w.write(how+"/large", strings.Repeat("0123456789abcdef", 1<<17))
				must(t, os.Symlink("d", filepath.Join(w.dir, how, "link")))
				other := w.twin()
				w.overtaken(func() { other.whole() }, change)
				if r := w.whole(); r.Done[plan.Equal] < 33 || r.Done[plan.Put] > 0 {
					t.Errorf("got %+v", r.Done)
				}
				w.same()
				w.pool = nil
				for _, check := range []Check{CheckState, CheckListing} {
					w.idle(check)
				}
				for p, err := range w.store.Past() {
					must(t, err)
					if p.Source.Kind == entry.File && p.Source.Sum.Shared(p.Dest.Sum).Has == 0 {
						t.Errorf("nothing is known of %q", p.Key)
					}
				}
			})
		}
	}
}

// The same in parts, of the same size and of another one, of which nothing is left over.
func TestWhatAnotherRunWroteInPartsIsDone(t *testing.T) {
	for _, size := range []int64{5 << 20, 6 << 20} {
		c := server.Bucket(t, false)
		p, err := store.Open(t.Context(), c, store.Options{PartsAbove: 6 << 20})
		must(t, err)
		t.Cleanup(func() { must(t, p.Close()) })
		w := between(t, plan.Mirror, &spy{Place: p})
		w.write("large", strings.Repeat("0123456789abcdef", 11<<16))
		other := w.twin()
		other.pool = func(Pool) Pool {
			return Local{Worker: &Worker{Places: other.job.Places, PartSize: size}}
		}
		w.overtaken(func() { other.whole() }, nil)
		w.whole()
		w.same()
		for u := range enginetest.Client(t, c).ListIncompleteUploads(t.Context(), c.Bucket, "", true) {
			t.Errorf("parts of %d bytes: left over: %+v", size, u)
		}
		w.pool = nil
		w.idle(CheckListing)
	}
}

func content(text string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
}

// What somebody else wrote otherwise stays, and the failure says what that looks like.
func TestWhatAnotherWroteOtherwiseStays(t *testing.T) {
	for _, how := range []string{"content", "mode"} {
		for _, single := range []bool{false, true} {
			targets(t, func(t *testing.T, to *spy) {
				w := between(t, plan.Mirror, to)
				path := fmt.Sprint(how, single)
				for i := range 10 { // a batch
					w.write(fmt.Sprintf("%s/%d", path, i), "mine")
				}
				var theirs map[string]string
				w.overtaken(func() {
					for e, err := range w.from.Entries(t.Context(), place.ListOptions{}) {
						must(t, err)
						if e.Kind != entry.File {
							continue
						}
						if how == "mode" {
							e.Mode = 0o604
						}
						write := place.Write{Entry: e, Open: content("mine")}
						if how == "content" {
							write.Open = content("them")
						}
						_, err = to.Place.Put(t.Context(), write)
						must(t, err)
					}
					theirs = holds(t, to)
				}, func(it *Item) { it.Single = single })
				r := w.run()
				if r.Failed != 10 || r.Done[plan.Equal] > 0 {
					t.Errorf("%s: got %+v", path, r)
				}
				for _, f := range r.Failures {
					if !errors.Is(f.Err, place.ErrChanged) || !strings.Contains(f.Err.Error(), "maybe another mirror") {
						t.Errorf("%s: %v", f.Key, f.Err)
					}
				}
				for key, what := range holds(t, to) {
					if theirs[key] != what && !strings.HasSuffix(key, "/") {
						t.Errorf("%s was %s and is %s", key, theirs[key], what)
					}
				}
				w.pool, w.job.Check = nil, CheckAudit // as its times tell nothing
				w.whole()
				w.same()
			})
		}
	}
}

// What has arrived is known by its content, whatever its attributes are; and never by
// what was to be copied, once that is another one.
func TestWhatHasArrivedIsKnownByItsContent(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		w.write("f", "mine")
		want, there, err := w.from.Look(t.Context(), entry.Entry{Path: "f", Kind: entry.File})
		if err != nil || !there {
			t.Fatal(there, err)
		}
		worker := &Worker{Places: w.job.Places}
		put := func(text string) {
			t.Helper()
			theirs := want
			theirs.Mode = 0o604
			have, _, err := to.Look(t.Context(), want)
			must(t, err)
			_, err = to.Place.Put(t.Context(), place.Write{Entry: theirs, Have: have, Open: content(text)})
			must(t, err)
		}
		for _, op := range []plan.Op{plan.Put, plan.Meta} {
			arrived := func() (plan.Action, bool, error) {
				a := plan.Action{Op: op, Key: "f", To: plan.Dest, Source: want}
				got, err := worker.Arrived(t.Context(), &a)
				return a, got, err
			}
			have, there, err := to.Look(t.Context(), want)
			must(t, err)
			if there {
				must(t, to.Remove(t.Context(), []entry.Entry{have})[0])
			}
			if a, got, err := arrived(); got || err != nil {
				t.Errorf("%s, and nothing there: %+v, %v", op, a, err)
			}
			put("them")
			if a, got, err := arrived(); got || err != nil || a.Dest.Size != 0 || a.Source.Sum.Has != 0 {
				t.Errorf("%s, and another content: %+v, %v", op, a, err)
			}
			put("mine")
			a, got, err := arrived()
			known, same := a.Source.Sum.SameAs(a.Dest.Sum)
			if !got || err != nil || a.Op != op || a.Dest.Mode&0o777 != 0o604 || !known || !same || !a.Dest.Sum.Contains(entry.HasBLAKE3) {
				t.Errorf("%s: %+v, %v, %v", op, a, got, err)
			}
		}
		w.write("f", "them")
		a := plan.Action{Op: plan.Put, Key: "f", To: plan.Dest, Source: want}
		if got, err := worker.Arrived(t.Context(), &a); got || !errors.Is(err, place.ErrChanged) {
			t.Errorf("of a source that has changed: %v, %v", got, err)
		}
	})
}

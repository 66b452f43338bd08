package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

func TestRunMakesTheDestinationLikeTheSource(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		w.grow()
		r := w.whole()
		if r.Check != CheckListing || !r.Changed || r.Seen[plan.Dest] != 0 {
			t.Fatalf("the first run: %+v", r)
		}
		w.same()
		w.idle(CheckAuto)
		w.reopen()
		for _, c := range []Check{CheckState, CheckListing, CheckAudit, CheckState, CheckListing} {
			w.idle(c)
		}
		w.same()
	})
}

// A listing that has only names must not make the next run believe that the
// destination has other attributes.
func TestAListingOfNamesKeepsWhatIsRemembered(t *testing.T) {
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{}))
	w.grow()
	w.whole()
	w.idle(CheckListing)
	before := w.past()
	w.idle(CheckListing)
	if r := w.whole(); r.Changed {
		t.Error("a run that found nothing changed what is remembered")
	}
	if after := w.past(); !maps.Equal(before, after) {
		t.Errorf("remembered before\n%v\nafter\n%v", strings.Join(lines(before), "\n"), strings.Join(lines(after), "\n"))
	}
}

func (w *world) past() map[string]string {
	w.Helper()
	all := map[string]string{}
	for p, err := range w.store.Past() {
		must(w, err)
		all[p.Key] = fmt.Sprintf("%+v %+v", p.Source, p.Dest)
	}
	return all
}

// What is in the bucket already, and is not remembered, is not uploaded again, and
// gets its attributes at once.
func TestANamelessObjectIsLookedAt(t *testing.T) {
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{}))
	w.write("a", "known")
	w.whole()
	w.write("b", "one content")
	e := entry.Entry{Path: "b", Size: 11}
	_, err := w.to.Place.Put(t.Context(), place.Write{Entry: e, Open: opener("one content")})
	must(t, err)
	w.to.took()
	w.job.Check = CheckListing
	w.whole()
	if took := w.to.took(); !slices.Equal(took, []string{"meta b"}) {
		t.Fatalf("it did %q", took)
	}
	w.same()
	w.idle(CheckState)
}

func TestEachCheckSeesWhatItShould(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		w.write("a", "one")
		w.write("b", "two")
		w.whole()
		var b entry.Entry
		for e, err := range to.Place.Entries(t.Context(), place.ListOptions{}) {
			must(t, err)
			if e.Path == "b" {
				b = e
			}
		}
		must(t, errors.Join(to.Place.Remove(t.Context(), []entry.Entry{b})...))
		w.idle(CheckState) // which does not look
		w.job.Check = CheckListing
		w.to.took()
		w.whole()
		if took := w.to.took(); !slices.Equal(took, []string{"put b"}) {
			t.Fatalf("it did %q", took)
		}
		w.same()
	})
}

// What was left lies on a disk that is not there: writing to what is there instead
// would make a copy that nobody looks for.
func TestAnotherDestinationIsRefusedUntilItIsAccepted(t *testing.T) {
	w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
	w.write("a", "one")
	w.whole()
	w.to = openLocal(t, t.TempDir())
	w.job.Places[plan.Dest] = w.to
	w.job.Check = CheckState
	if _, err := w.try(t.Context()); !isJobError(err, "Places") || len(w.to.took()) > 0 {
		t.Fatalf("got %v, %q", err, w.to.took())
	}
	w.job.AcceptPlaces = true
	if r := w.whole(); r.Check != CheckListing || r.Done[plan.Put] != 1 {
		t.Fatalf("got %+v", r)
	}
	w.job.AcceptPlaces = false
	w.whole()
	w.same()
}

// A bucket that was rebuilt from another copy has the same names and ETags, and lost
// what other programs do not know of: modes, owners and times.
func TestAnAcceptedPlaceIsLookedAtInFull(t *testing.T) {
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{}))
	w.write("a", "one")
	must(t, os.Chmod(filepath.Join(w.dir, "a"), 0o600))
	w.whole()
	rebuilt := server.Bucket(t, false)
	_, err := enginetest.Client(t, rebuilt).PutObject(t.Context(), rebuilt.Bucket, "a", strings.NewReader("one"), 3, minio.PutObjectOptions{})
	must(t, err)
	p, err := store.Open(t.Context(), rebuilt, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	w.to = &spy{Place: p}
	w.job.Places[plan.Dest] = w.to
	w.job.AcceptPlaces = true
	if r := w.whole(); r.Done[plan.Meta] != 1 || r.Done[plan.Put] != 0 {
		t.Errorf("got %+v", r)
	}
	w.same()
}

func isJobError(err error, field string) bool {
	e, ok := errors.AsType[*JobError](err)
	return ok && e.Field == field
}

// A failure in a run that did not look may mean that it should have.
func TestAFailureIsFollowedByAListing(t *testing.T) {
	w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
	w.write("a", "one")
	w.whole()
	enginetest.Write(t, w.to.String(), "a", "edited behind")
	w.write("a", "two")
	if r := w.run(); r.Check != CheckState || r.Failed != 1 || !errors.Is(r.Failures[0].Err, place.ErrChanged) {
		t.Fatalf("got %+v", r)
	}
	if r := w.whole(); r.Check != CheckListing {
		t.Fatalf("got %+v", r)
	}
	w.same()
}

func TestDeletesAreLastAndGuarded(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		w.job.Guards.Scans = 2
		w.grow()
		w.whole()
		w.remove("many")
		w.remove("d")
		w.write("d", "a file now")
		w.to.took()
		var order []string
		w.job.Each = func(d Done) { order = append(order, d.Action.Op.String()) }
		// A file has the place of what was in d, which is missing for sure.
		if r := w.run(); r.Done[plan.Delete] != 4 || r.Done[plan.Keep] != 21 {
			t.Fatalf("after one scan: %+v", r)
		}
		w.write("new", "x")
		order = nil
		r := w.whole()
		if r.Done[plan.Delete] != 21 {
			t.Fatalf("after two scans: %+v", r)
		}
		first := slices.Index(order, "delete")
		if at := slices.Index(order, "put"); at < 0 || at > first {
			t.Errorf("in the order %q", order)
		}
		w.same()
		w.idle(CheckListing)
	})
}

func TestDeletesAreHeldBackWhenSomethingFailed(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		w.grow()
		w.whole()
		w.remove("many/05")
		w.write("bad", "cannot be read")
		unreadable := errors.New("the disk has a hole")
		w.from.opened = func(key string) error {
			if key == "bad" {
				return unreadable
			}
			return nil
		}
		r := w.run()
		if r.Failed != 1 || r.HeldBack != 1 || r.Done[plan.Delete] != 0 || !errors.Is(r.Failures[0].Err, unreadable) || r.Whole() {
			t.Fatalf("got %+v", r)
		}
		w.from.opened = nil
		if r := w.whole(); r.Done[plan.Delete] != 1 {
			t.Fatalf("then %+v", r)
		}
		w.same()
	})
}

// A delete that fails keeps nobody else from being deleted.
func TestAFailedDeleteHoldsNothingBack(t *testing.T) {
	to := openLocal(t, t.TempDir())
	w := between(t, plan.Mirror, to)
	w.grow()
	w.whole()
	w.remove("many/05")
	w.remove("empty")
	w.job.Check = CheckState
	enginetest.Write(t, to.String(), "empty", "touched behind")
	r := w.run()
	if r.Failed != 1 || r.Failures[0].Op != plan.Delete || r.Done[plan.Delete] != 1 || r.HeldBack != 0 {
		t.Fatalf("got %+v", r)
	}
	if _, err := os.Stat(filepath.Join(to.String(), "empty")); err != nil {
		t.Error("what was touched is gone")
	}
}

func TestTwoWay(t *testing.T) {
	w := between(t, plan.TwoWay, openBucket(t, true, store.Options{}))
	w.grow()
	w.whole()
	w.same()
	w.idle(CheckListing)
	put := func(path, content string) {
		t.Helper()
		e := entry.Entry{Path: path, Size: int64(len(content)), Mode: 0o644, MTime: 1e18}
		have, _, err := w.to.Look(t.Context(), e)
		must(t, err)
		_, err = w.to.Place.Put(t.Context(), place.Write{Entry: e, Have: have, Open: opener(content)})
		must(t, err)
	}
	put("from/the/bucket", "new")
	put("many/01", "edited there")
	put("both", "there")
	w.write("many/02", "edited here")
	w.write("both", "here")
	w.remove("many/03")
	gone, _, err := w.to.Look(t.Context(), entry.Entry{Path: "many/04"})
	must(t, err)
	must(t, w.to.Place.Remove(t.Context(), []entry.Entry{gone})[0])
	r := w.run()
	if r.Done[plan.Conflict] != 1 || r.Conflicts[0].Key != "both" || r.Failed != 0 || r.Done[plan.Delete] != 2 {
		t.Fatalf("got %+v", r)
	}
	w.remove("both")
	if r = w.whole(); r.Done[plan.Put] != 1 { // nothing was remembered of it, so it comes back
		t.Fatalf("then %+v", r)
	}
	w.same()
}

// A directory that a file made on its way is not one that both sides created.
func TestTwoWayDirectoriesComeFirst(t *testing.T) {
	w := between(t, plan.TwoWay, openLocal(t, t.TempDir()))
	w.write("d/e/f", "x")
	must(t, errors.Join(os.Chmod(filepath.Join(w.dir, "d"), 0o700), os.Chmod(filepath.Join(w.dir, "d/e"), 0o710)))
	stop := errors.New("stop")
	w.pool = func(next Pool) Pool {
		return poolFunc{next, func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
			if it.Actions[0].Op == plan.MakeDir {
				dones, err := do(ctx, it)
				return dones, err
			}
			if !it.Single {
				t.Error("a two-way run asked for a batch")
			}
			_, err := do(ctx, it)
			return nil, errors.Join(err, stop) // and nobody hears of it
		}}
	}
	if _, err := w.try(t.Context()); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	w.reopen()
	w.pool = nil
	w.whole()
	w.same()
}

func opener(content string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
}

func TestAnInterruptedRunGoesOnWhereItWas(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		const files = 300
		for i := range files {
			w.write(fmt.Sprintf("d%d/%03d", i/50, i), fmt.Sprint("content ", i))
		}
		small := to.Place
		to.Place = fewer{small}
		for n := 1; n <= 3; n++ {
			ctx, cancel := context.WithCancel(t.Context())
			var mu sync.Mutex
			items := 0
			w.pool = func(next Pool) Pool {
				return poolFunc{next, func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
					dones, err := do(ctx, it)
					mu.Lock()
					defer mu.Unlock()
					if items++; items == 2*n {
						cancel()
					}
					return dones, err
				}}
			}
			if _, err := w.try(ctx); !errors.Is(err, context.Canceled) {
				t.Fatalf("run %d: got %v", n, err)
			}
			w.reopen()
		}
		w.pool = nil
		if r := w.whole(); r.Done[plan.Put] == files {
			t.Error("the last run copied everything")
		}
		again := map[string]int{}
		for _, done := range to.took() {
			if key, ok := strings.CutPrefix(done, "put "); ok {
				again[key]++
			}
		}
		twice := 0
		for _, n := range again {
			twice += n - 1
		}
		if most := 3 * 2 * 10; len(again) != files || twice > most {
			t.Errorf("%d files were put, %d once more, at most %d were in flight", len(again), twice, most)
		}
		to.Place = small
		w.same()
		w.idle(CheckListing)
	})
}

// fewer is a place with small batches.
type fewer struct{ place.Place }

func (f fewer) Traits() place.Traits {
	t := f.Place.Traits()
	t.Batch, t.BatchBytes, t.Small = 10, 1<<20, 128<<10
	return t
}

func TestAPoolThatFailsEndsTheRun(t *testing.T) {
	broken := errors.New("nobody works here")
	for name, answer := range map[string]struct {
		do   func([]Done) ([]Done, error)
		want error
	}{
		"an error":       {func([]Done) ([]Done, error) { return nil, broken }, broken},
		"too few":        {func(d []Done) ([]Done, error) { return d[1:], nil }, ErrPool},
		"too many":       {func(d []Done) ([]Done, error) { return append(d, d...), nil }, ErrPool},
		"another action": {func(d []Done) ([]Done, error) { d[0].Action.Key = "other"; return d, nil }, ErrPool},
	} {
		t.Run(name, func(t *testing.T) {
			w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
			for i := range 40 {
				w.write(fmt.Sprintf("%03d", i), "x")
			}
			w.pool = func(next Pool) Pool {
				return poolFunc{next, func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
					dones, err := do(ctx, it)
					if err != nil {
						return dones, err
					}
					return answer.do(dones)
				}}
			}
			if r, err := w.try(t.Context()); !errors.Is(err, answer.want) || r.Done[plan.Put] != 0 {
				t.Errorf("%v, %+v", err, r)
			}
			w.reopen()
			var f Facts
			if _, err := w.store.Load(FactsName, &f); err != nil || !f.Unfinished || f.Identities[plan.Dest] == "" {
				t.Errorf("then it remembers %+v, %v", f, err)
			}
			w.pool = nil
			if r := w.whole(); r.Check != CheckListing {
				t.Errorf("the next run did not look: %+v", r)
			}
			w.same()
			f = Facts{}
			if _, err := w.store.Load(FactsName, &f); err != nil || f.Unfinished {
				t.Errorf("at the end it remembers %+v, %v", f, err)
			}
		})
	}
}

func TestItemsAreNumbered(t *testing.T) {
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{Batch: 8}))
	w.grow()
	w.whole()
	for i := range 20 { // edits that only a hash shows, and whose items give birth to others
		path := filepath.Join(w.dir, fmt.Sprintf("many/%02d", i))
		st, err := os.Stat(path)
		must(t, err)
		must(t, errors.Join(os.WriteFile(path, []byte(fmt.Sprint("CONTENT ", i)), 0o644), os.Chtimes(path, st.ModTime(), st.ModTime())))
	}
	var mu sync.Mutex
	seen := map[int64]bool{}
	w.pool = func(next Pool) Pool {
		return poolFunc{next, func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
			mu.Lock()
			if seen[it.Seq] || it.Seq <= 0 {
				t.Errorf("the number %d twice", it.Seq)
			}
			seen[it.Seq] = true
			mu.Unlock()
			return do(ctx, it)
		}}
	}
	if r := w.whole(); r.Done[plan.Put] != 20 || len(seen) < 2 {
		t.Errorf("%d items, %+v", len(seen), r)
	}
	w.same()
}

// Same size, kept time: only the inode's change tells (mc#2187, restic#2179).
func TestRehashSettles(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		w.write("edited", "one")
		w.write("touched", "one")
		w.whole()
		for path, content := range map[string]string{"edited": "two", "touched": "one"} {
			path = filepath.Join(w.dir, path)
			st, err := os.Stat(path)
			must(t, err)
			must(t, errors.Join(os.WriteFile(path, []byte(content), 0o644), os.Chtimes(path, st.ModTime(), st.ModTime())))
		}
		to.took()
		r := w.whole()
		if took := to.took(); !slices.Equal(took, []string{"put edited"}) || r.Done[plan.Equal] != 1 || r.Done[plan.Rehash] != 0 {
			t.Fatalf("it did %q: %+v", took, r)
		}
		w.same()
		w.idle(CheckState)
	})
}

func TestAFileThatChangesWhileItIsRead(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		w.write("once", strings.Repeat("a", 3000))
		w.write("always", strings.Repeat("a", 3000))
		w.write("still", strings.Repeat("a", 3000))
		var mu sync.Mutex
		times := map[string]int{}
		w.from.after = func(key string) {
			mu.Lock()
			defer mu.Unlock()
			if times[key]++; key == "always" || key == "once" && times[key] == 1 {
				w.write(key, strings.Repeat(string(rune('b'+times[key])), 3000))
			}
		}
		r := w.run()
		if r.Failed != 1 || r.Failures[0].Key != "always" || !errors.Is(r.Failures[0].Err, place.ErrChanged) || r.Done[plan.Put] != 2 {
			t.Fatalf("got %+v", r)
		}
		stored := holds(t, to)
		if _, torn := stored["always"]; torn || len(stored) != 2 {
			t.Errorf("it holds %v", stored)
		}
		w.from.after = nil
		w.whole()
		w.same()
	})
}

func TestLargeFilesGoInParts(t *testing.T) {
	w := between(t, plan.Mirror, openBucket(t, false, store.Options{PartsAbove: 6 << 20}))
	w.write("large", strings.Repeat("0123456789abcdef", 11<<16)) // 11 MiB: 5, 5 and 1
	w.write("torn", strings.Repeat("0123456789abcdef", 7<<16))
	w.from.after = func(key string) {
		if key == "torn" {
			w.write("torn", strings.Repeat("fedcba9876543210", 7<<16))
		}
	}
	r := w.run()
	if r.Failed != 1 || r.Failures[0].Key != "torn" || !errors.Is(r.Failures[0].Err, place.ErrChanged) {
		t.Fatalf("got %+v", r)
	}
	if took := strings.Join(w.to.took(), ","); strings.Count(took, "start torn") != DefaultTries || strings.Count(took, "abort") != DefaultTries {
		t.Errorf("it did %q", took)
	}
	w.from.after = nil
	w.whole()
	w.same()
	w.idle(CheckListing)
	defer w.idle(CheckAudit)
	for p, err := range w.store.Past() {
		must(t, err)
		if s := p.Source.Sum; s.Contains(entry.HasETag) || !s.Contains(entry.HasCRC32C) {
			t.Errorf("of the source of %q it remembers %+v", p.Key, s)
		}
		if s := p.Dest.Sum; !s.Contains(entry.HasETag|entry.HasPartSize) || s.PartSize != 5<<20 {
			t.Errorf("of the destination of %q it remembers %+v", p.Key, s)
		}
	}
}

// What is in the way on the other side does not become right by uploading it again.
func TestADestinationThatChangedIsNotTriedAgain(t *testing.T) {
	w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
	w.write("a", "one")
	w.whole()
	w.to.took()
	w.write("a", "two")
	enginetest.Write(t, w.to.String(), "a", "edited behind")
	w.job.Check = CheckState
	if r := w.run(); r.Failed != 1 {
		t.Fatalf("got %+v", r)
	}
	if took := w.to.took(); len(took) != 1 {
		t.Errorf("it did %q", took)
	}
}

func TestAnotherModeNeedsAnotherPast(t *testing.T) {
	w := between(t, plan.TwoWay, openLocal(t, t.TempDir()))
	w.write("a", "one")
	w.whole()
	w.job.Mode = plan.Mirror
	_, err := w.try(t.Context())
	if e, ok := errors.AsType[*JobError](err); !ok || e.Field != "Mode" || e.Fix == "" || !errors.Is(err, ErrJob) {
		t.Errorf("got %v", err)
	}
	for _, j := range []Job{{}, {Places: w.job.Places}} {
		if _, err := j.Run(t.Context()); !errors.Is(err, ErrJob) {
			t.Errorf("got %v", err)
		}
	}
}

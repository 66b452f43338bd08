package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/local"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// diskFull is what a directory says whose disk is full.
func diskFull(w place.Write) error {
	return &local.Error{Op: "write", Path: w.Entry.Path, Err: unix.ENOSPC}
}

// A place that takes nothing is not asked thousands of times; nothing is deleted, and the
// next run goes on.
func TestARunGivesUpOnWhatRefusesEverything(t *testing.T) {
	w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
	w.write("old", "content")
	w.whole()
	w.remove("old")
	const n = 3000
	for i := range n {
		w.write(fmt.Sprintf("d%d/f%04d", i%3, i), "content")
	}
	var tried atomic.Int64
	w.to.refuses = func(write place.Write) error {
		tried.Add(1)
		return diskFull(write)
	}
	r, err := w.try(t.Context())
	gave, ok := errors.AsType[*GaveUpError](err)
	if !ok || !errors.Is(err, unix.ENOSPC) || len(gave.Dirs) != 3 || gave.Op != plan.Put || gave.Refused+gave.NotTried != n {
		t.Fatalf("got %+v, %v", gave, err)
	}
	if tried.Load() != r.Failed || r.Failed != gave.Refused || r.Failed < mostRefusals || r.Failed > 2*(mostRefusals+DefaultParallel)+2*3 || r.NotTried != n-r.Failed {
		t.Errorf("%d tried, %d failed, %d not tried", tried.Load(), r.Failed, r.NotTried)
	}
	if len(r.Causes) != 1 || r.Causes[0].Count != r.Failed || len(r.Causes[0].Keys) != keepKeys || !strings.Contains(r.Causes[0].Why, "free space") {
		t.Errorf("causes: %+v", r.Causes)
	}
	if r.Whole() || r.Done[plan.Delete] > 0 || r.HeldBack != 1 {
		t.Errorf("got %+v", r)
	}
	for _, part := range []string{fmt.Sprint(gave.NotTried, " more were not tried"), "nothing was deleted", "no space left", "run it again"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v: it lacks %q", err, part)
		}
	}
	w.to.refuses = nil
	w.reopen()
	if r = w.whole(); r.Check != CheckListing || r.Done[plan.Put] != n || r.Done[plan.Delete] != 1 {
		t.Errorf("the next run: %+v", r)
	}
	w.same()
}

// Where some directories take nothing, what lies elsewhere is copied, wherever it comes.
func TestARefusedDirectoryKeepsNoOthersBack(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		w.write("a/a", "taken before the others")
		for i := range 1500 {
			w.write(fmt.Sprintf("b/%d/f%04d", i%3, i), "content")
		}
		for i := range 20 {
			w.write(fmt.Sprintf("c/f%d", i), "content")
			w.write(fmt.Sprintf("b/9/f%d", i), "content")
		}
		w.job.Places[plan.Dest] = single{to}
		to.refuses = func(write place.Write) error {
			if strings.HasPrefix(write.Entry.Path, "b/") && !strings.HasPrefix(write.Entry.Path, "b/9") {
				return diskFull(write)
			}
			return nil
		}
		r, err := w.try(t.Context())
		gave, ok := errors.AsType[*GaveUpError](err)
		if !ok || len(gave.Dirs) != 3 || r.Done[plan.Put] != 41 || r.Failed+r.NotTried != 1500 || r.NotTried < 500 || !strings.Contains(err.Error(), `such as in "b/0/"`) {
			t.Fatalf("got %v: %d copied, %d failed, %d not tried", err, r.Done[plan.Put], r.Failed, r.NotTried)
		}
		to.refuses = nil
		if r = w.whole(); r.Done[plan.Put] != 1500 {
			t.Errorf("the next run: %+v", r.Done)
		}
		w.same()
	})
}

// A place that takes nothing is not tried once for each of very many directories.
func TestARunGivesUpOnVeryManyDirectories(t *testing.T) {
	var r refusals
	tried := 0
	const n = 10 * mostDirs
	for i := range n {
		a := plan.Action{Op: plan.Put, To: plan.Dest, Key: fmt.Sprintf("d%d/f", i)}
		if r.spared(&a) {
			continue
		}
		tried++
		r.note(&a, &local.Error{Op: "write", Path: a.Key, Err: unix.EROFS})
	}
	if tried != mostDirs {
		t.Errorf("%d of %d were tried", tried, n)
	}
	other := plan.Action{Op: plan.MakeDir, To: plan.Dest, Key: "d/"}
	if r.stops(&other) {
		t.Error("directories were not refused")
	}
	late := plan.Action{Op: plan.Put, To: plan.Dest, Key: "late"}
	if !r.stops(&late) {
		t.Error("it goes on")
	}
	r.note(&late, nil)
	if r.stops(&late) {
		t.Error("something was taken, and it does not go on")
	}
	gave, ok := errors.AsType[*GaveUpError](r.err([2]place.Place{plan.Dest: made{}}))
	if !ok || gave.Refused != mostDirs || gave.NotTried != n-mostDirs {
		t.Errorf("got %+v", gave)
	}
}

// single is a place without batches.
type single struct{ *spy }

func (s single) Traits() place.Traits {
	t := s.spy.Traits()
	t.Batch = 0
	return t
}

// What refuses now and then, or is a source that cannot be read, is tried to the end.
func TestWhatMayPassIsNotGivenUp(t *testing.T) {
	for name, refuse := range map[string]func(w *world, n int64, write place.Write) error{
		"some are taken": func(_ *world, n int64, write place.Write) error {
			if n%(mostRefusals/2) == 0 {
				return nil
			}
			return diskFull(write)
		},
		"it may pass": func(*world, int64, place.Write) error { return errors.New("the line is cut") },
		"the source": func(w *world, _ int64, write place.Write) error {
			return &local.Error{Op: "write", Path: write.Entry.Path, Err: fmt.Errorf("open its source: %w", &sourceError{&local.Error{Op: "read", Path: write.Entry.Path, Err: unix.EACCES}})}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
			const n = 5 * mostRefusals
			for i := range n {
				w.write(fmt.Sprintf("f%04d", i), "content")
			}
			var tried atomic.Int64
			w.to.refuses = func(write place.Write) error { return refuse(w, tried.Add(1), write) }
			if r := w.run(); tried.Load() != n || r.NotTried > 0 || r.Failed == 0 {
				t.Errorf("%d of %d tried: %+v", tried.Load(), n, r)
			}
		})
	}
}

// What does not pass by itself is told from what may.
func TestWhatRefusesForGood(t *testing.T) {
	for _, errno := range []error{unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.EACCES, unix.EPERM} {
		if !refused(&local.Error{Op: "make the directory", Path: "d", Err: fmt.Errorf("x: %w", errno)}) {
			t.Errorf("%v is no refusal", errno)
		}
	}
	for _, err := range []error{
		unix.EACCES, &fs.PathError{Op: "open", Path: "x", Err: unix.EACCES}, &local.Error{Op: "read", Path: "x", Err: unix.EACCES},
		&local.Error{Op: "write", Path: "x", Err: place.ErrChanged}, &local.Error{Op: "write", Path: "x", Err: unix.EIO},
	} {
		if refused(err) {
			t.Errorf("%v is a refusal", err)
		}
	}
}

func TestEachCauseIsToldOnce(t *testing.T) {
	var r Report
	for i := range 2000 {
		key := fmt.Sprintf("d/f%d", i)
		r.Fail(key, plan.Put, fmt.Errorf("%w: put %q in s3://store/bucket: the condition does not hold", place.ErrChanged, key))
		r.Fail(key, plan.Put, fmt.Errorf("cannot write %q: no space left on device: free space", key))
		r.Fail("dir/", plan.MakeDir, errors.New(`cannot make the directory "dir": "dir" is a file`))
	}
	r.Fail("x", plan.Delete, fmt.Errorf(`put "y": %w`, place.ErrReadOnly))
	want := []Cause{
		{plan.Put, "it changed since it was looked at: in s3://store/bucket: the condition does not hold", 2000, []string{"d/f0", "d/f1", "d/f2", "d/f3", "d/f4"}},
		{plan.Put, "no space left on device: free space", 2000, []string{"d/f0", "d/f1", "d/f2", "d/f3", "d/f4"}},
		{plan.MakeDir, "it is a file", 2000, []string{"dir/", "dir/", "dir/", "dir/", "dir/"}},
		{plan.Delete, `put "y": the place is read-only`, 1, []string{"x"}},
	}
	if r.Failed != 6001 || len(r.Failures) != keepFirst || fmt.Sprint(r.Causes) != fmt.Sprint(want) {
		t.Errorf("got %d: %+v", r.Failed, r.Causes)
	}
	if f := r.Failures[0]; !errors.Is(f.Err, place.ErrChanged) || strings.Contains(f.Err.Error(), f.Key) {
		t.Errorf("got %v", f.Err)
	}
}

// A worker knows only its own item: what it has not tried, and others were taken beside of,
// is tried all the same, also where no more than its name is known.
func TestWhatAWorkerHasNotTriedIsTried(t *testing.T) {
	from := openBucket(t, false, store.Options{})
	w := between(t, plan.Mirror, from)
	for i := range 10 {
		w.write(fmt.Sprintf("f%d", i), fmt.Sprint("content ", i))
	}
	w.whole()
	w = between(t, plan.Mirror, openLocal(t, t.TempDir()))
	w.from = from
	w.job.Places[plan.Source] = from.Place
	var names, items int
	w.pool = func(p Pool) Pool {
		return poolFunc{p, func(ctx context.Context, it Item, do func(context.Context, Item) ([]Done, error)) ([]Done, error) {
			if items++; it.Names {
				names++
			}
			all := it.Actions
			it.Actions = all[:min(4, len(all))]
			dones, err := do(ctx, it)
			for _, a := range all[len(dones):] {
				dones = append(dones, Done{Action: a, Err: ErrNotTried})
			}
			return dones, err
		}}
	}
	if r := w.whole(); r.Done[plan.Put] != 10 || names != 3 || items != 3 {
		t.Errorf("%d items, %d by names: %+v", items, names, r.Done)
	}
	w.same()
}

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
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
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
	if !ok || !errors.Is(err, unix.ENOSPC) || gave.Op != plan.Put || gave.Refused+gave.NotTried != n {
		t.Fatalf("got %+v, %v", gave, err)
	}
	if tried.Load() != r.Failed || r.Failed != gave.Refused || r.Failed < mostRefusals || r.NotTried != n-r.Failed || r.NotTried < n/4 {
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

// unwilling remembers nothing for good.
type unwilling struct{ *state.Store }

func (unwilling) Commit() error { return unix.EIO }

// A run that gave up and could not remember what it did fails for that: nothing vouches for
// what it left.
func TestGivingUpHidesNoOtherFailure(t *testing.T) {
	w := between(t, plan.Mirror, openLocal(t, t.TempDir()))
	for i := range 20 * mostRefusals {
		w.write(fmt.Sprintf("f%04d", i), "content")
	}
	var tried atomic.Int64
	w.to.refuses = func(write place.Write) error {
		if tried.Add(1) == 1 {
			return nil
		}
		return diskFull(write)
	}
	w.job.Store = unwilling{w.store}
	_, err := w.try(t.Context())
	if _, gaveUp := errors.AsType[*GaveUpError](err); gaveUp || !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
}

// Where a directory takes nothing, however much is in it, what lies elsewhere is copied: what
// was passed over by the next runs.
func TestARefusedDirectoryKeepsNoOthersBack(t *testing.T) {
	targets(t, func(t *testing.T, to *spy) {
		w := between(t, plan.Mirror, to)
		const bad, good = 2500, 50
		for i := range bad {
			w.write(fmt.Sprintf("b/f%04d", i), "content")
		}
		for i := range good {
			w.write(fmt.Sprintf("c/f%d", i), "content")
		}
		to.refuses = func(write place.Write) error {
			if strings.HasPrefix(write.Entry.Path, "b/") {
				return diskFull(write)
			}
			return nil
		}
		w.job.Places[plan.Dest] = choosy{to}
		var tried, copied int64
		for range 3 {
			r, err := w.try(t.Context())
			if gave, ok := errors.AsType[*GaveUpError](err); !ok || r.NotTried == 0 || gave.NotTried != r.NotTried {
				t.Fatalf("got %v: %d failed, %d not tried", err, r.Failed, r.NotTried)
			}
			tried, copied = max(tried, r.Failed), copied+r.Done[plan.Put]
		}
		if copied != good || tried > bad*9/10 {
			t.Errorf("%d of %d copied; tried %d of %d", copied, good, tried, bad)
		}
		to.refuses = nil
		if r := w.whole(); r.Done[plan.Put] != bad {
			t.Errorf("the next run: %+v", r.Done)
		}
		w.same()
	})
}

// choosy is a place that refuses of a batch what it refuses alone.
type choosy struct{ *spy }

func (c choosy) PutBatch(ctx context.Context, ws []place.Write) []place.Outcome {
	out := make([]place.Outcome, len(ws))
	var rest []place.Write
	var which []int
	for i, w := range ws {
		if c.refuses != nil {
			out[i].Err = c.refuses(w)
		}
		if out[i].Err == nil {
			rest, which = append(rest, w), append(which, i)
		}
	}
	for n, o := range c.spy.PutBatch(ctx, rest) {
		out[which[n]] = o
	}
	return out
}

// refuseAll asks for n entries, each refused unless taken says otherwise, and gives how many
// were tried.
func refuseAll(r *refusals, n int, key func(i int) string, taken func(i int) bool) (tried int) {
	for i := range n {
		a := plan.Action{Op: plan.Put, To: plan.Dest, Key: key(i)}
		if r.pass(&a) && r.gaveUp(&a) {
			continue
		}
		tried++
		if taken != nil && taken(i) {
			r.note(&a, nil)
		} else {
			r.note(&a, &local.Error{Op: "write", Path: a.Key, Err: unix.EROFS})
		}
	}
	return tried
}

// The longer a place takes nothing the fewer are tried, also where each lies in a directory
// of its own; and other operations have a row of their own.
func TestTheLongerNothingIsTakenTheFewerAreTried(t *testing.T) {
	for name, key := range map[string]func(i int) string{
		"one directory":    func(i int) string { return fmt.Sprintf("d/f%d", i) },
		"many directories": func(i int) string { return fmt.Sprintf("d%d/f", i) },
	} {
		// Of n some 4*sqrt(n) are tried, and the first of mostDirs directories. Were it a share
		// of all it would be more by now, and fewer if twice as many were passed over each time.
		var r refusals
		const n = 100_000
		if tried := refuseAll(&r, n, key, nil); tried < 500 || tried > 3000 {
			t.Errorf("%s: of %d %d were tried", name, n, tried)
		}
		other := plan.Action{Op: plan.MakeDir, To: plan.Dest, Key: "d/"}
		if r.pass(&other) {
			t.Errorf("%s: directories were not refused", name)
		}
		gave, ok := errors.AsType[*GaveUpError](r.err([2]place.Place{plan.Dest: made{}}, 0))
		if !ok || gave.Refused+gave.NotTried != n || !strings.Contains(gave.Error(), "nothing was deleted") {
			t.Errorf("%s: got %+v", name, gave)
		}
		if err := r.err([2]place.Place{plan.Dest: made{}}, 1); strings.Contains(err.Error(), "nothing was deleted") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Once something is taken, all that come have their turn again; and the first of each
// directory has it before.
func TestWhatIsTakenGivesAllTheirTurn(t *testing.T) {
	var r refusals
	refuseAll(&r, 3*mostRefusals, func(i int) string { return fmt.Sprintf("denied/%d", i) }, nil)
	if tried := refuseAll(&r, 10, func(i int) string { return fmt.Sprintf("open/%d", i) }, func(int) bool { return true }); tried != 10 {
		t.Errorf("%d of 10 were tried in another directory", tried)
	}
	refuseAll(&r, 3*mostRefusals, func(i int) string { return fmt.Sprintf("mixed/%d", i) }, nil)
	last := -1
	tried := refuseAll(&r, 1000, func(i int) string { return fmt.Sprintf("mixed/x%d", i) }, func(i int) bool {
		if last < 0 {
			last = i
		}
		return true
	})
	if tried != 1000-last || last > 200 {
		t.Errorf("the first that was tried was %d, and then %d", last, tried)
	}
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
		if !Refused(&local.Error{Op: "make the directory", Path: "d", Err: fmt.Errorf("x: %w", errno)}) {
			t.Errorf("%v is no refusal", errno)
		}
	}
	for _, err := range []error{
		unix.EACCES, &fs.PathError{Op: "open", Path: "x", Err: unix.EACCES}, &local.Error{Op: "read", Path: "x", Err: unix.EACCES},
		&local.Error{Op: "write", Path: "x", Err: place.ErrChanged}, &local.Error{Op: "write", Path: "x", Err: unix.EIO},
	} {
		if Refused(err) {
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

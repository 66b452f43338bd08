package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// What a run left standing in the way is not remembered: the next one looks, and does
// not fail over what it believes.
func TestARunThatLeftSomethingInTheWayIsFollowedByAListing(t *testing.T) {
	dir := t.TempDir()
	w := between(t, plan.Mirror, openLocal(t, dir))
	w.job.Guards.Number = 1
	w.job.Guards.Percent = 100
	w.write("a/x", "x")
	w.write("b", "x")
	enginetest.Write(t, dir, "a", "in the way")
	enginetest.Write(t, dir, "c", "too much")
	if r := w.run(); r.Whole() || len(r.Refusals) != 1 || r.Done[plan.Conflict] != 2 {
		t.Fatalf("got %+v", r)
	}
	w.job.Guards.Number = 2
	if r := w.whole(); r.Check != CheckListing || r.Believed != 0 || r.Done[plan.Delete] != 2 {
		t.Fatalf("then %+v", r)
	}
	w.same()
	if r := w.whole(); r.Check != CheckState || r.Believed != 3 || r.Listed.IsZero() || r.Listed.Equal(r.Began) {
		t.Fatalf("in the end %+v", r)
	}
	// A file that is read again here is no better known over there.
	must(t, os.Chmod(filepath.Join(w.dir, "b"), 0o644))
	read := 0
	w.from.opened = func(string) error { read++; return nil }
	if r := w.whole(); read != 1 || r.Believed != 3 || r.Done[plan.Equal] != 3 {
		t.Errorf("%d read: %+v", read, r)
	}
}

func TestAnOldListingIsMadeAgain(t *testing.T) {
	w := between(t, plan.Copy, openLocal(t, t.TempDir()))
	w.write("a", "one")
	w.whole()
	if r := w.whole(); r.Check != CheckState {
		t.Errorf("after a moment: %d", r.Check)
	}
	w.job.Now = func() time.Time { return later().Add(DefaultListEvery) }
	if r := w.whole(); r.Check != CheckListing {
		t.Errorf("after a day: %d", r.Check)
	}
	w.job.Now = func() time.Time { return later().Add(DefaultListEvery + time.Minute) }
	w.job.ListEvery = time.Minute
	if r := w.whole(); r.Check != CheckListing {
		t.Errorf("after what was asked for: %d", r.Check)
	}
	// A clock that was a year ahead in one run.
	w.job.Now = func() time.Time { return later().AddDate(1, 0, 0) }
	w.whole()
	w.job.Now, w.job.ListEvery = func() time.Time { return later().Add(DefaultListEvery + time.Hour) }, 0
	if r := w.whole(); r.Check != CheckListing {
		t.Errorf("after a run by a clock that was ahead: %d", r.Check)
	}
	if r := w.whole(); r.Check != CheckState {
		t.Errorf("and once more: %d", r.Check)
	}
}

package job

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// holds fails unless a file has the content.
func holds(t testing.TB, dir, name, want string) {
	t.Helper()
	if raw, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(raw) != want {
		t.Errorf("%s holds %q, %v, want %q", name, raw, err, want)
	}
}

// What somebody writes into it while the other side is read is not overwritten.
func TestRepairOverwritesNoEdit(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	w.write("a", "the content")
	w.whole()
	w.with(func(j *Job) {
		r := &enginetest.Rotten{Place: j.places[plan.Dest]}
		r.Rot("a")
		j.places[plan.Dest] = r
		j.places[plan.Source] = &meddler{Place: j.places[plan.Source], do: func() { enginetest.Write(t, w.to, "a", "edited here") }}
		a, err := j.Audit(t.Context(), AuditOptions{Repair: true})
		must(t, err)
		if len(a.Rotten) != 1 || a.Rotten[0].Repaired || !errors.Is(a.Rotten[0].Err, place.ErrChanged) {
			t.Errorf("got %+v", a.Rotten)
		}
	})
	holds(t, w.to, "a", "edited here")
}

// blind is a place that cannot be looked at.
type blind struct {
	place.Place
	err error
}

func (b blind) Look(context.Context, entry.Entry) (entry.Entry, bool, error) {
	return entry.Entry{}, false, b.err
}

// A look that fails does not make rot of an edit, unless it fails for damage.
func TestAFailedLookProvesNothing(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	w.write("a", "the content")
	w.whole()
	enginetest.Write(t, w.to, "a", "edited here")
	for _, c := range []struct {
		err    error
		rotten int
	}{{context.DeadlineExceeded, 0}, {unix.EACCES, 0}, {unix.EIO, 1}, {place.ErrCorrupt, 1}} {
		w.with(func(j *Job) {
			j.places[plan.Dest] = blind{j.places[plan.Dest], c.err}
			a, err := j.Audit(t.Context(), AuditOptions{Repair: c.rotten == 0})
			must(t, err)
			if len(a.Rotten) != c.rotten || a.Clean() {
				t.Errorf("%v: got %+v", c.err, a.Rotten)
			}
		})
		holds(t, w.to, "a", "edited here")
	}
}

// What cannot be read is rot only where that proves that it is damaged; else it is
// unchecked, and nothing is written over it.
func TestAFailedReadProvesNothing(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	w.write("a", "the content")
	w.whole()
	for _, c := range []struct {
		err    error
		rotten int
	}{{context.DeadlineExceeded, 0}, {unix.EACCES, 0}, {unix.EIO, 1}, {place.ErrCorrupt, 1}} {
		w.with(func(j *Job) {
			j.places[plan.Dest] = unreadable{j.places[plan.Dest], "a", c.err}
			a, err := j.Audit(t.Context(), AuditOptions{Repair: c.rotten == 0})
			must(t, err)
			if len(a.Rotten) != c.rotten || a.Unchecked.Count != 1 || a.Clean() {
				t.Errorf("%v: got %+v", c.err, a)
			}
		})
	}
}

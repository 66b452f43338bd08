package zfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A run that cannot go on leaves no snapshot each time that it is tried.
func TestUpdateTakesNothingThatItCannotSend(t *testing.T) {
	t.Parallel()
	h, target := grow(t, on(t, "source"), 1), on(t, "target")
	o := UpdateOptions{Now: time.Now()}
	refused := func(r Replication, want error, says string) {
		t.Helper()
		before, err := h.Snapshots(t.Context(), r.From)
		must(t, err)
		_, perr := r.PlanUpdate(t.Context(), o)
		_, uerr := r.Update(t.Context(), o)
		for _, err := range []error{perr, uerr} {
			wants(t, err, want)
			if !strings.Contains(err.Error(), says) {
				t.Errorf("it does not say %q: %v", says, err)
			}
		}
		after, err := h.Snapshots(t.Context(), r.From)
		must(t, err)
		if len(after) != len(before) {
			t.Errorf("%s was taken although %v", namesOf(after[len(before):]), uerr)
		}
	}
	r := h.to(t, target)
	root := r.To
	r.To = root + "/a/b"
	refused(r, ErrNotExist, "make that with `zfs create -p "+root+"/a`")
	// Where one run is for several datasets, a plan knows what is made before.
	r.Root = root
	_, err := r.PlanUpdate(t.Context(), o)
	must(t, err)
	_, err = r.Update(t.Context(), o)
	wants(t, err, ErrNotExist)
	r.Root, r.To = "", "nopool"
	refused(r, ErrNotExist, "in a pool that is there")
	r.To = "nopool/a"
	refused(r, ErrNotExist, "in a pool that is there")

	r.To = root
	_, err = r.Update(t.Context(), o)
	must(t, err)
	target.do(t, "set", "readonly=off", r.To)
	target.do(t, "mount", r.To)
	must(t, writeNoise(filepath.Join(target.path(r.To), "mine"), 1<<20, 1))
	other := target.fresh(t)
	for n := 0; ; n++ { // A pool's numbers are right when what was written has reached it.
		target.do(t, "snapshot", fmt.Sprintf("%s@%d", other, n))
		found, now, err := target.list(t.Context(), r.To)
		must(t, err)
		if now != found[len(found)-1].Refers {
			break
		}
		must(t, t.Context().Err())
	}
	o.Now = o.Now.Add(time.Second)
	refused(r, ErrTouched, "allow a rollback")
	o.NoSnapshot = true
	done, err := r.Update(t.Context(), o)
	if err != nil || len(done.Steps) != 0 {
		t.Errorf("with nothing to send: %+v, %v", done, err)
	}
	o.NoSnapshot, r.Rollback = false, true
	done, err = r.Update(t.Context(), o)
	if err != nil || !done.RolledBack || len(done.Steps) != 1 {
		t.Errorf("with leave to roll back: %+v, %v", done, err)
	}
	if _, err := os.Stat(filepath.Join(target.path(r.To), "mine")); err == nil {
		t.Error("it was not rolled back")
	}
}

package fleet_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
)

// What the workers of a run delete is put aside by all of them as the run's, and comes back.
func TestWhatAFleetDeletesIsKept(t *testing.T) {
	w := newWorld(t, drill.Mirror{
		Name: "m", From: "dir:DIR/src", To: "dir:DIR/dst", Mode: drill.MirrorMirror,
		Deletes: drill.MirrorDeletes{Scans: 1, MostPercent: 100}, KeepDeleted: event.Duration(time.Hour),
	})
	src, dst := filepath.Join(w.dir, "src"), filepath.Join(w.dir, "dst")
	must(t, os.Mkdir(dst, 0o755))
	for i := range 3000 {
		enginetest.Write(t, src, fmt.Sprintf("d%d/%04d", i%10, i), fmt.Sprint(i))
	}
	for range 2 {
		w.start()
	}
	w.ask("m", "")
	first, seq := w.await("m", 0, fleet.KindFinished)
	if !first.Result.Whole {
		t.Fatalf("the first run: %+v", first.Result)
	}
	before := enginetest.Tree(t, src)
	for i := range 5 {
		must(t, os.RemoveAll(filepath.Join(src, fmt.Sprintf("d%d", i))))
	}
	w.ask("m", "")
	e, seq := w.await("m", seq, fleet.KindFinished)
	if !e.Result.Whole || e.Result.Done["delete"] != 1505 {
		t.Fatalf("the second run: %+v", e.Result)
	}
	env := job.Env{StateDir: filepath.Join(w.dir, "state"), Now: time.Now}
	j, err := env.OpenLast(t.Context(), w.inv.Spec.Mirrors[0], job.Repairs)
	must(t, err)
	res, err := j.Restore(t.Context(), job.RestoreOptions{DeletedOptions: job.DeletedOptions{Run: e.Run}})
	must(t, errors.Join(err, j.Close(t.Context())))
	if res.Entries != 1505 || res.Failed+res.Alone != 0 {
		t.Errorf("restored %+v", res)
	}
	after := enginetest.Tree(t, src)
	for path, was := range before {
		if after[path] != was {
			t.Fatalf("%q was %q, and is %q", path, was, after[path])
		}
	}
	bins, err := os.ReadDir(filepath.Join(dst, ".firedrill-trash"))
	if err != nil || len(bins) != 1 || !strings.HasSuffix(bins[0].Name(), "."+e.Run) {
		t.Errorf("the trash holds %v, %v", bins, err)
	}
	w.ask("m", `{"check": "listing"}`)
	if e, _ = w.await("m", seq, fleet.KindFinished); !e.Result.Whole || e.Result.Done["equal"] != 3010 || len(e.Result.Done) != 1 {
		t.Errorf("the run after it: %+v", e.Result)
	}
}

package fleet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// A mirror that is held back for days, and of which as much is on the way as may be, takes
// nobody else's time.
func TestASmallMirrorDoesNotWaitForALargeOne(t *testing.T) {
	w := newWorld(t,
		drill.Mirror{Name: "large", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1},
		drill.Mirror{Name: "small", From: "dir:DIR/few", To: "dir:DIR/copy"})
	for i := range 40 {
		w.zeroes(fmt.Sprintf("src/f%d", i), 3<<20)
	}
	w.tree("few", 1)
	w.start()
	w.ask("large", "")
	e, _ := w.await("large", 0, fleet.KindStarted)
	for all := false; !all; {
		var err error
		all, err = w.me.MirrorWorkWaits(t.Context(), "large", e.Run, 12)
		must(t, err)
	}
	w.ask("small", "")
	if e, _ := w.await("small", 0, fleet.KindFinished); !e.Result.Whole {
		t.Errorf("it came to %+v", e.Result)
	}
	w.same("few", "copy")
}

// What is under way of a run that is called off ends: the next run needs the hands.
func TestWhatIsUnderWayEndsWithItsRun(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "slow", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1})
	w.heavy()
	w.start()
	w.ask("slow", "")
	_, seq := w.await("slow", 0, fleet.KindProgress)
	must(t, w.me.PublishMirrorCommand(t.Context(), "slow", "cancel", nil))
	_, seq = w.await("slow", seq, fleet.KindCancelled)
	w.zeroes("src/heavy", 3)
	w.ask("slow", "")
	if e, _ := w.await("slow", seq, fleet.KindFinished); !e.Result.Whole {
		t.Errorf("it came to %+v", e.Result)
	}
	w.same("src", "dst")
}

// zeroes makes a file of so many.
func (w *world) zeroes(name string, size int) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	must(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(w.t, os.WriteFile(path, make([]byte, size), 0o640))
}

// Processes of one machine take turns, too, whatever they know of each other.
func TestProcessesTakeTurnsAtAPlace(t *testing.T) {
	one := newWorld(t, drill.Mirror{Name: "one", From: "dir:DIR/src", To: "dir:DIR/mid", BytesPerSecond: 4 << 20})
	two := newWorld(t, drill.Mirror{Name: "two", From: "dir:" + one.dir + "/mid", To: "dir:DIR/dst"})
	one.heavy()
	must(t, os.Mkdir(filepath.Join(one.dir, "mid"), 0o755))
	locks := machine.Locks(t.TempDir())
	for _, w := range []*world{one, two} {
		w.start(func(c *fleet.Config) { c.Env.Locks = locks })
	}
	one.ask("one", "")
	one.await("one", 0, fleet.KindStarted)
	two.ask("two", "")
	second, _ := two.await("two", 0, fleet.KindStarted)
	first, _ := one.await("one", 0, fleet.KindFinished)
	if second.At.Before(first.At) {
		t.Errorf("the second began at %s, before the first ended at %s", second.At, first.At)
	}
	if e, _ := two.await("two", 0, fleet.KindFinished); e.Result.Bytes != 4<<20 {
		t.Errorf("it came to %+v", e.Result)
	}
}

// However many runs take days, a short one has its turn.
func TestLongRunsMakeRoom(t *testing.T) {
	w := newWorld(t,
		drill.Mirror{Name: "large", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1},
		drill.Mirror{Name: "small", From: "dir:DIR/few", To: "dir:DIR/copy"})
	w.heavy()
	w.tree("few", 1)
	w.start(func(c *fleet.Config) { c.Runs, c.Long = 1, time.Second })
	w.ask("large", "")
	w.await("large", 0, fleet.KindStarted)
	w.ask("small", "")
	if e, _ := w.await("small", 0, fleet.KindFinished); !e.Result.Whole {
		t.Errorf("it came to %+v", e.Result)
	}
}

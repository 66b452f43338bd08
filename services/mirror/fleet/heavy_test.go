package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/heavy"
	"github.com/firedrill/firedrill/services/mirror/pace"
)

func is(heavy bool) *bool { return &heavy }

// occupied is a machine that other heavy work has until free is called.
func occupied(t *testing.T) (locks machine.Locks, free func()) {
	t.Helper()
	locks = machine.Locks(t.TempDir())
	w := heavy.Begin(t.Context(), heavy.Options{Locks: locks, By: "mirror other", Long: -1})
	t.Cleanup(w.End)
	must(t, w.Pass(t.Context()))
	return locks, w.End
}

// on is a process on a machine whose heavy work is known by its locks.
func on(locks machine.Locks, long time.Duration) func(*fleet.Config) {
	return func(c *fleet.Config) { c.Env.Locks, c.Long = locks, long }
}

const behindOther = "mirror other has been at heavy work on this machine since 2"

// written is from when to when the files of a directory came to be.
func (w *world) written(dir string) (first, last time.Time) {
	w.t.Helper()
	must(w.t, filepath.WalkDir(filepath.Join(w.dir, dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		at := time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix())
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
		return nil
	}))
	return first, last
}

// However many heavy runs there are, and in however many processes, one is at work.
func TestHeavyRunsNeverOverlap(t *testing.T) {
	t.Parallel() // it waits for most of its time
	var all []drill.Mirror
	for i := range 4 {
		all = append(all, drill.Mirror{Name: fmt.Sprintf("m%d", i), From: "dir:DIR/src", To: fmt.Sprintf("dir:DIR/dst%d", i), Heavy: is(true), BytesPerSecond: 20 << 10})
	}
	w := newWorld(t, all...)
	w.tree("src", 600)
	locks := machine.Locks(t.TempDir())
	for range 2 {
		w.start(on(locks, time.Hour))
	}
	for _, m := range all {
		w.ask(m.Name, "")
	}
	type span struct{ first, last time.Time }
	var spans []span
	for i, m := range all {
		if e, _ := w.await(m.Name, 0, fleet.KindFinished); !e.Result.Whole || e.Result.Done["put"] != 600 {
			t.Errorf("%s came to %+v", m.Name, e.Result)
		}
		first, last := w.written(fmt.Sprintf("dst%d", i))
		for _, s := range spans {
			if first.Before(s.last) && s.first.Before(last) {
				t.Errorf("%s was written from %s to %s, another one from %s to %s", m.Name, first, last, s.first, s.last)
			}
		}
		spans = append(spans, span{first, last})
	}
}

// A run that lasts has the machine from then on; small ones go on beside it and beside who
// waits.
func TestARunThatLastsIsHeavy(t *testing.T) {
	one := newWorld(t, drill.Mirror{Name: "one", From: "dir:DIR/src", To: "dir:DIR/dst"})
	two := newWorld(t, drill.Mirror{Name: "two", From: "dir:DIR/src", To: "dir:DIR/dst", Heavy: is(true)},
		drill.Mirror{Name: "small", From: "dir:DIR/few", To: "dir:DIR/copy"})
	one.tree("src", 40)
	two.tree("src", 40)
	two.tree("few", 3)
	locks := machine.Locks(t.TempDir())
	busy := pace.New(1, time.Now, func() (float64, bool) { return 0, false })
	must(t, busy.Acquire(t.Context())) // so that nothing of the first one gets on
	one.start(on(locks, 100*time.Millisecond), func(c *fleet.Config) { c.Env.Pace = busy })
	two.start(on(locks, time.Hour), func(c *fleet.Config) { c.Runs = 1 })
	one.ask("one", "")
	lasts, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		q, err := locks.Queue(lasts, "heavy", "test")
		must(t, err)
		first, err := q.Head(lasts)
		must(t, errors.Join(err, q.Leave()))
		if first != nil {
			break
		}
		select {
		case <-tick.C:
		case <-lasts.Done():
			t.Fatal("it lasts, and is not heavy")
		}
	}
	two.ask("two", "")
	e, _ := two.await("two", 0, fleet.KindWaiting)
	if !strings.HasPrefix(e.Reason, "mirror one has been at heavy work on this machine since 2") || e.Since == nil || e.Progress == nil {
		t.Errorf("it waits: %+v", e)
	}
	two.ask("small", "")
	if e, _ := two.await("small", 0, fleet.KindFinished); !e.Result.Whole {
		t.Errorf("it came to %+v", e.Result)
	}
	if u, err := fleet.UnderWay(t.Context(), two.me, "two"); err != nil || u.Last.Since == nil || u.Last.Progress == nil || u.Last.Progress.DoneActions != 0 {
		t.Errorf("under way: %+v, %v", u, err)
	}
	if _, err := os.Stat(filepath.Join(two.dir, "dst")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it has made its destination: %v", err)
	}
	busy.Release()
	for _, w := range []*world{one, two} {
		name := w.inv.Spec.Mirrors[0].Name
		if e, _ := w.await(name, 0, fleet.KindFinished); !e.Result.Whole || e.Result.Done["put"] != 40 {
			t.Errorf("%s came to %+v", name, e.Result)
		}
	}
}

// Who waits for other heavy work does not stand still, and says so.
func TestWaitingIsNoStandstill(t *testing.T) {
	t.Parallel() // it waits for most of its time
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst", Heavy: is(true), Stalled: event.Duration(2 * time.Second)})
	w.tree("src", 3)
	locks, free := occupied(t)
	w.start(on(locks, time.Hour))
	w.ask("out", "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told := map[string]int{}
	must(t, w.me.FollowMirror(ctx, "out", 0, func(r bus.Record) error {
		var e fleet.Event
		must(t, json.Unmarshal(r.Data, &e))
		told[r.Kind]++
		switch {
		case r.Kind == fleet.KindStalled:
			t.Errorf("stalled: %+v", e)
		case r.Kind == fleet.KindProgress && told[r.Kind] == 1 && (e.Since == nil || !strings.HasPrefix(e.Reason, behindOther)):
			t.Errorf("its progress: %+v", e)
		case r.Kind == fleet.KindProgress && told[r.Kind] == 4: // which are eight seconds
			free()
		case r.Kind == fleet.KindFinished:
			return bus.Stop
		}
		return nil
	}))
	if told[fleet.KindWaiting] != 1 {
		t.Errorf("it was told %v", told)
	}
}

// Waiting is called off at once, and so is a comparison's.
func TestWhoWaitsIsCalledOff(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.tree("src", 3)
	locks, _ := occupied(t)
	stop := w.start(on(locks, time.Hour))
	w.ask("out", "")
	_, seq := w.await("out", 0, fleet.KindFinished) // it does not last
	stop()
	w.start(on(locks, time.Hour), func(c *fleet.Config) {
		c.Inventory.Spec.Mirrors = []drill.Mirror{c.Inventory.Spec.Mirrors[0]}
		c.Inventory.Spec.Mirrors[0].Heavy = is(true)
	})
	for _, body := range []string{"", `{"do": "verify"}`} {
		w.ask("out", body)
		var e fleet.Event
		e, seq = w.await("out", seq, fleet.KindWaiting)
		if !strings.HasPrefix(e.Reason, behindOther) {
			t.Errorf("%s waits: %+v", body, e)
		}
		must(t, w.me.PublishMirrorCommand(t.Context(), "out", "cancel", fleet.Cancel{Run: e.Run}))
		_, seq = w.await("out", seq, fleet.KindCancelled)
	}
}

// What is not heavy goes on beside what is, however long it takes: what is said to be light,
// what is limited, and what a drill waits for.
func TestWhatIsNotHeavyGoesOn(t *testing.T) {
	w := newWorld(t,
		drill.Mirror{Name: "light", From: "dir:DIR/src", To: "dir:DIR/a", Heavy: is(false)},
		drill.Mirror{Name: "limited", From: "dir:DIR/src", To: "dir:DIR/b", BytesPerSecond: 1 << 20},
		drill.Mirror{Name: "step", From: "dir:DIR/src", To: "dir:DIR/c", Heavy: is(true)})
	w.tree("src", 3)
	locks, _ := occupied(t)
	w.start(on(locks, time.Nanosecond))
	w.ask("light", "")
	w.ask("limited", "")
	subject, err := bus.MirrorRequest{Who: fleet.ByDrill, Mirror: "step"}.Subject()
	must(t, err)
	_, err = w.me.Publish(t.Context(), subject, nil, "")
	must(t, err)
	for _, m := range w.inv.Spec.Mirrors {
		if e, _ := w.await(m.Name, 0, fleet.KindFinished); !e.Result.Whole {
			t.Errorf("%s came to %+v", m.Name, e.Result)
		}
	}
}

// However many wait for the machine, in one process, others go on.
func TestManyThatWaitKeepNobodyWaiting(t *testing.T) {
	var all []drill.Mirror
	for i := range 17 {
		all = append(all, drill.Mirror{Name: fmt.Sprintf("m%d", i), From: "dir:DIR/src", To: fmt.Sprintf("dir:DIR/dst%d", i), Heavy: is(true)})
	}
	w := newWorld(t, append(all, drill.Mirror{Name: "small", From: "dir:DIR/few", To: "dir:DIR/copy"})...)
	w.tree("src", 3)
	w.tree("few", 3)
	locks, free := occupied(t)
	w.start(on(locks, time.Hour))
	for _, m := range all {
		w.ask(m.Name, "")
	}
	for _, m := range all[:16] {
		w.await(m.Name, 0, fleet.KindWaiting)
	}
	w.ask("small", "")
	if e, _ := w.await("small", 0, fleet.KindFinished); !e.Result.Whole {
		t.Errorf("it came to %+v", e.Result)
	}
	free()
	for _, m := range all {
		if e, _ := w.await(m.Name, 0, fleet.KindFinished); !e.Result.Whole {
			t.Errorf("%s came to %+v", m.Name, e.Result)
		}
	}
}

// However often its process is restarted, who only waits has not tried in vain.
func TestWaitingIsNoTry(t *testing.T) {
	t.Parallel() // it waits for most of its time
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst", Heavy: is(true)})
	w.tree("src", 3)
	locks, free := occupied(t)
	w.ask("out", "")
	seq := uint64(0)
	for range bus.MirrorTries + 1 {
		stop := w.start(on(locks, time.Hour))
		var e fleet.Event
		if e, seq = w.await("out", seq, fleet.KindWaiting, fleet.KindFailed); !strings.HasPrefix(e.Reason, behindOther) {
			t.Fatalf("it is told %+v", e)
		}
		stop()
	}
	w.start(on(locks, time.Hour))
	free()
	if e, _ := w.await("out", seq, fleet.KindFinished, fleet.KindFailed); e.Result == nil || !e.Result.Whole {
		t.Errorf("it came to %+v", e)
	}
}

// What was begun is a try, also after it has waited.
func TestWhichTriesOnlyWaited(t *testing.T) {
	w := newWorld(t)
	now, before := time.Now(), time.Time{}
	waits, works := fleet.Event{Since: &now}, fleet.Event{}
	for _, told := range []struct {
		run, kind string
		event     fleet.Event
	}{
		{"7-turn", fleet.KindWaiting, waits},
		{"7-killed", fleet.KindStarted, works},
		{"7-went-on", fleet.KindStarted, works},
		{"7-went-on", fleet.KindWaiting, waits},
		{"7-went-on", fleet.KindProgress, works},
		{"7-heavy", fleet.KindStarted, works},
		{"7-heavy", fleet.KindWaiting, waits},
		{"7-heavy", fleet.KindProgress, waits},
		{"70-other", fleet.KindWaiting, waits},
	} {
		told.event.Run = told.run
		w.tell("out", told.kind, told.event)
	}
	n, err := fleet.Untried(t.Context(), fleet.Config{Bus: w.me}, bus.Message{Subject: "mirror.req.test.out", Seq: 7, Stored: before})
	if err != nil || n != 2 {
		t.Errorf("%d of them, %v, want 2", n, err)
	}
}

package fleet_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
)

// attend has a watcher look for signs of life until the test ends.
func (w *world) attend(b *bus.Bus, patience time.Duration) <-chan error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended, over := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(over)
		ended <- fleet.Attend(ctx, b, patience)
	}()
	w.t.Cleanup(func() { cancel(); <-over })
	return ended
}

// A process that is killed is missed, though the server lives; and before that its run is
// not, nor one that waits.
func TestAKilledProcessIsMissed(t *testing.T) {
	t.Parallel() // it waits for most of its time
	s := newSpread(t, 1<<20)
	kill := s.process("a")
	s.ask("big", "")
	_, seq := s.await("big", 0, fleet.KindStarted)
	ended := s.attend(s.me, 2*time.Second)
	for range 3 {
		_, seq = s.await("big", seq, fleet.KindProgress)
	}
	select {
	case err := <-ended:
		t.Fatalf("while it works: %v", err)
	default:
	}
	kill()
	select {
	case err := <-ended:
		if !errors.Is(err, fleet.ErrNobody) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it is not missed")
	}
}

// A run whose process was killed is soon known to be in nobody's hands, and one that is at
// work is not taken for such.
func TestARunWithoutItsProcessIsGone(t *testing.T) {
	t.Parallel() // it waits for most of its time
	s := newSpread(t, 1<<20)
	kill := s.process("a")
	s.ask("big", "")
	_, seq := s.await("big", 0, fleet.KindStarted)
	for range 3 {
		_, seq = s.await("big", seq, fleet.KindProgress)
		if u, err := fleet.UnderWay(t.Context(), s.me, "big"); err != nil || u.Last.Progress == nil || u.Gone || u.Began.IsZero() {
			t.Errorf("at work: %+v, %v", u, err)
		}
	}
	kill()
	limit := time.After(20 * time.Second) // before it is tried again
	for tick := time.NewTicker(500 * time.Millisecond); ; {
		u, err := fleet.UnderWay(t.Context(), s.me, "big")
		if err != nil || u.Last.Run == "" {
			t.Fatalf("%+v, %v", u, err)
		}
		if u.Gone {
			break
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("it still seems to be at work: %+v", u)
		}
	}
	// Another one, which waits, is.
	now := time.Now()
	s.tell("big", fleet.KindWaiting, fleet.Event{Run: "999-x", Since: &now})
	if u, err := fleet.UnderWay(t.Context(), s.me, "big"); err != nil || u.Last.Run != "999-x" || u.Gone {
		t.Errorf("one that waits: %+v, %v", u, err)
	}
}

// A run that waits behind another one is in somebody's hands, though only now and then
// something is told of it.
func TestWhoWaitsInAQueueIsNotGivenUp(t *testing.T) {
	t.Parallel() // it waits for most of its time
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.tree("src", 3)
	other := w.lease("out", "elsewhere")
	w.machine("a")
	w.ask("out", "")
	ended := w.attend(w.me, time.Second)
	renew := time.NewTicker(200 * time.Millisecond)
	defer renew.Stop()
	for over := time.After(5 * time.Second); over != nil; {
		select {
		case err := <-ended:
			t.Fatalf("it was given up: %v", err)
		case <-renew.C:
			var err error
			other, err = w.me.TakeMirrorLease(t.Context(), other, other.Run)
			must(t, err)
		case <-over:
			over = nil
		}
	}
	if r, known, err := w.me.LastMirror(t.Context(), "out"); err != nil || !known || r.Seq != 2 || r.Kind != fleet.KindWaiting {
		t.Errorf("of it was told: %+v, %v", r, err)
	}
}

func TestAServerThatDoesNotAnswerIsMissed(t *testing.T) {
	t.Parallel() // it waits for most of its time
	w := newWorld(t)
	b, err := bus.Connect(t.Context(), bus.Options{URL: w.server.URL(), Log: quiet(), Identity: bus.Identity{Service: "cli", Instance: "cli", Clock: clock.System()}})
	must(t, err)
	t.Cleanup(b.Close)
	ended := w.attend(b, time.Hour)
	w.server.Shutdown()
	select {
	case err := <-ended:
		if !errors.Is(err, fleet.ErrUnreachable) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it is not missed")
	}
}

// What was heard by one connection is not heard again by the next, and the rest is caught up.
func TestAWatchCatchesUp(t *testing.T) {
	w := newWorld(t)
	var heard []string
	watch := fleet.NewWatch("out", 7, func(kind string, _ fleet.Event) { heard = append(heard, kind) })
	tell := func(run string, kinds ...string) {
		t.Helper()
		for _, kind := range kinds {
			must(t, w.me.PublishMirrorEvent(t.Context(), "out", kind, "", fleet.Event{Mirror: "out", Run: run}))
		}
	}
	// Sequences below the request's are those of others.
	for range 7 {
		tell("1-x", fleet.KindFinished)
	}
	must(t, watch.CatchUp(t.Context(), w.me))
	if kind, _ := watch.Heard(); kind != "" || watch.Ended() {
		t.Fatalf("of another run it heard %s", kind)
	}
	tell("7-x", fleet.KindStarted, fleet.KindProgress)
	for range 2 {
		must(t, watch.CatchUp(t.Context(), w.me))
	}
	tell("1-x", fleet.KindFinished)
	tell("7-y", fleet.KindStarted, fleet.KindFailed)
	must(t, watch.CatchUp(t.Context(), w.me))
	must(t, watch.Follow(t.Context(), w.me)) // it has ended
	kind, last := watch.Heard()
	if kind != fleet.KindFailed || last.Run != "7-y" || !watch.Ended() {
		t.Errorf("it heard %s of %+v", kind, last)
	}
	if want := []string{fleet.KindStarted, fleet.KindProgress, fleet.KindStarted}; !slices.Equal(heard, want) {
		t.Errorf("it told of %v, want %v", heard, want)
	}
}

// What a run of one's own says of itself, a run of the fleet publishes.
func TestTheResultSaysWhatMayNotBeMeant(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "new", From: "dir:DIR/src", To: "dir:DIR/new", Mode: drill.MirrorMirror}, drill.Mirror{Name: "old", From: "dir:DIR/src", To: "dir:DIR/old"})
	w.file("f", "content")
	// The same by size and time, and nobody has read it.
	src, old := filepath.Join(w.dir, "src", "f"), filepath.Join(w.dir, "old", "f")
	st, err := os.Stat(src)
	must(t, err)
	must(t, errors.Join(os.Mkdir(filepath.Join(w.dir, "old"), 0o755), os.WriteFile(old, []byte("content"), 0o640), os.Chtimes(old, st.ModTime(), st.ModTime())))
	w.start()
	w.ask("new", "")
	e, _ := w.await("new", 0, fleet.KindFinished)
	if r := e.Result; !r.FirstRun || !r.NewDestination || r.Unchecked != 0 || r.To != w.inv.Spec.Mirrors[0].To || r.From != w.inv.Spec.Mirrors[0].From || r.Mode != drill.MirrorMirror {
		t.Errorf("where there was nothing: %+v", r)
	}
	w.ask("old", "")
	e, seq := w.await("old", 0, fleet.KindFinished)
	if r := e.Result; r.NewDestination || r.Unchecked != 1 {
		t.Errorf("where there was the same: %+v", r)
	}
	w.file("g", "content")
	must(t, os.Remove(src))
	w.ask("old", `{"check": "audit"}`)
	e, _ = w.await("old", seq, fleet.KindFinished)
	if r := e.Result; r.FirstRun || r.KeptByMode != 1 || r.Compared == nil {
		t.Errorf("where the mode kept something: %+v", r)
	}
	all := job.Result{New: true, Mended: [2]int64{2, 1}, Disowned: 2, Unread: 3, Untried: []string{"b"}, Unasked: "c"}
	all.Replaced = 4
	if r := fleet.Summary(drill.Mirror{}, all, true); !r.NewDestination || r.PermissionsSet != 3 || r.SourcePermissionsSet != 2 || r.OwnersNotSet != 2 || r.Unchecked != 3 || r.Replaced != 4 || !slices.Equal(r.Untried, all.Untried) || r.Unasked != all.Unasked {
		t.Errorf("all: %+v", r)
	}
}

// A run that stands still is alive, and goes on telling so after the one alarm.
func TestAStalledRunGoesOnTelling(t *testing.T) {
	t.Parallel() // it waits for most of its time
	w := newWorld(t, drill.Mirror{Name: "slow", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1, Stalled: event.Duration(time.Second)})
	w.heavy()
	w.start()
	w.ask("slow", "")
	_, seq := w.await("slow", 0, fleet.KindStalled)
	for range 2 {
		var e fleet.Event
		if e, seq = w.await("slow", seq, fleet.KindProgress, fleet.KindStalled); e.Reason != "" {
			t.Errorf("another alarm: %+v", e)
		}
	}
}

// A mount that does not answer keeps a run from beginning: that is told as a standstill, too,
// and the run is called off all the same.
func TestAMountThatDoesNotAnswerIsToldOf(t *testing.T) {
	t.Parallel() // it waits for most of its time
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst", Stalled: event.Duration(time.Second)})
	c := fleet.Config{
		Bus: w.connect(event.Mirror), Log: quiet(), Inventory: w.inv,
		Env: job.Env{StateDir: filepath.Join(w.dir, "state"), Now: time.Now},
	}
	answers, looked := make(chan struct{}), make(chan struct{}, 9)
	defer close(answers)
	turn := func(m drill.Mirror, u job.Use) job.Turn {
		looked <- struct{}{}
		<-answers
		return c.Env.Turn(m, u)
	}
	subject, err := bus.MirrorRequest{Who: "test", Mirror: "out"}.Subject()
	must(t, err)
	done := make(chan error, 1)
	go func() {
		done <- fleet.OnRequestAt(t.Context(), c, turn, bus.Message{Subject: subject, Seq: 1, Delivered: 1})
	}()
	e, seq := w.await("out", 0, fleet.KindStalled)
	if !strings.HasPrefix(e.Reason, "no progress for ") || e.Progress == nil {
		t.Errorf("it was told %+v", e)
	}
	if under, err := fleet.UnderWay(t.Context(), w.me, "out"); err != nil || under.Last.Run != e.Run || under.Last.Progress.StillSeconds == 0 {
		t.Errorf("under way: %+v, %v", under, err)
	}
	must(t, w.me.PublishMirrorCommand(t.Context(), "out", "cancel", fleet.Cancel{Run: e.Run}))
	w.await("out", seq, fleet.KindCancelled)
	must(t, <-done)
	if len(looked) != 1 {
		t.Errorf("it was looked at %d times", len(looked))
	}
}

package fleet_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
)

// A request whose processes all end before its run does is answered, and becomes a dead
// letter.
func TestARequestThatOutlivesItsProcessesIsAnswered(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "slow", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1})
	w.heavy()
	w.ask("slow", "")
	var e fleet.Event
	seq := uint64(0)
	for range bus.MirrorTries - 1 {
		stop := w.machine("a")
		// A machine that stops may be handed the request once more, which is a try, too.
		if e, seq = w.await("slow", seq, fleet.KindStarted, fleet.KindFailed); e.Reason != "" {
			break
		}
		stop()
	}
	if e.Reason == "" {
		w.machine("b")
		e, seq = w.await("slow", seq, fleet.KindFailed, fleet.KindStarted)
	}
	for _, word := range []string{"abandoned", "4 processes", "ask again"} {
		if !strings.Contains(e.Reason, word) {
			t.Errorf("%+v does not say %q", e, word)
		}
	}
	if e.Log == nil || e.Log.Last == nil || !e.Log.Last.Failed || !strings.Contains(e.Log.Last.Problem, "abandoned") {
		t.Errorf("it is noted as %+v", e.Log)
	}
	if e.By != "test" || !strings.HasPrefix(e.Run, "1-") {
		t.Errorf("it is the answer to %s by %s", e.Run, e.By)
	}
	w.free("slow")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(10 * time.Second); ; <-tick.C {
		dead, err := w.me.DeadLetters(t.Context())
		must(t, err)
		if len(dead) == 1 && dead[0].Durable == bus.MirrorRequests && strings.Contains(dead[0].Reason, "abandoned") {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("the dead letters are %+v", dead)
		}
	}
	// The next request is made.
	w.ask("slow", "")
	if next, _ := w.await("slow", seq, fleet.KindStarted, fleet.KindFailed); next.Reason != "" {
		t.Errorf("the next one: %+v", next)
	}
}

// What was answered before its last process ended is not answered twice.
func TestARequestThatWasAnsweredIsNotAbandoned(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.tree("src", 3)
	c := fleet.Config{
		Bus: w.connect(event.Mirror), Log: quiet(), Inventory: w.inv, Lease: time.Second,
		Env: job.Env{StateDir: filepath.Join(w.dir, "state"), Now: time.Now},
	}
	stop := w.start()
	w.ask("out", "")
	_, seq := w.await("out", 0, fleet.KindFinished)
	stop()
	subject, err := bus.MirrorRequest{Who: "test", Mirror: "out"}.Subject()
	must(t, err)
	must(t, fleet.OnRequest(t.Context(), c, bus.Message{Subject: subject, Seq: 1, Delivered: bus.MirrorTries}))
	if last, _, err := w.me.LastMirror(t.Context(), "out"); err != nil || last.Seq != seq {
		t.Errorf("after it finished: %s %s, %v", last.Kind, last.Data, err)
	}
}

// A run that waits for another machine to end leaves its place to others.
func TestWhoWaitsForAMirrorKeepsNoSlot(t *testing.T) {
	w := newWorld(t,
		drill.Mirror{Name: "busy", From: "dir:DIR/src", To: "dir:DIR/one"},
		drill.Mirror{Name: "free", From: "dir:DIR/other", To: "dir:DIR/two"})
	w.tree("src", 3)
	w.tree("other", 3)
	lease := w.lease("busy", "elsewhere")
	h := hear("a run waits")
	w.machine("a", func(c *fleet.Config) { c.Runs, c.Log = 1, slog.New(h) })
	w.ask("busy", "")
	h.await(t)
	done := make(chan fleet.Event, 1)
	w.ask("free", "")
	go func() {
		e, _ := w.await("free", 0, fleet.KindFinished)
		done <- e
	}()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting; {
		var err error
		lease, err = w.me.TakeMirrorLease(t.Context(), lease, lease.Run)
		must(t, err)
		select {
		case e := <-done:
			waiting = false
			if !e.Result.Whole {
				t.Errorf("finished with %+v", e.Result)
			}
		case <-tick.C:
		}
	}
	if _, known, err := w.me.LastMirror(t.Context(), "busy"); err != nil || known {
		t.Errorf("something is known of a run that may not begin: %v, %v", known, err)
	}
	_, err := w.me.TakeMirrorLease(t.Context(), lease, "")
	must(t, err)
	w.await("busy", 0, fleet.KindFinished)
}

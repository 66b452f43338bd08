package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/local"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// heard is a log that tells when something is said.
type heard struct {
	slog.Handler
	text string
	said chan string
}

func hear(text string) heard {
	return heard{Handler: slog.DiscardHandler, text: text, said: make(chan string, 100)}
}

func (heard) Enabled(context.Context, slog.Level) bool { return true }

func (h heard) Handle(_ context.Context, r slog.Record) error {
	if !strings.Contains(r.Message, h.text) {
		return nil
	}
	var said strings.Builder
	said.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		said.WriteString(" " + a.String())
		return true
	})
	select {
	case h.said <- said.String():
	default: // enough was said
	}
	return nil
}

func (h heard) await(t *testing.T) string {
	t.Helper()
	select {
	case said := <-h.said:
		return said
	case <-time.After(30 * time.Second):
		t.Fatalf("nobody said %q", h.text)
	}
	return ""
}

// machine starts a mirror process that shares nothing with others but the bus and
// the places.
func (w *world) machine(name string, change ...func(*fleet.Config)) (stop func()) {
	w.t.Helper()
	own := func(c *fleet.Config) {
		c.Env.StateDir = filepath.Join(w.dir, name)
		c.Lease = time.Second
	}
	return w.start(append([]func(*fleet.Config){own}, change...)...)
}

// lease takes a mirror for a run that no process makes.
func (w *world) lease(mirror, run string) bus.MirrorLease {
	w.t.Helper()
	for {
		l, err := w.me.MirrorLease(w.t.Context(), mirror)
		must(w.t, err)
		l, err = w.me.TakeMirrorLease(w.t.Context(), l, run)
		if !errors.Is(err, bus.ErrConflict) {
			must(w.t, err)
			return l
		}
	}
}

// free waits until no run has the mirror any more.
func (w *world) free(mirror string) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(10 * time.Second); ; <-tick.C {
		l, err := w.me.MirrorLease(w.t.Context(), mirror)
		must(w.t, err)
		if l.Run == "" {
			return
		}
		if time.Now().After(until) {
			w.t.Fatalf("the mirror is not given back: %+v", l)
		}
	}
}

func TestAMirrorHasOnePlannerOverAllMachines(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.tree("src", 50)
	other := w.lease("out", "elsewhere")
	h := hear("a run waits")
	w.machine("b", func(c *fleet.Config) { c.Log = slog.New(h) })
	w.ask("out", "")
	if said := h.await(t); !strings.Contains(said, "another process plans this mirror") || !strings.Contains(said, "other=elsewhere") || !strings.Contains(said, "instance=cli") {
		t.Errorf("it says %q", said)
	}
	// As long as the other one is heard of, nothing is done, however long that is.
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
		var err error
		other, err = w.me.TakeMirrorLease(t.Context(), other, other.Run)
		must(t, err)
	}
	if _, known, err := w.me.LastMirrorEvent(t.Context(), "out", fleet.KindStarted); err != nil || known {
		t.Fatalf("a run that may not begin has: %v, %v", known, err)
	}
	_, err := w.me.TakeMirrorLease(t.Context(), other, "")
	must(t, err)
	if e, _ := w.await("out", 0, fleet.KindFinished); !e.Result.Whole {
		t.Errorf("finished with %+v", e.Result)
	}
	w.free("out")
}

func TestADeadPlannersMirrorPassesOn(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.tree("src", 50)
	w.lease("out", "dead")
	began := time.Now()
	w.machine("b")
	w.ask("out", "")
	if e, _ := w.await("out", 0, fleet.KindFinished); !e.Result.Whole {
		t.Errorf("finished with %+v", e.Result)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("it was taken over after %s", took)
	}
	w.same("src", "dst")
}

func TestAPlannerThatLostItsMirrorEndsItsRun(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "slow", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1})
	w.heavy()
	w.machine("a")
	w.ask("slow", "")
	first, seq := w.await("slow", 0, fleet.KindStarted)
	thief := w.lease("slow", "thief")
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); {
		var err error
		thief, err = w.me.TakeMirrorLease(t.Context(), thief, thief.Run)
		must(t, err)
	}
	_, err := w.me.TakeMirrorLease(t.Context(), thief, "")
	must(t, err)
	// It makes the run anew once it may.
	if second, _ := w.await("slow", seq, fleet.KindStarted); second.Run == first.Run {
		t.Errorf("run %s began twice", first.Run)
	}
}

// A process that is told to stop has its mirror until its run has ended.
func TestAStoppedProcessKeepsItsMirrorUntilTheRunEnds(t *testing.T) {
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	begun, over, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	c := fleet.Config{Bus: w.connect(event.Mirror), Log: quiet(), Lease: time.Second}
	go func() { done <- fleet.Hold(ctx, c, "out", "run", func() { close(begun); <-over }) }()
	seen := func(after uint64) bus.MirrorLease {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for until := time.Now().Add(5 * time.Second); time.Now().Before(until); <-tick.C {
			l, err := w.me.MirrorLease(t.Context(), "out")
			must(t, err)
			if l.Run == "run" && l.Seq > after {
				return l
			}
		}
		t.Error("the lease is not renewed")
		return bus.MirrorLease{}
	}
	<-begun
	stop()
	l := seen(0)
	for range 3 {
		l = seen(l.Seq)
	}
	close(over)
	<-done
	w.free("out")
}

// What one machine remembers of a mirror is not believed once another one ran it.
func TestOnlyTheMemoryOfTheLastRunIsBelieved(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.tree("src", 20)
	run := func(machine string, after uint64) (fleet.Event, uint64) {
		t.Helper()
		stop := w.machine(machine)
		defer stop()
		w.ask("out", "")
		return w.await("out", after, fleet.KindFinished)
	}
	_, seq := run("a", 0)
	if e, at := run("a", seq); e.Result.Believed == 0 {
		t.Errorf("its own memory is not believed: %+v", e.Result)
	} else {
		seq = at
	}
	_, seq = run("b", seq)
	must(t, os.RemoveAll(filepath.Join(w.dir, "dst", "d00")))
	e, _ := run("a", seq)
	if e.Result.Believed > 0 || e.Result.Done["put"] != 2 {
		t.Errorf("another one's mirror was believed to be as it was left: %+v", e.Result)
	}
	w.same("src", "dst")
}

func TestATwoWayMirrorIsNotRunFromAnOldMemory(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "both", From: "dir:DIR/src", To: "dir:DIR/dst", Mode: drill.MirrorTwoWay})
	w.tree("src", 20)
	must(t, os.MkdirAll(filepath.Join(w.dir, "dst"), 0o755))
	var seq uint64
	for _, machine := range []string{"a", "b"} {
		stop := w.machine(machine)
		w.ask("both", "")
		_, seq = w.await("both", seq, fleet.KindFinished)
		stop()
	}
	stop := w.machine("a")
	w.ask("both", "")
	e, _ := w.await("both", seq, fleet.KindFailed)
	for _, word := range []string{"mirror both", "--mirror-state-dir", filepath.Join(w.dir, "a", "both")} {
		if !strings.Contains(e.Reason, word) {
			t.Errorf("%q does not say %q", e.Reason, word)
		}
	}
	stop()
	w.same("src", "dst")
}

// An item that left the queue without an answer ends its run.
func TestALostItemIsNotWaitedFor(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.file("f", "content")
	it, _ := w.item("f")
	var own engine.Worker
	for side, dir := range []string{"src", "dst"} {
		p, err := local.Open(t.Context(), filepath.Join(w.dir, dir), local.Options{})
		must(t, err)
		defer p.Close()
		own.Places[side] = p
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		_, err := fleet.SendItem(ctx, w.me, bus.MirrorItem{Mirror: "out", Run: "r"}, &own, it, 100*time.Millisecond)
		done <- err
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "no worker answers") {
				t.Errorf("it ended with %v", err)
			}
			return
		case <-tick.C:
			must(t, w.me.DropMirrorWork(t.Context(), "out", "r"))
		}
	}
}

// Whoever asked hears of it when nobody tries a request again.
func TestARequestThatIsGivenUpIsAnswered(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "slow", From: "dir:DIR/src", To: "dir:DIR/dst", BytesPerSecond: 1})
	w.heavy()
	c := fleet.Config{
		Bus: w.connect(event.Mirror), Log: quiet(), Inventory: w.inv, Lease: time.Second, Items: 1,
		Env: job.Env{StateDir: filepath.Join(w.dir, "state"), Now: time.Now},
	}
	subject, err := bus.MirrorRequest{Who: "test", Mirror: "slow"}.Subject()
	must(t, err)
	done := make(chan error, 1)
	go func() {
		done <- fleet.OnRequest(t.Context(), c, bus.Message{Subject: subject, Seq: 7, Delivered: bus.MirrorTries - 1})
	}()
	begun, seq := w.await("slow", 0, fleet.KindStarted)
	w.lease("slow", "thief")
	if e, _ := w.await("slow", seq, fleet.KindFailed); e.Run != begun.Run || !strings.Contains(e.Reason, "given up") {
		t.Errorf("it was answered with %+v", e)
	}
	if err := <-done; !errors.Is(err, fleet.ErrTaken) {
		t.Errorf("it ended with %v", err)
	}
}

// item is the work of copying one file from src.
func (w *world) item(name string) (it engine.Item, places [2]string) {
	w.t.Helper()
	var e entry.Entry
	for side, dir := range []string{"src", "dst"} {
		must(w.t, os.MkdirAll(filepath.Join(w.dir, dir), 0o755))
		p, err := local.Open(w.t.Context(), filepath.Join(w.dir, dir), local.Options{})
		must(w.t, err)
		places[side] = p.Traits().Identity
		if side == 0 {
			var there bool
			e, there, err = p.Look(w.t.Context(), entry.Entry{Path: name, Kind: entry.File})
			must(w.t, err)
			if !there {
				w.t.Fatalf("there is no %s", name)
			}
		}
		must(w.t, p.Close())
	}
	return engine.Item{Actions: []plan.Action{{Op: plan.Put, Key: name, To: plan.Dest, Source: e}}}, places
}

// answer waits for what became of an item.
func (w *world) answer(mirror, run, number string) []engine.Done {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	var dones []engine.Done
	err := w.me.FollowMirrorDone(ctx, mirror, run, func(r bus.Record) (err error) {
		if r.Kind != number {
			return nil
		}
		if dones, err = fleet.DecodeDones(r.Data); err != nil {
			return err
		}
		return bus.Stop
	})
	if err != nil && !errors.Is(err, bus.Stop) {
		w.t.Fatalf("item %s of run %s: %v", number, run, err)
	}
	return dones
}

func (w *world) file(name, content string) {
	w.t.Helper()
	path := filepath.Join(w.dir, "src", name)
	must(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(w.t, os.WriteFile(path, []byte(content), 0o640))
}

func (w *world) copied() (names []string) {
	w.t.Helper()
	got, err := os.ReadDir(filepath.Join(w.dir, "dst"))
	must(w.t, err)
	for _, e := range got {
		names = append(names, e.Name())
	}
	return names
}

func TestWorkOfARunThatLostItsMirrorIsNotDone(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.file("old", "of the run before")
	w.file("new", "of the run that has the mirror")
	w.lease("out", "new")
	before, places := w.item("old")
	must(t, w.me.PublishMirrorWork(t.Context(), "out", "old", 1, fleet.EncodeItem(before, places)))
	after, _ := w.item("new")
	must(t, w.me.PublishMirrorWork(t.Context(), "out", "new", 2, fleet.EncodeItem(after, places)))
	w.machine("a", func(c *fleet.Config) { c.Items = 1 })
	if dones := w.answer("out", "new", "2"); len(dones) != 1 || dones[0].Err != nil {
		t.Errorf("got %+v", dones)
	}
	if got := w.copied(); !slices.Equal(got, []string{"new"}) {
		t.Errorf("copied %q", got)
	}
}

func TestAnItemForAnotherPlaceIsRefused(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.file("f", "content")
	w.lease("out", "run")
	it, right := w.item("f")
	wrong := right
	wrong[plan.Dest] = "what is mounted on the planner's machine"
	must(t, w.me.PublishMirrorWork(t.Context(), "out", "run", 1, fleet.EncodeItem(it, wrong)))
	w.machine("a")
	dones := w.answer("out", "run", "1")
	if len(dones) != 1 || dones[0].Err == nil {
		t.Fatalf("got %+v", dones)
	}
	for _, word := range []string{"mirror out", "destination", filepath.Join(w.dir, "dst"), wrong[plan.Dest], right[plan.Dest], "nothing was done"} {
		if !strings.Contains(dones[0].Err.Error(), word) {
			t.Errorf("%q does not say %q", dones[0].Err, word)
		}
	}
	if got := w.copied(); len(got) > 0 {
		t.Errorf("copied %q", got)
	}
	must(t, w.me.PublishMirrorWork(t.Context(), "out", "run", 2, fleet.EncodeItem(it, right)))
	if dones := w.answer("out", "run", "2"); len(dones) != 1 || dones[0].Err != nil {
		t.Errorf("for the right places: %+v", dones)
	}
}

// What a killed worker has written, and could not say, is no failure when its item is
// given to the next one.
func TestAnItemThatWasDoneAlreadyIsSettled(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.file("f", "content")
	w.file("other", "content")
	w.lease("out", "run")
	w.machine("a")
	it, places := w.item("f")
	for number := range int64(2) {
		must(t, w.me.PublishMirrorWork(t.Context(), "out", "run", number, fleet.EncodeItem(it, places)))
	}
	first, second := w.answer("out", "run", "0"), w.answer("out", "run", "1")
	if second[0].Action.Op == plan.Put {
		first, second = second, first // whichever came first
	}
	if d := first[0]; d.Err != nil || d.Action.Op != plan.Put {
		t.Errorf("at first: %+v", d)
	}
	a := second[0].Action
	if second[0].Err != nil || a.Op != plan.Equal || a.Source.Sum.BLAKE3 != a.Dest.Sum.BLAKE3 || !a.Dest.Sum.Contains(entry.HasBLAKE3) {
		t.Errorf("then: %+v", second[0])
	}
	// What somebody else has written there meanwhile is not overwritten.
	must(t, os.WriteFile(filepath.Join(w.dir, "dst", "other"), []byte("CONTENT"), 0o640))
	it, _ = w.item("other")
	must(t, w.me.PublishMirrorWork(t.Context(), "out", "run", 7, fleet.EncodeItem(it, places)))
	if dones := w.answer("out", "run", "7"); dones[0].Err == nil {
		t.Errorf("over another content: %+v", dones)
	}
}

// The same of attributes: what is there with the content goes back to the planner, who
// settles the rest, and another content does not.
func TestAttributesThatWereSetAlreadyAreSettled(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.file("f", "content")
	w.lease("out", "run")
	w.machine("a")
	number := int64(0)
	do := func(it engine.Item, places [2]string) engine.Done {
		t.Helper()
		number++
		must(t, w.me.PublishMirrorWork(t.Context(), "out", "run", number, fleet.EncodeItem(it, places)))
		return w.answer("out", "run", fmt.Sprint(number))[0]
	}
	copied := do(w.item("f"))
	must(t, os.Chmod(filepath.Join(w.dir, "src", "f"), 0o604))
	it, places := w.item("f")
	it.Actions[0].Op, it.Actions[0].Dest = plan.Meta, copied.Action.Dest
	if d := do(it, places); d.Err != nil || d.Action.Op != plan.Meta || d.Action.Dest.Mode&0o777 != 0o604 {
		t.Errorf("at first: %+v", d)
	}
	settled := func(what string, mode uint32) {
		t.Helper()
		d := do(it, places)
		known, same := d.Action.Source.Sum.SameAs(d.Action.Dest.Sum)
		if d.Err != nil || d.Action.Op != plan.Rehash || !known || !same || d.Action.Dest.Mode&0o777 != mode {
			t.Errorf("%s: %+v", what, d)
		}
	}
	settled("once more", 0o604)
	must(t, os.Chmod(filepath.Join(w.dir, "dst", "f"), 0o600))
	settled("with other attributes", 0o600)
	it.Actions[0].Op, it.Actions[0].Dest = plan.Put, entry.Entry{}
	settled("as what was to be copied", 0o600)
	must(t, os.WriteFile(filepath.Join(w.dir, "dst", "f"), []byte("CONTENT"), 0o604))
	for _, op := range []plan.Op{plan.Put, plan.Meta} {
		if it.Actions[0].Op = op; op == plan.Meta {
			it.Actions[0].Dest = copied.Action.Dest
		}
		if d := do(it, places); !errors.Is(d.Err, place.ErrChanged) {
			t.Errorf("%s over another content: %+v", op, d)
		}
	}
}

func TestDirectoriesKeepTheirTimesWhoeverFillsThem(t *testing.T) {
	w := newWorld(t, drill.Mirror{Name: "out", From: "dir:DIR/src", To: "dir:DIR/dst"})
	w.tree("src", 800)
	old := time.Unix(1_600_000_000, 123)
	dirs, err := filepath.Glob(filepath.Join(w.dir, "src", "*"))
	must(t, err)
	for _, d := range dirs {
		must(t, errors.Join(os.Chmod(d, 0o550), os.Chtimes(d, old, old)))
	}
	for range 3 {
		w.start()
	}
	w.ask("out", "")
	if e, _ := w.await("out", 0, fleet.KindFinished); !e.Result.Whole {
		t.Fatalf("finished with %+v", e.Result)
	}
	for _, d := range dirs {
		st, err := os.Stat(filepath.Join(w.dir, "dst", filepath.Base(d)))
		must(t, err)
		if st.Mode().Perm() != 0o550 || !st.ModTime().Equal(old) {
			t.Errorf("%s is %s of %s", st.Name(), st.Mode(), st.ModTime())
		}
	}
}

package injector

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// namedDrill is fakeDrill with its target in the inventory.
var namedDrill = strings.Replace(fakeDrill, "driver: fake, config: {}", "inventory: orders", 1)

func inventoryOf(t *testing.T, targets string) drill.Inventory {
	t.Helper()
	inv, err := drill.ParseInventory([]byte("{apiVersion: firedrill/v1, kind: Inventory, spec: {targets: [" + targets + "]}}"))
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// leave stores a drill that could not undo its fault, with the claim that it keeps.
func (r *rig) leave(id string, d *fakeDriver) {
	r.t.Helper()
	b := r.connect(event.Injector, "i0")
	parsed, err := ReadDrill([]byte(namedDrill), target.NewRegistry(d), inventoryOf(r.t, "{name: orders, driver: fake, config: {host: old}}"))
	if err != nil {
		r.t.Fatal(err)
	}
	spec, hash, err := drill.JSON(parsed)
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := b.ClaimOf(r.t.Context(), d.system)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := b.TakeClaim(r.t.Context(), c, id); err != nil {
		r.t.Fatal(err)
	}
	const step = "p/fault/break"
	_, err = b.AppendAt(r.t.Context(), id, bus.Tail{},
		event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Spec: spec, SpecHash: hash}},
		event.Draft{Type: event.TypeLeaseTaken, Data: event.LeaseTaken{Holder: "i0", Epoch: 1}},
		event.Draft{Type: event.TypeDrillPlanned, Data: event.DrillPlanned{Systems: map[string]string{"t": d.system}}},
		event.Draft{Type: event.TypePhaseStarted, Data: event.PhaseStarted{Phase: "p"}},
		event.Draft{Type: event.TypeFaultIntended, Data: event.FaultIntended{Effect: event.Effect{Step: step, Target: "t", Operation: "break", Epoch: 1, Undo: []byte(`{"home":1}`)}}},
		event.Draft{Type: event.TypeAbortRequested, Data: event.AbortRequested{By: "me", Reason: "enough", Cause: drill.CauseOperator}},
		event.Draft{Type: event.TypeDrillFinished, Data: event.DrillFinished{Outstanding: []string{step}}},
	)
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestUndoGoesByTheInventoryOfToday: what a drill left is undone with the commands
// that the operator's inventory has now, or not at all.
func TestUndoGoesByTheInventoryOfToday(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.leave("left-1", d)
	d.broken["p/fault/break"] = true
	stop := r.injectFrom(inventoryOf(t, "{name: others, driver: fake, config: {}}"), "i1", d, time.Second)
	res := r.ask(undoOf(t, "left-1"))
	if want := `spec.drill: "left-1": target "t": the inventory has no entry "orders" any more: put it back until the undo has succeeded`; res.State != "rejected" || res.Reason != want {
		t.Fatalf("without the entry: %+v", res)
	}
	stop()
	if len(d.opened) > 0 {
		t.Fatalf("opened: %v", d.opened)
	}
	r.injectFrom(inventoryOf(t, "{name: orders, driver: fake, config: {host: new}}"), "i2", d, time.Second)
	st := r.outcome(r.playOthers(r.accepted(undoOf(t, "left-1")), nil), d)
	if !st.Finished.Complete || d.stillBroken() != 0 || slices.Contains(d.opened, `{"host":"old"}`) || !slices.Contains(d.opened, `{"host":"new"}`) {
		t.Fatalf("finished %+v, still broken %d, opened %v", st.Finished, d.stillBroken(), d.opened)
	}
}

// TestUndoOfATargetDescribedAnew: with what the request says of it, and only on the
// system that the drill changed.
func TestUndoOfATargetDescribedAnew(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.leave("left-1", d)
	d.broken["p/fault/break"] = true
	r.inject("i1", d, time.Second)
	raw, err := UndoRequest("d", drill.UndoSpec{Drill: "left-1", Targets: []drill.Target{{Name: "t", Driver: "fake", Config: []byte(`{"host":"mended"}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	history := r.playOthers(r.accepted(string(raw)), nil)
	if first, ok := history[0].Payload.(*event.DrillAccepted); !ok || !slices.Equal(first.Anew, []string{"t"}) {
		t.Errorf("the history does not say it: %+v", first)
	}
	st := r.outcome(history, d)
	if !st.Finished.Complete || d.stillBroken() != 0 || !slices.Equal(d.opened, []string{`{"host":"mended"}`}) {
		t.Fatalf("finished %+v, still broken %d, opened %v", st.Finished, d.stillBroken(), d.opened)
	}
	d.anonymous, d.system = true, `fake {"host":"old"}`
	r.leave("left-2", d)
	raw = bytes.ReplaceAll(raw, []byte("left-1"), []byte("left-2"))
	if res := r.ask(string(raw)); res.State != "rejected" || !strings.Contains(res.Reason, `"t": its driver cannot say which system`) {
		t.Fatalf("of a system that nobody identified: %+v", res)
	}
	raw, err = UndoRequest("d", drill.UndoSpec{Drill: "left-2", Targets: []drill.Target{{Name: "t", Inventory: "orders"}}})
	if err != nil {
		t.Fatal(err)
	}
	if res := r.ask(string(raw)); res.State != "rejected" || !strings.Contains(res.Reason, `"t": its driver cannot say which system`) {
		t.Fatalf("by an entry of the inventory: %+v", res)
	}
}

// TestWhatIsOwedIsLetGo: on somebody's word, with the reason, and nothing is touched.
// Afterwards the system is free.
func TestWhatIsOwedIsLetGo(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.leave("left-1", d)
	raw, err := UndoRequest("d", drill.UndoSpec{Drill: "left-1", LetGo: "rebuilt by hand"})
	if err != nil {
		t.Fatal(err)
	}
	stop := r.injectFrom(inventoryOf(t, "{name: orders, driver: fake, config: {}}"), "i1", d, time.Second)
	if res := r.ask(string(raw)); res.State != "rejected" || len(res.Problems) != 1 || res.Problems[0].Field != "spec.letGo" {
		t.Fatalf("without the permission: %+v", res)
	}
	stop()
	d.undo = func(context.Context, target.Operation) error { t.Error("it was undone"); return nil }
	r.inject("i2", d, time.Second)
	history := r.playOthers(r.accepted(string(raw)), nil)
	st := r.outcome(history, d)
	waived := event.UndoWaived{}
	for _, h := range history {
		if p, ok := h.Payload.(*event.UndoWaived); ok {
			waived = *p
		}
	}
	if want := (event.UndoWaived{Step: "p/fault/break", By: "me", Reason: "rebuilt by hand"}); waived != want || !st.Finished.Complete || len(st.Debts) > 0 || len(d.opened) > 0 {
		t.Fatalf("waived %+v, finished %+v, debts %v, opened %v", waived, st.Finished, st.Debts, d.opened)
	}
	d.undo = nil
	if st := r.outcome(r.playOthers(r.accepted(fakeDrill), nil), d); !st.Finished.Complete {
		t.Fatalf("the next drill: %+v", st.Abort)
	}
}

// TestUndoOfASystemThatNobodyIdentified: a driver that cannot say which system a
// target is leaves only the configuration to go by, and an entry may be edited.
func TestUndoOfASystemThatNobodyIdentified(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	d.anonymous, d.system = true, `fake {"host":"old"}`
	r.leave("left-1", d)
	d.broken["p/fault/break"] = true
	r.injectFrom(inventoryOf(t, "{name: orders, driver: fake, config: {host: new}}"), "i1", d, time.Second)
	st := r.outcome(r.playOthers(r.accepted(undoOf(t, "left-1")), nil), d)
	if !st.Finished.Complete || d.stillBroken() != 0 {
		t.Fatalf("finished %+v, still broken %d", st.Finished, d.stillBroken())
	}
}

// TestUndoLeavesAnotherSystemAlone: the entry names another system by now, which
// the settlement has not claimed.
func TestUndoLeavesAnotherSystemAlone(t *testing.T) {
	d := newFakeDriver()
	parsed, err := drill.Parse([]byte(fakeDrill))
	if err != nil {
		t.Fatal(err)
	}
	move := drill.Move{Kind: drill.MoveUndo, Debt: drill.Debt{Step: "p/fault/break", Target: "t", Operation: "break", Undo: []byte(`{"home":1}`)}}
	for system, want := range map[string]string{"fake/1": "", "fake/2": "not done: target t is fake/2 now, and drill d-1 changed fake/1: undo it again, with a file for --with that", "": "which system is it?"} {
		d.broken["p/fault/break"], d.system = true, system
		e := newEffects(Config{Registry: target.NewRegistry(d), Clock: clock.System()}, "undo-2", slog.New(slog.DiscardHandler))
		st := drill.State{ID: "undo-2", Settles: "d-1", Systems: map[string]string{"t": "fake/1"}, Drill: parsed}
		got, ok := e.run(t.Context(), st, move, clock.System().Now(), func() error { return nil }).(drill.Undone)
		if !ok || (got.Err == nil) != (want == "") || got.Err != nil && !strings.Contains(got.Err.Error(), want) || (d.stillBroken() == 0) != (want == "") {
			t.Errorf("system %q: %+v, still broken %d", system, got, d.stillBroken())
		}
		e.close(t.Context())
	}
}

// TestASlowTargetIsNoLostLease: while a target takes its time to answer, the lease
// is renewed, and what was intended is done.
func TestASlowTargetIsNoLostLease(t *testing.T) {
	const ttl = 600 * time.Millisecond
	r, d := newRig(t), newFakeDriver()
	r.leave("left-1", d)
	slow := make(chan struct{})
	d.identify = func() { <-slow }
	r.injectFrom(inventoryOf(t, "{name: orders, driver: fake, config: {}}"), "i1", d, ttl)
	renewed := -1
	history := r.playOthers(r.accepted(undoOf(t, "left-1")), func(s bus.Stored) {
		switch s.Event.Type {
		case event.TypeUndoIntended:
			renewed = 0
		case event.TypeLeaseRenewed:
			if renewed >= 0 {
				renewed++
			}
			if renewed == 3 { // a whole TTL later
				close(slow)
			}
		case event.TypeUndoFailed:
			t.Errorf("%+v", s.Payload)
		}
	})
	if st := r.outcome(history, d); !st.Finished.Complete {
		t.Fatalf("%+v", st.Finished)
	}
}

// TestWhereAnotherSystemIsToldTheWayBack: who described the target anew is not sent to
// the inventory, and nobody else is sent to --with.
func TestWhereAnotherSystemIsToldTheWayBack(t *testing.T) {
	d := newFakeDriver()
	parsed, err := ReadDrill([]byte(namedDrill), target.NewRegistry(d), inventoryOf(t, "{name: orders, driver: fake, config: {}}"))
	if err != nil {
		t.Fatal(err)
	}
	for want, anew := range map[string][]string{"let the inventory's entry name that system again": nil, "a file for --with that describes that system": {"t"}} {
		e := newEffects(Config{Registry: target.NewRegistry(d), Clock: clock.System()}, "undo-2", slog.New(slog.DiscardHandler))
		st := drill.State{ID: "undo-2", Settles: "d-1", Systems: map[string]string{"t": "fake/2"}, Drill: parsed, Anew: anew}
		if err := e.sameSystem(t.Context(), st, "t"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("described anew %v: %v", anew, err)
		}
		e.close(t.Context())
	}
}

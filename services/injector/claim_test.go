package injector

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// otherName is fakeDrill on the same system under another name and configuration.
var otherName = strings.NewReplacer("name: t,", "name: u,", "config: {}", "config: {host: h}", "target: t", "target: u").Replace(fakeDrill)

// TestOneSystemUnderOneDrill: two drills with different configurations of one
// system are told apart by the system's identity, before anything is broken.
func TestOneSystemUnderOneDrill(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.inject("i1", d, time.Second)
	var second atomic.Pointer[drill.State]
	first := r.accepted(fakeDrill)
	history := r.playOthers(first, func(s bus.Stored) {
		if s.Event.Type == event.TypeSteadyRequested && second.Load() == nil {
			st := r.outcome(r.playOthers(r.accepted(otherName), nil), newFakeDriver())
			second.Store(&st)
		}
	})
	st := second.Load()
	if st.Abort == nil || st.Abort.Cause != drill.CauseGuard || !strings.Contains(st.Abort.Reason, "target u is fake/1: drill "+first+" runs on it") {
		t.Fatalf("the second drill: %+v", st.Abort)
	}
	if st := r.outcome(history, d); !st.Finished.Complete || st.Systems["t"] != "fake/1" {
		t.Fatalf("the first drill: %+v %v", st.Finished, st.Systems)
	}
	// Once it is over, the system is free again.
	if st := r.outcome(r.playOthers(r.accepted(otherName), nil), newFakeDriver()); st.Abort != nil && st.Abort.Cause == drill.CauseGuard {
		t.Fatalf("afterwards: %+v", st.Abort)
	}
}

func TestASystemThatCannotBeToldIsNotBroken(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	d.system = ""
	r.inject("i1", d, time.Second)
	st := r.outcome(r.playOthers(r.accepted(fakeDrill), nil), d)
	if st.Abort == nil || st.Abort.Cause != drill.CauseGuard || !strings.Contains(st.Abort.Reason, "which system is it?") || d.faults["p/fault/break"] != 0 {
		t.Fatalf("%+v, faults %v", st.Abort, d.faults)
	}
}

func undoOf(t *testing.T, id string) string {
	t.Helper()
	raw, err := UndoRequest("d", drill.UndoSpec{Drill: id})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestOutstandingUndoBlocksAndIsSettled: what a drill could not undo keeps new
// drills off that system until `firedrill undo` succeeded.
func TestOutstandingUndoBlocksAndIsSettled(t *testing.T) {
	t.Parallel()
	r, d := newRig(t), newFakeDriver()
	var stuck atomic.Bool
	stuck.Store(true)
	d.undo = func(_ context.Context, op target.Operation) error {
		if stuck.Load() {
			return fakeError(op, "p/fault/break")
		}
		return nil
	}
	r.inject("i1", d, time.Second)
	left := r.accepted(fakeDrill)
	if st := r.outcome(r.playOthers(left, nil), d); len(st.Finished.Outstanding) != 1 {
		t.Fatalf("outstanding %v", st.Finished.Outstanding)
	}
	d.mu.Lock()
	d.faults = map[string]int{}
	d.mu.Unlock()
	blocked := r.outcome(r.playOthers(r.accepted(otherName), nil), newFakeDriver())
	if blocked.Abort == nil || !strings.Contains(blocked.Abort.Reason, "firedrill undo "+left) || d.faults["p/fault/break"] != 0 {
		t.Fatalf("a drill on a system that is still broken: %+v", blocked.Abort)
	}
	// A settlement that fails as well changes nothing about what is owed, and
	// halting does not keep anybody from putting things back.
	if err := r.bus.SetHalt(t.Context(), bus.Halt{Halted: true, By: "boss", Reason: "fire"}); err != nil {
		t.Fatal(err)
	}
	again := r.accepted(undoOf(t, left))
	if st := r.outcome(r.playOthers(again, nil), d); len(st.Finished.Outstanding) != 1 || st.Settles != left {
		t.Fatalf("the first settlement: %+v", st.Finished)
	}
	stuck.Store(false)
	st := r.outcome(r.playOthers(r.accepted(undoOf(t, again)), nil), d) // either name will do
	if !st.Finished.Complete || st.Settles != left || len(st.Finished.Outstanding) != 0 || d.stillBroken() != 0 {
		t.Fatalf("the settlement: %+v, still broken %d", st.Finished, d.stillBroken())
	}
	for _, id := range []string{left, again} {
		if res := r.ask(undoOf(t, id)); res.State != "rejected" || !strings.Contains(res.Reason, "nothing left to undo") {
			t.Errorf("undoing %s once more: %+v", id, res)
		}
	}
	if err := r.bus.SetHalt(t.Context(), bus.Halt{By: "boss"}); err != nil {
		t.Fatal(err)
	}
	if st := r.outcome(r.playOthers(r.accepted(otherName), nil), newFakeDriver()); st.Abort != nil && st.Abort.Cause == drill.CauseGuard {
		t.Fatalf("afterwards: %+v", st.Abort)
	}
}

func TestUndoRequestsThatMakeNoSense(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.inject("i1", d, time.Second)
	clean := r.accepted(fakeDrill)
	if res := r.ask(undoOf(t, clean)); res.State != "rejected" || !strings.Contains(res.Reason, "still running") {
		t.Errorf("of a running drill: %+v", res)
	}
	r.outcome(r.playOthers(clean, nil), d)
	for id, want := range map[string]string{clean: "nothing left to undo", "nobody-7": "no such drill"} {
		if res := r.ask(undoOf(t, id)); res.State != "rejected" || !strings.Contains(res.Reason, want) {
			t.Errorf("of %s: %+v", id, res)
		}
	}
	if res := r.ask(strings.Replace(undoOf(t, clean), `"drill":"`, `"drill":".`, 1)); res.State != "rejected" || len(res.Problems) != 1 || res.Problems[0].Field != "spec.drill" {
		t.Errorf("of no drill's id: %+v", res)
	}
}

// TestSettlementThatCannotTakeItsSystemsUndoesNothing: whatever a settlement's
// first event says, it acts only on systems that it took; another drill may be
// running there.
func TestSettlementThatCannotTakeItsSystemsUndoesNothing(t *testing.T) {
	for name, systems := range map[string]map[string]string{"taken by another": {"t": "fake/1"}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			r, d := newRig(t), newFakeDriver()
			b := r.connect(event.Injector, "i1")
			c, err := b.ClaimOf(t.Context(), "fake/1")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Append(t.Context(), "busy-1", event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Spec: []byte("{}")}}); err != nil {
				t.Fatal(err)
			}
			if err := b.TakeClaim(t.Context(), c, "busy-1"); err != nil {
				t.Fatal(err)
			}
			parsed, err := drill.Parse([]byte(fakeDrill))
			if err != nil {
				t.Fatal(err)
			}
			spec, hash, err := drill.JSON(drill.WithDefaults(parsed))
			if err != nil {
				t.Fatal(err)
			}
			undone := make(chan struct{}, 10)
			d.undo = func(context.Context, target.Operation) error { undone <- struct{}{}; return nil }
			_, err = b.AppendAt(t.Context(), "undo-9", bus.Tail{}, event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{
				Spec: spec, SpecHash: hash, Settles: "d-1", Systems: systems,
				Owes: []event.Effect{{Step: "p/fault/break", Target: "t", Operation: "break", Undo: []byte(`{"home":1}`)}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			r.inject("i1", d, time.Second)
			st := fold(r.playOthers("undo-9", nil))
			if len(undone) != 0 || st.Finished.Complete || len(st.Finished.Outstanding) != 1 {
				t.Fatalf("undone %d times, finished %+v", len(undone), st.Finished)
			}
		})
	}
}

// TestPlanTakesNothing: whoever only asks what a drill would do claims no system.
func TestPlanTakesNothing(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	b := r.connect(event.Injector, "i1")
	got := Check(t.Context(), Config{Bus: b, Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Clock: clock.System(), Log: r.log()}, VerbPlan, []byte(fakeDrill))
	if !got.Valid || len(got.Steps) != 2 || got.Problem != "" {
		t.Fatalf("%+v", got)
	}
	if c, err := b.ClaimOf(t.Context(), "fake/1"); err != nil || c.Drill != "" {
		t.Fatalf("claimed: %+v, %v", c, err)
	}
}

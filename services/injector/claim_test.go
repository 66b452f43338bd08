package injector

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
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
	raw, err := UndoRequest("d", id)
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
	// A settlement that fails as well takes the duty over, and halting does not
	// keep anybody from putting things back.
	if err := r.bus.SetHalt(t.Context(), bus.Halt{Halted: true, By: "boss", Reason: "fire"}); err != nil {
		t.Fatal(err)
	}
	again := r.accepted(undoOf(t, left))
	if st := r.outcome(r.playOthers(again, nil), d); len(st.Finished.Outstanding) != 1 || st.Settles != left {
		t.Fatalf("the first settlement: %+v", st.Finished)
	}
	stuck.Store(false)
	if st := r.outcome(r.playOthers(r.accepted(undoOf(t, left)), nil), d); st.Abort == nil || !strings.Contains(st.Abort.Reason, "drill "+again+" has taken it") || len(st.Finished.Outstanding) != 1 {
		t.Fatalf("a settlement beside another one: %+v", st.Abort)
	}
	st := r.outcome(r.playOthers(r.accepted(undoOf(t, again)), nil), d)
	if !st.Finished.Complete || len(st.Finished.Outstanding) != 0 || d.stillBroken() != 0 {
		t.Fatalf("the settlement: %+v, still broken %d", st.Finished, d.stillBroken())
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

package drill

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// script builds a state from events, each a given time after the one before.
type script struct {
	state State
	now   int64
	n     int32
}

func (s *script) add(after time.Duration, service string, t event.Type, data any) {
	s.now += int64(after)
	s.n++
	s.state = Apply(s.state, testEvent(service, "i1", s.n, s.reading(), event.Draft{Type: t, Data: data}))
}

func (s *script) reading() event.Reading {
	return event.Reading{Clock: "c", Mono: s.now, Wall: time.Unix(0, s.now).UTC()}
}

func (s *script) start(d Drill) {
	spec, _ := json.Marshal(d)
	s.add(0, event.Injector, event.TypeDrillAccepted, event.DrillAccepted{Spec: spec})
	s.add(0, event.Injector, event.TypeLeaseTaken, event.LeaseTaken{Holder: "i1", Epoch: 1})
	s.add(0, event.Injector, event.TypeDrillPlanned, event.DrillPlanned{})
	s.add(0, event.Injector, event.TypePhaseStarted, event.PhaseStarted{Phase: "p"})
	s.add(0, event.Injector, event.TypeSteadyRequested, event.SteadyRequested{Step: "p/steady/before"})
	s.add(time.Second, event.Observer, event.TypeSteadyEstablished, event.SteadyEstablished{Step: "p/steady/before"})
}

func holdDrill(hold time.Duration) Drill {
	return Drill{Spec: Spec{Guards: Guards{Deadline: event.Duration(time.Hour)}, Phases: []Phase{{
		Name:        "p",
		SteadyState: SteadyState{Window: event.Duration(time.Second), Timeout: event.Duration(time.Second)},
		Faults:      []Fault{{Name: "f", Target: "t", Fault: "freeze", Hold: event.Duration(hold)}},
		Stable:      Stable{Window: event.Duration(time.Second), Timeout: event.Duration(time.Second)},
	}}}}
}

// TestALongHoldIsNotAMissingRecovery: the wait for the recovery counts from the
// end of a fault that lasts, however long it lasts.
func TestALongHoldIsNotAMissingRecovery(t *testing.T) {
	var s script
	s.start(holdDrill(10 * time.Minute))
	s.add(0, event.Injector, event.TypeFaultIntended, event.FaultIntended{Effect: event.Effect{Step: "p/fault/f", Target: "t", Epoch: 1, Undo: json.RawMessage(`{}`)}})
	s.add(0, event.Injector, event.TypeFaultInjected, event.FaultInjected{Step: "p/fault/f"})
	if m := Next(s.state, s.reading()); m.Kind != MoveWait || m.Wait != 10*time.Minute {
		t.Fatalf("while the fault lasts: %+v", m)
	}
	s.now += int64(10 * time.Minute)
	if m := Next(s.state, s.reading()); m.Kind != MoveAppend || m.Drafts[0].Type != event.TypeUndoIntended {
		t.Fatalf("at the end of the hold: %+v", m)
	}
	s.add(0, event.Injector, event.TypeUndoIntended, event.UndoIntended{Step: "p/fault/f", Epoch: 1, Try: 1})
	s.add(time.Second, event.Injector, event.TypeUndoDone, event.UndoDone{Step: "p/fault/f"})
	if m := Next(s.state, s.reading()); m.Kind != MoveWait {
		t.Fatalf("right after the hold: %+v", m)
	}
	s.now += int64(time.Minute)
	if m := Next(s.state, s.reading()); m.Kind != MoveAppend || m.Drafts[0].Type != event.TypeAbortRequested {
		t.Fatalf("without a word from the observer: %+v", m)
	}
}

// TestFailedUndosPause: the tries of an undo are spread out, and only failures
// use them up.
func TestFailedUndosPause(t *testing.T) {
	var s script
	s.start(holdDrill(0))
	s.add(0, event.Injector, event.TypeFaultIntended, event.FaultIntended{Effect: event.Effect{Step: "p/fault/f", Target: "t", Epoch: 1, Undo: json.RawMessage(`{}`)}})
	s.add(0, event.Injector, event.TypeFaultInjected, event.FaultInjected{Step: "p/fault/f"})
	s.add(0, event.Injector, event.TypeAbortRequested, event.AbortRequested{By: "me", Reason: "x", Cause: CauseOperator})
	for epoch := int64(2); epoch < 8; epoch++ { // injectors that die in the middle of an undo
		s.add(0, event.Injector, event.TypeUndoIntended, event.UndoIntended{Step: "p/fault/f", Epoch: epoch - 1, Try: int(epoch)})
		s.add(0, event.Injector, event.TypeLeaseTaken, event.LeaseTaken{Holder: "i1", Epoch: epoch})
	}
	var waited time.Duration
	for try := 1; ; try++ {
		m := Next(s.state, s.reading())
		if m.Kind == MoveWait {
			waited += m.Wait
			s.now += int64(m.Wait)
			m = Next(s.state, s.reading())
		}
		if m.Kind != MoveAppend || m.Drafts[0].Type != event.TypeUndoIntended {
			if try != MaxUndoTries+1 || waited < 10*time.Second {
				t.Fatalf("given up after %d tries and %s", try-1, waited)
			}
			return
		}
		s.add(0, event.Injector, event.TypeUndoIntended, event.UndoIntended{Step: "p/fault/f", Epoch: s.state.Lease.Epoch, Try: try})
		s.add(0, event.Injector, event.TypeUndoFailed, event.UndoFailed{Step: "p/fault/f", Try: try, Reason: "busy"})
	}
}

// TestWhatNoTryCouldBetterIsTriedOnce: a person is called at once, and not when four
// tries have failed alike.
func TestWhatNoTryCouldBetterIsTriedOnce(t *testing.T) {
	for permanent, want := range map[bool]int{true: 1, false: 4} {
		s, tries := State{ID: "d-1", Debts: []Debt{{Step: "p/fault/f", Asked: true}}}, 0
		for i := int32(1); len(s.Debts) > 0 && !s.Debts[0].GaveUp; i++ {
			s.Debts[0].Asked = true
			drafts, err := Decide(s, Undone{Debt: s.Debts[0], Err: errors.New("no such program"), Permanent: permanent})
			if err != nil || len(drafts) != 1 {
				t.Fatalf("%+v, %v", drafts, err)
			}
			e, err := event.Compose(drafts[0], event.Origin{Service: event.Injector, Instance: "i", Drill: s.ID, Index: i})
			if err != nil {
				t.Fatal(err)
			}
			s, tries = Apply(s, e), tries+1
		}
		if tries != want {
			t.Errorf("permanent %v: %d tries, want %d", permanent, tries, want)
		}
	}
}

func TestWindows(t *testing.T) {
	dublin := []Window{{Days: []string{"sat"}, From: "22:00", To: "02:00", Zone: "Europe/Dublin"}}
	for at, open := range map[string]bool{
		"2026-11-21T21:59:59Z": false,
		"2026-11-21T22:00:00Z": true,
		"2026-11-22T01:59:59Z": true, // the window of Saturday runs past midnight
		"2026-11-22T02:00:00Z": false,
		"2026-07-18T21:00:00Z": true, // summer time
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		got, wait := windowOpen(dublin, when)
		if got != open {
			t.Errorf("%s: open=%v", at, got)
		}
		if again, _ := windowOpen(dublin, when.Add(wait)); !again {
			t.Errorf("%s: not open after the wait of %s", at, wait)
		}
	}
}

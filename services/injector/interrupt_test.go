package injector

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// TestAbortWhileNobodyConducts: an abort stored while no injector runs is heard
// by the one that comes next.
func TestAbortWhileNobodyConducts(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	stop := r.inject("i0", d, 300*time.Millisecond)
	id := r.accepted(fakeDrill)
	once := false
	history := r.playOthers(id, func(s bus.Stored) {
		if s.Event.Type != event.TypeFaultInjected || once {
			return
		}
		once = true
		stop()
		if err := r.bus.Command(t.Context(), id, "abort", []byte(`{"by":"me","reason":"enough"}`)); err != nil {
			t.Error(err)
		}
		r.inject("i1", d, 300*time.Millisecond)
	})
	if st := r.outcome(history, d); st.Abort == nil || st.Abort.By != "me" || st.Finished.Complete {
		t.Fatalf("abort %+v finished %+v", st.Abort, st.Finished)
	}
}

// TestDeadlineCutsAHangingEffect: a driver that hangs does not keep the drill
// past its deadline.
func TestDeadlineCutsAHangingEffect(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	d.do = func(ctx context.Context, op target.Operation) error {
		if op.Step == "p/recovery/mend" {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	r.inject("i1", d, time.Second)
	id := r.accepted(strings.NewReplacer("spec:", "spec:\n  guards: {deadline: 3s}", "objective: {rto: 1m}",
		"objective: {rto: 1s}\n      steadyState: {window: 100ms, timeout: 500ms}\n      stable: {window: 100ms, timeout: 500ms}").Replace(fakeDrill))
	st := r.outcome(r.playOthers(id, nil), d)
	if st.Abort == nil || st.Abort.Cause != drill.CauseDeadline {
		t.Fatalf("abort %+v", st.Abort)
	}
}

// TestApproval: a drill that asks for approval waits for it; one given before
// there is a plan to read is refused.
func TestApproval(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	r.inject("i1", d, time.Second)
	id := r.accepted(strings.Replace(fakeDrill, "spec:", "spec:\n  guards: {approval: true}", 1))
	approve := []byte(`{"drill":"` + id + `","by":"boss"}`)
	history := r.playOthers(id, func(s bus.Stored) {
		if s.Event.Type == event.TypeApprovalRequested {
			if _, err := r.bus.Call(t.Context(), "approve", approve); err != nil {
				t.Error(err)
			}
		}
	})
	if st := r.outcome(history, d); st.Approval != "given" || !st.Finished.Complete {
		t.Fatalf("approval %q finished %+v", st.Approval, st.Finished)
	}
	if _, err := r.bus.Call(t.Context(), "approve", approve); err == nil {
		t.Error("a finished drill was approved")
	}
}

// TestRedeliveredRequestIsNotRefused: the second delivery of a request finds its
// own drill on the target, and its answer, which is stored once.
func TestRedeliveredRequestIsNotRefused(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	b := r.connect(event.Injector, "i1")
	s := &service{drills: map[string]running{}, Config: Config{Bus: b, Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Log: r.log()}}
	ack, err := r.bus.Publish(t.Context(), "drill.req.me.d", []byte(fakeDrill), "")
	if err != nil {
		t.Fatal(err)
	}
	m := bus.Message{Subject: "drill.req.me.d", Data: []byte(fakeDrill), Seq: ack.Seq}
	for range 2 {
		if err := s.handleRequest(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if answers := answersTo(t, b); len(answers) != 1 || !strings.Contains(answers[0], `"accepted"`) {
		t.Fatalf("answers: %s", answers)
	}
}

// TestARequestThatAnotherInjectorAccepted: whoever comes too late with a drill does
// not keep its target busy for good.
func TestARequestThatAnotherInjectorAccepted(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	first, late := r.connect(event.Injector, "i1"), r.connect(event.Injector, "i2")
	d.check = func(json.RawMessage) error { // between the look for the drill and its first event
		_, err := first.AppendAt(t.Context(), "d-7", bus.Tail{}, event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Spec: []byte("{}")}})
		return err
	}
	s := &service{drills: map[string]running{}, Config: Config{Bus: late, Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Log: r.log()}}
	id, err := s.accept(t.Context(), "me", event.RequestRef{Sequence: 7}, []byte(fakeDrill))
	if err != nil || id != "d-7" || len(s.drills) != 0 {
		t.Fatalf("%q, %v; under way: %v", id, err, s.drills)
	}
}

// TestACommandOutlivesALostLease: the injector that heard it and lost the lease
// before it could store it still has it when it conducts again.
func TestACommandOutlivesALostLease(t *testing.T) {
	r := newRig(t)
	b := r.connect(event.Injector, "i1")
	drafts := []event.Draft{
		{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Spec: []byte("{}")}},
		{Type: event.TypeLeaseTaken, Data: event.LeaseTaken{Holder: "i1", Epoch: 1}},
		{Type: event.TypeLeaseTaken, Data: event.LeaseTaken{Holder: "i2", Epoch: 2}},
	}
	history, err := b.AppendAt(t.Context(), "d-1", bus.Tail{}, drafts...)
	if err != nil {
		t.Fatal(err)
	}
	c := newConductor(Config{Bus: b, Clock: clock.System()}, "d-1", r.log())
	c.apply(history[0])
	c.apply(history[1])
	c.epoch, c.halted, c.pending = 1, &bus.Halt{}, []drill.Command{drill.Abort{By: "me", Reason: "enough", Cause: drill.CauseOperator}}
	go func() { c.events <- history[2] }()
	if err := c.interrupt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.epoch != 0 || len(c.pending) != 1 {
		t.Fatalf("epoch %d, pending %v", c.epoch, c.pending)
	}
}

// TestRejectedRequestStaysRejected: an injector rejects a request and ends before
// the server hears of it, or the durable is made anew, which hands the request out
// as if for the first time. To the next one the request would do, but its requester
// has the answer already.
func TestRejectedRequestStaysRejected(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	b := r.connect(event.Injector, "i1")
	s := &service{drills: map[string]running{}, Config: Config{Bus: b, Registry: target.NewRegistry(d), Log: r.log()}}
	ack, err := r.bus.Publish(t.Context(), "drill.req.me.d", []byte(fakeDrill), "")
	if err != nil {
		t.Fatal(err)
	}
	m := bus.Message{Subject: "drill.req.me.d", Data: []byte(fakeDrill), Seq: ack.Seq, Delivered: 1}
	for _, inventory := range []drill.Inventory{{}, drill.OpenInventory()} {
		s.Inventory = inventory
		if err := s.handleRequest(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if answers := answersTo(t, b); len(answers) != 1 || !strings.Contains(answers[0], `"rejected"`) {
		t.Fatalf("answers: %s", answers)
	}
	if all, err := b.List(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("drills: %+v, %v", all, err)
	}
}

// TestOneDrillOfItsOwn: requests that somebody has left in the store are not taken by an
// injector that runs its operator's drill, though that may bring its own targets.
func TestOneDrillOfItsOwn(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	b := r.connect(event.Injector, "i1")
	s := &service{drills: map[string]running{}, Config: Config{Bus: b, Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Log: r.log(),
		Only: func(_ string, _ []byte, msgID string) bool { return msgID == "mine" }}}
	for seq, msgID := range map[uint64]string{1: "theirs", 2: "mine"} {
		m := bus.Message{Subject: "drill.req.me.d", Data: []byte(fakeDrill), Seq: seq, Delivered: 1, Header: map[string][]string{"Nats-Msg-Id": {msgID}}}
		if err := s.handleRequest(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	all, err := b.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Drill != "d-2" {
		t.Fatalf("drills: %+v, %v", all, err)
	}
	if answers := strings.Join(answersTo(t, b), "\n"); !strings.Contains(answers, "takes no other requests") {
		t.Fatalf("answers: %s", answers)
	}
}

// answersTo are all answers that were given on drill.res.me.d.
func answersTo(t *testing.T, b *bus.Bus) (out []string) {
	t.Helper()
	err := b.ResultsOf(t.Context(), "me", "d", time.Time{}, func(raw []byte) error {
		out = append(out, string(raw))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

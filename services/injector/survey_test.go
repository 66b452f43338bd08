package injector

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// lacking refuses as a driver does whose undo would fail.
func lacking(context.Context, []target.Operation) error {
	return errors.Join(
		&target.FieldError{Field: "nodes[0].binDir", Value: "/nowhere", Fix: "give the directory of the programs"},
		&target.FieldError{Field: "service", Value: "h:9", Fix: "give the address that clients use"},
	)
}

const lacks = `target t: nodes[0].binDir: "/nowhere": give the directory of the programs
target t: service: "h:9": give the address that clients use`

// TestNothingIsBrokenThatCouldNotBeUndone: the plan says so, and a drill ends before its
// first fault.
func TestNothingIsBrokenThatCouldNotBeUndone(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	asked := 0
	d.survey = func(ctx context.Context, ops []target.Operation) error { asked = len(ops); return lacking(ctx, ops) }
	c := Config{Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Clock: clock.System(), Log: r.log()}
	if got := Check(t.Context(), c, VerbPlan, []byte(fakeDrill)); !got.Valid || got.Problem != lacks || len(got.Steps) != 2 || asked != 2 {
		t.Errorf("plan, after %d operations were surveyed: %+v", asked, got)
	}
	r.inject("i1", d, time.Second)
	st := r.outcome(r.playOthers(r.accepted(fakeDrill), nil), d)
	if st.Abort == nil || st.Abort.Cause != drill.CauseGuard || st.Abort.Reason != strings.ReplaceAll(lacks, "\n", "; ") {
		t.Fatalf("abort: %+v", st.Abort)
	}
	if len(d.faults) > 0 || st.Step("p/fault/break").Status != drill.Waiting {
		t.Fatalf("done: %v, %+v", d.faults, st.Steps)
	}
}

// TestNothingIsBrokenWithoutRoomForEvents.
func TestNothingIsBrokenWithoutRoomForEvents(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	full := &bus.NoRoom{Dir: "/srv/state/nats", Free: 3 << 20}
	r.injectWith(Config{Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Clock: clock.System(), Room: func() error { return full }}, "i1")
	st := r.outcome(r.playOthers(r.accepted(fakeDrill), nil), d)
	if st.Abort == nil || st.Abort.Cause != drill.CauseGuard || st.Abort.Reason != full.Error() || len(d.faults) > 0 {
		t.Fatalf("abort %+v, done: %v", st.Abort, d.faults)
	}
}

// TestTheFaultWaitsForTheSurvey, which is made while the steady state is watched.
func TestTheFaultWaitsForTheSurvey(t *testing.T) {
	r, d := newRig(t), newFakeDriver()
	steady := make(chan struct{})
	d.survey = func(context.Context, []target.Operation) error {
		select {
		case <-steady:
		case <-time.After(10 * time.Second):
			return errors.New("it holds up the steady state")
		}
		return nil
	}
	isSteady, release := false, sync.OnceFunc(func() { close(steady) })
	r.inject("i1", d, time.Second)
	st := r.outcome(r.playOthers(r.accepted(fakeDrill), func(s bus.Stored) {
		switch s.Event.Type {
		case event.TypeSteadyEstablished:
			isSteady = true
		case event.TypeLeaseRenewed: // signs of life do not wait
			if isSteady {
				release()
			}
		case event.TypeFaultIntended:
			select {
			case <-steady:
			default:
				t.Error("the fault did not wait")
			}
		}
	}), d)
	if !st.Finished.Complete || st.Abort != nil || !isSteady {
		t.Fatalf("%+v, %+v", st.Finished, st.Abort)
	}
}

// TestProtectThatProtectsNothing: a slip in it is told, with what was meant; what an
// inventory protects may be elsewhere.
func TestProtectThatProtectsNothing(t *testing.T) {
	inv := drill.OpenInventory()
	inv.Spec.Guards.Protect = []string{"pg:production"}
	c := Config{Registry: target.NewRegistry(newFakeDriver()), Inventory: inv, Clock: clock.System(), Log: (&rig{t: t}).log()}
	for protect, want := range map[string]string{
		"role=spare": "", "fake:*": "", "role=*": "",
		"rol=spare": `guards.protect: "rol=spare" matches no part of the drill's targets, so it protects nothing: did you mean "role=spare"?`,
		"spare":     `guards.protect: "spare" matches no part of the drill's targets, so it protects nothing: did you mean "role=spare"?`,
		"pg:b":      `guards.protect: "pg:b" matches no part of the drill's targets, so it protects nothing: known are fake:1, fake:2, role=spare`,
	} {
		raw := strings.Replace(fakeDrill, "  phases:", `  guards: {protect: ["`+protect+`"]}`+"\n  phases:", 1)
		got := Check(t.Context(), c, VerbPlan, []byte(raw))
		hits := strings.HasPrefix(protect, "fake:") && strings.Contains(got.Steps[0].Problem, "protects") && got.Problem == ""
		if !got.Valid || got.Problem != want && !hits {
			t.Errorf("%s: %+v", protect, got)
		}
	}
}

// TestAPlanAnswersInTime: who waits for it hears which target did not answer.
func TestAPlanAnswersInTime(t *testing.T) {
	d := newFakeDriver()
	c := Config{Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Clock: clock.System(), Log: (&rig{t: t}).log()}
	d.survey = func(ctx context.Context, _ []target.Operation) error { <-ctx.Done(); return ctx.Err() }
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got := Check(ctx, c, VerbPlan, []byte(fakeDrill)); !strings.HasPrefix(got.Problem, "target t: it did not answer the survey in ") {
		t.Errorf("slow survey: %+v", got)
	}
	d.survey = func(context.Context, []target.Operation) error { t.Error("surveyed"); return nil }
	if got := Check(ctx, c, VerbPlan, []byte(fakeDrill)); !strings.Contains(got.Problem, "no time was left for the survey") {
		t.Errorf("slow plan: %+v", got)
	}
}

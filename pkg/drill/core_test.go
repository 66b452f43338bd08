package drill

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"pgregory.net/rapid"
)

// world plays the services around the core: it carries out moves, answers
// requests and keeps the history. All randomness is rapid's.
type world struct {
	t       *rapid.T
	history []event.Event
	state   State
	now     int64
	// epoch is the lease of the injector that is alive; attempts of a dead one
	// are lost.
	epoch     int64
	performed map[string]int  // faults carried out
	broken    map[string]bool // effects in place, by step
	undone    []string
	// failing makes undos of these steps fail for ever.
	failing map[string]bool
	kills   int
	// aborts allows a random abort.
	aborts bool
}

func newWorld(t *rapid.T, d Drill) *world {
	w := &world{t: t, performed: map[string]int{}, broken: map[string]bool{}, failing: map[string]bool{}}
	spec, _ := json.Marshal(d)
	w.append(event.Injector, event.Draft{Type: event.TypeDrillAccepted, Data: event.DrillAccepted{Requester: "t", Spec: spec, Seed: 1}})
	w.takeLease()
	return w
}

func (w *world) reading() event.Reading {
	return event.Reading{Clock: "c", Mono: w.now, Wall: time.Unix(0, w.now).UTC()}
}

func (w *world) append(service string, drafts ...event.Draft) {
	for _, d := range drafts {
		e := testEvent(service, fmt.Sprintf("i%d", w.epoch), int32(len(w.history)+1), w.reading(), d)
		w.history = append(w.history, e)
		w.state = Apply(w.state, e)
	}
	w.now += int64(time.Millisecond)
}

func testEvent(service, instance string, index int32, at event.Reading, d event.Draft) event.Event {
	data, err := json.Marshal(d.Data)
	if err != nil {
		panic(err)
	}
	info, _ := event.Lookup(d.Type)
	return event.Event{ID: fmt.Sprint(index), Source: event.SourceOf(service, instance), Type: d.Type, Subject: "d-1",
		DataSchema: info.Schema(), Clock: at.Clock, Mono: event.Nanos(at.Mono), Time: at.Wall, ChainIndex: index, Data: data}
}

func (w *world) takeLease() {
	w.epoch++
	w.decide(TakeLease{Holder: fmt.Sprintf("i%d", w.epoch), TTL: time.Second})
}

func (w *world) decide(c Command) {
	drafts, err := Decide(w.state, c)
	if err != nil && !errors.Is(err, ErrOver) {
		w.t.Fatalf("decide %T: %v", c, err)
	}
	if _, aborts := c.(Abort); !aborts { // which may come while something is under way
		drafts = w.onward(drafts)
	}
	if len(drafts) > 0 {
		w.append(event.Injector, drafts...)
	}
}

// onward stores more at once, sometimes, than was decided on. That must not change what
// comes of it: one by one the very same would follow.
func (w *world) onward(drafts []event.Draft) []event.Draft {
	if len(drafts) == 0 || !w.chance(2, "onward") {
		return drafts
	}
	out := Onward(w.state, drafts, w.reading())
	s, next := w.state, drafts
	for i, d := range out {
		if len(next) == 0 {
			m := Next(s, w.reading())
			if m.Kind != MoveAppend {
				w.t.Fatalf("%s was stored in advance, but the next move is %s", d.Type, m.Kind)
			}
			next = m.Drafts
		}
		if !reflect.DeepEqual(d, next[0]) {
			w.t.Fatalf("stored in advance: %+v, one by one: %+v", d, next[0])
		}
		next = next[1:]
		s = Apply(s, testEvent(event.Injector, s.Lease.Holder, int32(len(w.history)+i+1), w.reading(), d))
	}
	if m := Next(s, w.reading()); len(next) > 0 || m.Kind == MoveAppend {
		w.t.Fatalf("%s was left for later", m.Kind)
	}
	return out
}

// chance is true in about one of n draws.
func (w *world) chance(n int, what string) bool {
	return rapid.IntRange(0, n-1).Draw(w.t, what) == 0
}

// kill replaces the injector: whatever it was about to record is lost.
func (w *world) kill() bool {
	if w.kills == 0 || !w.chance(6, "kill") {
		return false
	}
	w.kills--
	w.takeLease()
	return true
}

// run plays until the drill is finished.
func (w *world) run() {
	for range 2000 {
		if w.aborts && w.chance(25, "abort") {
			w.decide(Abort{By: "op", Reason: "enough", Cause: CauseOperator})
		}
		if w.kill() {
			continue
		}
		m := Next(w.state, w.reading())
		switch m.Kind {
		case MoveEnd:
			return
		case MoveAppend:
			w.append(event.Injector, w.onward(m.Drafts)...)
		case MovePlan:
			w.decide(Planned{})
		case MoveResolve:
			w.resolve(m.Step)
		case MovePerform:
			w.perform(m.Step)
		case MoveUndo:
			w.undo(m.Debt)
		case MoveWait:
			if w.state.Abort != nil {
				w.now += int64(m.Wait) // only a pause between tries
				continue
			}
			w.answer(m)
		}
	}
	w.t.Fatalf("the drill never ended; last events: %v", tail(w.history, 6))
}

func (w *world) resolve(st Step) {
	if w.aborts && w.chance(10, "abort meanwhile") {
		w.decide(Abort{By: "op", Reason: "enough", Cause: CauseOperator})
		defer func(n int) {
			if len(w.history) != n {
				w.t.Fatalf("%s was intended after the abort", st.ID)
			}
		}(len(w.history))
	}
	var err error
	if w.chance(20, "resolve fails") {
		err = errors.New("cannot be resolved")
	}
	w.decide(Resolved{Step: st, Parts: []event.Part{{ID: "p"}}, Undo: json.RawMessage(`{"u":1}`), Err: err})
}

func (w *world) perform(st Step) {
	if w.state.Steps[st.ID].Status != Asked || w.state.debt(st.ID) == nil {
		w.t.Fatalf("%s performed without its intent and undo record in the history", st.ID)
	}
	w.broken[st.ID] = true
	if st.Kind == StepFault {
		w.performed[st.ID]++
		if before := w.state.Steps[StepID(st.Phase, StepSteady, Before)]; before.Status != Done {
			w.t.Fatalf("%s is carried out though its phase's steady state is %q", st.ID, before.Status)
		}
	}
	if w.aborts && w.chance(10, "abort meanwhile") {
		w.decide(Abort{By: "op", Reason: "enough", Cause: CauseOperator})
	}
	if w.kill() {
		return
	}
	var err error
	if w.chance(12, "perform fails") {
		err = errors.New("no")
	}
	w.decide(Performed{Step: st, Began: w.reading(), Ended: w.reading(), Proof: event.Proof{Proven: true}, Err: err})
}

func (w *world) undo(d Debt) {
	var err error
	if w.failing[d.Step] {
		err = errors.New("cannot")
	} else {
		delete(w.broken, d.Step)
		w.undone = append(w.undone, d.Step)
	}
	if w.kill() {
		return
	}
	w.decide(Undone{Debt: d, Err: err})
}

// answer plays the other services, or lets the time pass.
func (w *world) answer(m Move) {
	i := w.state.Position()
	if w.state.Approval == "requested" {
		w.decide(Approve{By: "boss"})
		return
	}
	if m.Wait > 0 && (i == len(w.state.Program) || w.chance(3, "time passes")) {
		w.now += int64(m.Wait)
		return
	}
	if i == len(w.state.Program) {
		return
	}
	st := w.state.Program[i]
	bad := w.chance(8, "bad answer")
	switch st.Kind {
	case StepBaseline:
		w.append(event.Validator, event.Draft{Type: event.TypeBaselineRecorded, Data: event.BaselineRecorded{Step: st.ID}})
	case StepSteady:
		if bad {
			w.append(event.Observer, event.Draft{Type: event.TypeSteadyViolated, Data: event.SteadyViolated{Step: st.ID, Reasons: []string{"slow"}}})
			return
		}
		w.append(event.Observer, event.Draft{Type: event.TypeSteadyEstablished, Data: event.SteadyEstablished{Step: st.ID}})
	case StepSettle:
		if bad {
			w.append(event.Observer, event.Draft{Type: event.TypeRecoveryMissing, Data: event.RecoveryMissing{Step: st.ID}})
			return
		}
		w.append(event.Observer, event.Draft{Type: event.TypeRecoveryStable, Data: event.RecoveryStable{Step: st.ID}})
	case StepChecks:
		w.append(event.Validator, event.Draft{Type: event.TypeChecksCompleted, Data: event.ChecksCompleted{Step: st.ID, Passed: !bad}})
	case StepKeep:
		w.append(event.Mirror, event.Draft{Type: event.TypeMirrorCompleted, Data: event.MirrorCompleted{Step: st.ID}})
	default:
		w.now += int64(max(m.Wait, time.Millisecond))
	}
}

func tail(es []event.Event, n int) []event.Type {
	var out []event.Type
	for _, e := range es[max(0, len(es)-n):] {
		out = append(out, e.Type)
	}
	return out
}

func genDrill(t *rapid.T) Drill {
	d := Drill{APIVersion: APIVersion, Kind: Kind, Metadata: Metadata{Name: "d"}, Spec: Spec{Guards: Guards{
		Deadline: event.Duration(time.Hour), Approval: rapid.Bool().Draw(t, "approval")}}}
	for p := range rapid.IntRange(1, 3).Draw(t, "phases") {
		ph := Phase{Name: fmt.Sprintf("p%d", p),
			SteadyState: SteadyState{Window: event.Duration(time.Second), Timeout: event.Duration(5 * time.Second)},
			Stable:      Stable{Window: event.Duration(time.Second), Timeout: event.Duration(10 * time.Second)}}
		for i := range rapid.IntRange(1, 3).Draw(t, "faults") {
			f := Fault{Name: fmt.Sprintf("f%d", i), Target: "t", Fault: "kill"}
			if rapid.Bool().Draw(t, "hold") {
				f.Hold = event.Duration(2 * time.Second)
			}
			ph.Faults = append(ph.Faults, f)
		}
		for i := range rapid.IntRange(0, 2).Draw(t, "recovery") {
			ph.Recovery = append(ph.Recovery, Action{Name: fmt.Sprintf("r%d", i), Target: "t", Action: "promote", After: event.Duration(time.Second)})
		}
		if rapid.Bool().Draw(t, "checks") {
			ph.Checks = []Check{{Name: "c", Target: "t", Check: "ledger"}}
			ph.Restore.Checks = []Check{{Name: "c2", Target: "t", Check: "home"}}
			ph.Keep = []Keep{{Name: "k", From: "dir:/a", To: "dir:/b"}}
			ph.Restore.Actions = []Action{{Name: "back", Target: "t", Action: "failback"}}
		}
		d.Spec.Phases = append(d.Spec.Phases, ph)
	}
	return d
}

func genWorld(t *rapid.T) *world {
	w := newWorld(t, genDrill(t))
	w.kills = rapid.IntRange(0, 4).Draw(t, "kills")
	w.aborts = rapid.Bool().Draw(t, "aborts")
	if rapid.IntRange(0, 5).Draw(t, "undo fails") == 0 {
		w.failing[StepID("p0", StepFault, "f0")] = true
	}
	w.run()
	return w
}

// TestDrillAlwaysEndsClean: whatever fails, whoever dies, whenever it is
// aborted: the drill ends, no fault happened twice, and everything that was
// broken is either mended or named as outstanding.
func TestDrillAlwaysEndsClean(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := genWorld(t)
		for step, n := range w.performed {
			if n > 1 {
				t.Fatalf("fault %s was carried out %d times", step, n)
			}
		}
		outstanding := map[string]bool{}
		for _, s := range w.state.Finished.Outstanding {
			outstanding[s] = true
		}
		for step := range w.broken {
			if !outstanding[step] {
				t.Fatalf("%s is still broken and not named as outstanding %v", step, w.state.Finished.Outstanding)
			}
		}
		if w.state.Finished.Complete && (w.state.Abort != nil || w.state.Position() != len(w.state.Program)) {
			t.Fatal("a drill that was cut short calls itself complete")
		}
		if w.state.Phase != "" {
			t.Fatalf("phase %s was left open", w.state.Phase)
		}
	})
}

// TestReplay: a prefix and the rest give the state of all, duplicates change
// nothing, and Apply leaves the state it was given alone.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := genWorld(t)
		cut := rapid.IntRange(0, len(w.history)).Draw(t, "cut")
		var prefix State
		for _, e := range w.history[:cut] {
			prefix = Apply(prefix, e)
		}
		before := fmt.Sprintf("%+v", prefix)
		s := prefix
		for _, e := range w.history[cut:] {
			s = Apply(s, e)
			back := rapid.IntRange(0, int(e.ChainIndex)-1).Draw(t, "dup")
			if dup := Apply(s, w.history[back]); !reflect.DeepEqual(dup, s) {
				t.Fatalf("event %d again changed the state", back)
			}
		}
		if !reflect.DeepEqual(s, w.state) {
			t.Fatalf("prefix of %d and the rest give another state", cut)
		}
		if after := fmt.Sprintf("%+v", prefix); after != before {
			t.Fatal("Apply changed the state that it was given")
		}
	})
}

// TestEveryStateCanBeCleaned: from any point of any history, an abort leads to
// an end with nothing broken.
func TestEveryStateCanBeCleaned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := genWorld(t)
		cut := rapid.IntRange(2, len(w.history)).Draw(t, "cut")
		c := &world{t: t, performed: map[string]int{}, broken: map[string]bool{}, failing: map[string]bool{}}
		for _, e := range w.history[:cut] {
			c.history, c.state = append(c.history, e), Apply(c.state, e)
		}
		for _, d := range c.state.Debts {
			c.broken[d.Step] = !d.GaveUp
		}
		if c.state.Finished != nil {
			return
		}
		c.epoch, c.now = c.state.Lease.Epoch, c.state.Last.Mono
		c.takeLease()
		c.decide(Abort{By: "op", Reason: "stop", Cause: CauseOperator})
		c.run()
		for step, b := range c.broken {
			if b {
				t.Fatalf("after an abort at event %d, %s is still broken", cut, step)
			}
		}
		checkReverse(t, c)
	})
}

// checkReverse: debts are undone newest first.
func checkReverse(t *rapid.T, c *world) {
	order := map[string]int{}
	for i, e := range c.history {
		if e.Type == event.TypeFaultIntended || e.Type == event.TypeActionIntended {
			var in event.Effect
			_ = json.Unmarshal(e.Data, &in)
			if _, seen := order[in.Step]; !seen {
				order[in.Step] = i
			}
		}
	}
	for i := 1; i < len(c.undone); i++ {
		if order[c.undone[i-1]] < order[c.undone[i]] {
			t.Fatalf("undone out of order: %v", c.undone)
		}
	}
}

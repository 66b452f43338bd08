package drill

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// StepKind is what a step of a drill's program does.
type StepKind string

// The kinds, in the order in which a phase goes through them.
const (
	StepBegin    StepKind = "begin"    // phase.started
	StepBaseline StepKind = "baseline" // baseline.requested, answered by the validator
	StepSteady   StepKind = "steady"   // steady.requested, answered by the observer
	StepFault    StepKind = "fault"    // a driver's fault
	StepRecovery StepKind = "recovery" // a driver's action that brings the system back
	StepSettle   StepKind = "settle"   // the observer says stable or missing
	StepChecks   StepKind = "checks"   // checks.requested, answered by the validator
	StepKeep     StepKind = "keep"     // mirror.requested, answered by the mirror
	StepRestore  StepKind = "restore"  // a driver's action that puts things back
	StepUndo     StepKind = "undo"     // whatever is still outstanding is undone
	StepEnd      StepKind = "end"      // phase.finished
)

// Names of the two moments at which a phase checks its steady state and data.
const (
	Before    = "before"
	After     = "after"
	Recovered = "recovered"
	Restored  = "restored"
)

// Step is one step of a drill's program. Steps run one after the other.
type Step struct {
	// ID is unique in the drill: "<phase>/<kind>" or "<phase>/<kind>/<name>".
	ID    string
	Phase string
	Kind  StepKind
	// Target, Operation and Params are set for faults and actions.
	Target    string
	Operation string
	Params    json.RawMessage
	// After is the wait since the end of the step before.
	After time.Duration
	// Hold is, for faults, how long they last before they are undone; 0: until StepUndo.
	Hold time.Duration
	// From and To, or Mirror, are set for StepKeep.
	From, To, Mirror string
	// Limit is how long another service may take to answer; 0 means until the
	// drill's deadline.
	Limit time.Duration
}

// acts reports whether the step does something to a target.
func (st Step) acts() bool {
	return st.Kind == StepFault || st.Kind == StepRecovery || st.Kind == StepRestore
}

// StepID names a step.
func StepID(phase string, kind StepKind, name string) string {
	if name == "" {
		return phase + "/" + string(kind)
	}
	return phase + "/" + string(kind) + "/" + name
}

// ID is the id of the drill that the request at a sequence of the request
// stream becomes. It is fixed as soon as the request is stored, so a redelivered
// or repeated request can never become two drills.
func ID(name string, sequence uint64) string { return fmt.Sprintf("%s-%d", name, sequence) }

// answerGrace is added to what another service was asked to take before it is
// given up: time for a restart.
const answerGrace = 30 * time.Second

// How long the validator may take for a step's baselines or checks, and the
// mirror for a copy, before the drill goes back rather than stay broken.
const (
	checksLimit = 30 * time.Minute
	keepLimit   = 2 * time.Hour
)

// Compile turns a drill with its defaults filled in (WithDefaults) into the
// sequence of steps that is the drill.
func Compile(d Drill) []Step {
	var out []Step
	for _, p := range d.Spec.Phases {
		out = append(out, compilePhase(p)...)
	}
	return out
}

// settlement is the program of a drill that settles another one: the undo of each
// phase that owes something, the last one first. There are no checks: they would
// need the settled drill's baselines and attempts, and an undo succeeds only when
// the driver has seen the target back in place.
func settlement(program []Step, owed []Debt) []Step {
	var out []Step
	for i := len(owed) - 1; i >= 0; i-- {
		phase := owed[i].Phase
		if slices.ContainsFunc(out, func(st Step) bool { return st.Phase == phase }) {
			continue
		}
		for _, st := range program {
			if st.Phase == phase && st.Kind == StepUndo {
				out = append(out, st)
			}
		}
	}
	return out
}

func compilePhase(p Phase) []Step {
	var out []Step
	add := func(kind StepKind, name string, s Step) {
		s.ID, s.Phase, s.Kind = StepID(p.Name, kind, name), p.Name, kind
		out = append(out, s)
	}
	steady := p.SteadyState.Timeout.D() + p.SteadyState.Window.D() + answerGrace
	add(StepBegin, "", Step{})
	if len(p.Checks)+len(p.Restore.Checks) > 0 {
		add(StepBaseline, "", Step{Limit: checksLimit})
	}
	add(StepSteady, Before, Step{Limit: steady})
	for _, f := range p.Faults {
		add(StepFault, f.Name, Step{Target: f.Target, Operation: f.Fault, Params: f.Params, After: f.After.D(), Hold: f.Hold.D()})
	}
	for _, a := range p.Recovery {
		add(StepRecovery, a.Name, Step{Target: a.Target, Operation: a.Action, Params: a.Params, After: a.After.D()})
	}
	add(StepSettle, "", Step{Limit: p.Stable.Timeout.D() + p.Stable.Window.D() + answerGrace})
	if len(p.Checks) > 0 {
		add(StepChecks, Recovered, Step{Limit: checksLimit})
	}
	for _, k := range p.Keep {
		add(StepKeep, k.Name, Step{From: k.From, To: k.To, Mirror: k.Mirror, Limit: keepLimit})
	}
	for _, a := range p.Restore.Actions {
		add(StepRestore, a.Name, Step{Target: a.Target, Operation: a.Action, Params: a.Params, After: a.After.D()})
	}
	add(StepUndo, "", Step{})
	add(StepSteady, After, Step{Limit: steady})
	if len(p.Restore.Checks) > 0 {
		add(StepChecks, Restored, Step{Limit: checksLimit})
	}
	add(StepEnd, "", Step{})
	return out
}

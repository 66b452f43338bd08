package drill

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// MaxUndoTries is how many tries of an undo may fail before a person is called.
// A try whose injector died does not count.
const MaxUndoTries = 4

// undoPause is the wait after so many failed tries: a node that restarts gets
// the time to.
func undoPause(failed int) time.Duration {
	return []time.Duration{0, time.Second, 3 * time.Second, 10 * time.Second}[min(failed, MaxUndoTries-1)]
}

// Causes of an abort.
const (
	CauseOperator = "operator"
	CauseHalt     = "halt"
	CauseDeadline = "deadline"
	CauseStop     = "stop-condition"
	CauseSteady   = "steady-state"
	CauseFailure  = "failure"
	CauseTakeover = "takeover"
	CauseGuard    = "guard"
)

// MoveKind is what the conductor has to do next.
type MoveKind string

// The moves.
const (
	// MoveAppend: store Drafts, provided that the history has not moved on.
	MoveAppend MoveKind = "append"
	// MovePlan: resolve every fault and action by reading, then Decide(Planned).
	MovePlan MoveKind = "plan"
	// MoveSurvey: look for all that the drill, and undoing it, will need, then
	// Decide(Surveyed). Next never asks for it, SurveyDue tells when it is due.
	MoveSurvey MoveKind = "survey"
	// MoveResolve: let the driver plan Step, then Decide(Resolved).
	MoveResolve MoveKind = "resolve"
	// MovePrepare: let the driver plan Step ahead of its MoveResolve, which uses that
	// plan if it is still fresh; then Decide(Prepared). Next never asks for it,
	// Ahead does.
	MovePrepare MoveKind = "prepare"
	// MovePerform: carry out Step, whose intent is stored, then Decide(Performed).
	MovePerform MoveKind = "perform"
	// MoveUndo: undo Debt, whose intent is stored, then Decide(Undone).
	MoveUndo MoveKind = "undo"
	// MoveWait: nothing to do before Wait has passed or an event arrives; a Wait
	// of 0 means until an event arrives.
	MoveWait MoveKind = "wait"
	// MoveEnd: the drill is finished.
	MoveEnd MoveKind = "end"
)

// Move is what to do next, and with what.
type Move struct {
	Kind   MoveKind
	Drafts []event.Draft
	Step   Step
	Debt   Debt
	Wait   time.Duration
}

// Next says what the conductor holding the drill's current lease does next. It
// is the drill's whole logic: a function of the history and the time.
func Next(s State, now event.Reading) Move {
	switch {
	case s.Finished != nil:
		return Move{Kind: MoveEnd}
	case s.Program == nil:
		return Move{Kind: MoveWait}
	case s.Abort != nil:
		return nextCleanUp(s, now)
	}
	left := TimeLeft(s, now)
	if left <= 0 {
		c := PastDeadline(s)
		return abort(c.By, c.Reason, c.Cause)
	}
	m := nextForward(s, now)
	if m.Kind == MoveWait && (m.Wait == 0 || m.Wait > left) {
		m.Wait = left
	}
	return m
}

// TimeLeft is what remains until the drill's deadline; not above 0 once it has passed.
//
// A settlement has none: it is itself what a deadline would lead to.
func TimeLeft(s State, now event.Reading) time.Duration {
	if s.Settles != "" {
		return math.MaxInt64
	}
	return s.Drill.Spec.Guards.Deadline.D() - Elapsed(s.Accepted, now)
}

// PastDeadline is the command that ends a drill at its deadline. Next gives it
// by itself; a conductor with an effect under way has to.
func PastDeadline(s State) Abort {
	return Abort{By: "firedrill", Reason: fmt.Sprintf("the drill's deadline of %s has passed", s.Drill.Spec.Guards.Deadline), Cause: CauseDeadline}
}

// aheadOf is how long before the end of a steady state's window the fault after it
// is prepared.
const aheadOf = 700 * time.Millisecond

// Ahead is the fault that comes as soon as the steady state being watched holds,
// and how long it still is until it should be prepared. Resolving takes as long
// as the targets take to answer; done within the window, it neither delays the
// fault nor disturbs the moment right before it. Without such a fault ok is false.
func Ahead(s State, now event.Reading) (st Step, wait time.Duration, ok bool) {
	i := s.Position()
	if s.Abort != nil || i+1 >= len(s.Program) {
		return Step{}, 0, false
	}
	steady, next := s.Program[i], s.Program[i+1]
	if steady.Kind != StepSteady || s.Steps[steady.ID].Status != Asked || next.Kind != StepFault || next.After > 0 {
		return Step{}, 0, false
	}
	for _, p := range s.Drill.Spec.Phases {
		if p.Name == steady.Phase {
			return next, p.SteadyState.Window.D() - aheadOf - Elapsed(s.Steps[steady.ID].At, now), true
		}
	}
	return Step{}, 0, false
}

// SurveyDue reports whether the targets are to be surveyed, unless whoever conducts the
// drill has done so. It takes as long as the targets take to answer, so it is made while
// the steady state before the first fault is watched, which that fault waits for anyway;
// at the latest right before the fault, when another conductor was replaced in between.
func SurveyDue(s State) bool {
	i := s.Position()
	if s.Planned == nil || s.Settles != "" || s.Abort != nil || s.Finished != nil || i == len(s.Program) {
		return false
	}
	touched := slices.ContainsFunc(s.Program, func(st Step) bool { return st.acts() && s.Steps[st.ID].Status != Waiting })
	st := s.Program[i]
	return !touched && (st.Kind == StepSteady && s.Steps[st.ID].Status == Asked || st.acts())
}

func nextForward(s State, now event.Reading) Move {
	switch {
	case s.Planned == nil:
		return Move{Kind: MovePlan}
	case s.Drill.Spec.Guards.Approval && s.Approval == "" && s.Settles == "":
		return draft(event.TypeApprovalRequested, event.ApprovalRequested{Reason: "the drill asks for approval after its plan"})
	case s.Drill.Spec.Guards.Approval && s.Approval != "given" && s.Settles == "":
		return Move{Kind: MoveWait}
	}
	if out := gaveUp(s); len(out) > 0 {
		return abort("firedrill", fmt.Sprintf("could not be undone: %v", out), CauseFailure)
	}
	if d := heldTooLong(s, now); d != nil {
		return undo(s, *d, now)
	}
	i := s.Position()
	if i == len(s.Program) {
		return draft(event.TypeDrillFinished, event.DrillFinished{Complete: true})
	}
	if i > 0 {
		if m, stop := afterFailure(s, s.Program[:i]); stop {
			return m
		}
	}
	if m, waits := waitHold(s, i, now); waits {
		return m
	}
	return nextStep(s, i, now)
}

// heldTooLong finds a fault whose hold is over.
func heldTooLong(s State, now event.Reading) *Debt {
	for _, st := range s.Program {
		if st.Kind != StepFault || st.Hold == 0 || s.Steps[st.ID].Status != Done {
			continue
		}
		if d := s.debt(st.ID); d != nil && Elapsed(s.Steps[st.ID].At, now) >= st.Hold {
			return d
		}
	}
	return nil
}

// waitHold holds the recovery back while a fault with a hold lasts.
func waitHold(s State, i int, now event.Reading) (Move, bool) {
	if s.Program[i].Kind == StepFault {
		return Move{}, false
	}
	for _, st := range s.Program[:i] {
		if st.Kind == StepFault && st.Hold > 0 && s.debt(st.ID) != nil {
			return Move{Kind: MoveWait, Wait: max(time.Millisecond, st.Hold-Elapsed(s.Steps[st.ID].At, now))}, true
		}
	}
	return Move{}, false
}

// afterFailure says whether a failed step ends the drill. A recovery that failed
// or did not come does not: the way back and the checks still have to show what
// state the system is in.
func afterFailure(s State, done []Step) (Move, bool) {
	for _, st := range done {
		p := s.Steps[st.ID]
		if p.Status != Failed {
			continue
		}
		switch st.Kind {
		case StepSteady:
			return abort("firedrill", st.ID+": "+p.Reason, CauseSteady), true
		case StepFault:
			return abort("firedrill", st.ID+": "+p.Reason, CauseFailure), true
		}
	}
	return Move{}, false
}

func nextStep(s State, i int, now event.Reading) Move {
	st := s.Program[i]
	p := s.Steps[st.ID]
	if p.Status == Asked {
		return nextAsked(s, st, p, now)
	}
	if wait := st.After - Elapsed(endOf(s, i), now); wait > 0 {
		return Move{Kind: MoveWait, Wait: wait}
	}
	switch st.Kind {
	case StepBegin:
		return draft(event.TypePhaseStarted, event.PhaseStarted{Phase: st.Phase})
	case StepBaseline:
		return draft(event.TypeBaselineRequested, event.BaselineRequested{Step: st.ID})
	case StepSteady:
		return draft(event.TypeSteadyRequested, event.SteadyRequested{Step: st.ID})
	case StepFault:
		if open, wait := windowOpen(s.Drill.Spec.Guards.Windows, now.Wall); !open {
			return Move{Kind: MoveWait, Wait: wait}
		}
		return Move{Kind: MoveResolve, Step: st}
	case StepRecovery:
		if recoveryFailed(s, st.Phase) {
			return draft(event.TypeActionFailed, event.ActionFailed{Step: st.ID, Reason: "not tried: an earlier recovery action failed"})
		}
		return Move{Kind: MoveResolve, Step: st}
	case StepRestore:
		return Move{Kind: MoveResolve, Step: st}
	case StepSettle:
		return waitAnswer(s, i, now)
	case StepChecks:
		return draft(event.TypeChecksRequested, event.ChecksRequested{Step: st.ID})
	case StepKeep:
		return draft(event.TypeMirrorRequested, event.MirrorRequested{Step: st.ID, From: ofDrill(s, st.From), To: ofDrill(s, st.To), Mirror: st.Mirror})
	case StepUndo:
		return undo(s, *lastDebt(s), now) // Position stays here only while the phase owes something
	}
	return draft(event.TypePhaseFinished, event.PhaseFinished{Phase: st.Phase, Complete: true})
}

// ofDrill fills the drill's id into a location, so that each drill keeps its
// evidence apart.
func ofDrill(s State, location string) string { return strings.ReplaceAll(location, "{drill}", s.ID) }

// nextAsked handles a step whose intent or request is stored without an outcome.
func nextAsked(s State, st Step, p Progress, now event.Reading) Move {
	switch st.Kind {
	case StepFault:
		if p.Epoch != s.Lease.Epoch {
			return draft(event.TypeFaultFailed, event.FaultFailed{Step: st.ID, Unknown: true,
				Reason: "the injector that intended the fault was replaced; whether it took effect is unknown, so it is undone"})
		}
		return Move{Kind: MovePerform, Step: st}
	case StepRecovery, StepRestore:
		if p.Epoch != s.Lease.Epoch {
			return Move{Kind: MoveResolve, Step: st} // idempotent: intend it again under this lease
		}
		return Move{Kind: MovePerform, Step: st}
	}
	if st.Limit > 0 {
		if wait := st.Limit - Elapsed(p.At, now); wait > 0 {
			return Move{Kind: MoveWait, Wait: wait}
		}
		return abort("firedrill", fmt.Sprintf("%s: the %s did not answer within %s: is it running?", st.ID, answerer(st.Kind), st.Limit), CauseFailure)
	}
	return Move{Kind: MoveWait}
}

// answerer is the service that a step waits for.
func answerer(k StepKind) string {
	switch k {
	case StepBaseline, StepChecks:
		return event.Validator
	case StepKeep:
		return event.Mirror
	}
	return event.Observer
}

// waitAnswer waits for an answer that was not asked for by an event.
func waitAnswer(s State, i int, now event.Reading) Move {
	st := s.Program[i]
	// A fault with a hold ends after its step: the recovery counts from there.
	since := min(Elapsed(endOf(s, i), now), Elapsed(s.HoldEnded, now))
	if wait := st.Limit - since; wait > 0 {
		return Move{Kind: MoveWait, Wait: wait}
	}
	return abort("firedrill", fmt.Sprintf("%s: nobody said within %s whether the system recovered: is the observer running?", st.ID, st.Limit), CauseFailure)
}

// nextCleanUp is the way out after an abort: undo in reverse order, close the
// phase, finish.
func nextCleanUp(s State, now event.Reading) Move {
	if d := lastDebt(s); d != nil && mayUndo(s) {
		return undo(s, *d, now)
	}
	if m, ok := checkRestored(s, now); ok {
		return m
	}
	if s.Phase != "" {
		return draft(event.TypePhaseFinished, event.PhaseFinished{Phase: s.Phase, Reason: s.Abort.Reason})
	}
	var left []string
	for _, d := range s.Debts {
		left = append(left, d.Step)
	}
	return draft(event.TypeDrillFinished, event.DrillFinished{Reason: s.Abort.Reason, Outstanding: left})
}

// mayUndo tells whether the targets are this drill's. A settlement that could not
// take its systems must leave them alone: another drill may be running there. Only
// the clean-up has to ask: a plan without systems comes with an abort, in one append
// (decidePlanned), so no settlement goes forward after one.
func mayUndo(s State) bool {
	return s.Settles == "" || s.Planned != nil && len(s.Planned.Systems) > 0
}

// checkRestored has the restore checks of the open phase made also after an
// abort, if anything was done to a target in it: that all is back in place is to
// be shown, not believed. No answer in time ends the wait, not the clean-up.
func checkRestored(s State, now event.Reading) (Move, bool) {
	touched := false
	for _, st := range s.Program {
		if st.Phase != s.Phase {
			continue
		}
		p := s.Steps[st.ID]
		switch st.Kind {
		case StepFault, StepRecovery, StepRestore:
			touched = touched || p.Epoch > 0
		case StepChecks:
			if !touched || st.ID != StepID(s.Phase, StepChecks, Restored) {
				continue
			}
			switch p.Status {
			case Waiting:
				return draft(event.TypeChecksRequested, event.ChecksRequested{Step: st.ID}), true
			case Asked:
				if wait := abortedChecksLimit - Elapsed(p.At, now); wait > 0 {
					return Move{Kind: MoveWait, Wait: wait}, true
				}
			}
		}
	}
	return Move{}, false
}

// abortedChecksLimit is how long an aborted drill waits for its restore checks:
// whoever aborted it wants it to end.
const abortedChecksLimit = 2 * time.Minute

// undo intends or performs the next try for a debt.
func undo(s State, d Debt, now event.Reading) Move {
	if s.Waives != "" {
		return draft(event.TypeUndoWaived, event.UndoWaived{Step: d.Step, By: s.Requester, Reason: s.Waives})
	}
	if d.Asked && d.Epoch == s.Lease.Epoch {
		return Move{Kind: MoveUndo, Debt: d}
	}
	if wait := undoPause(d.Failed) - Elapsed(d.FailedAt, now); d.Failed > 0 && wait > 0 {
		return Move{Kind: MoveWait, Wait: wait}
	}
	return draft(event.TypeUndoIntended, event.UndoIntended{Step: d.Step, Epoch: s.Lease.Epoch, Try: d.Tries + 1})
}

// lastDebt is the newest effect that can still be undone.
func lastDebt(s State) *Debt {
	for i := len(s.Debts) - 1; i >= 0; i-- {
		if !s.Debts[i].GaveUp {
			return &s.Debts[i]
		}
	}
	return nil
}

func gaveUp(s State) []string {
	var out []string
	for _, d := range s.Debts {
		if d.GaveUp {
			out = append(out, d.Step)
		}
	}
	return out
}

func recoveryFailed(s State, phase string) bool {
	for _, st := range s.Program {
		if st.Phase == phase && st.Kind == StepRecovery && s.Steps[st.ID].Status == Failed {
			return true
		}
	}
	return false
}

// endOf is when the step before i ended: the moment that After counts from.
func endOf(s State, i int) event.Reading {
	if i == 0 {
		return s.PlannedAt
	}
	return s.Steps[s.Program[i-1].ID].At
}

// Elapsed is the time between two readings: exact on one clock, by the wall
// clock between machines.
func Elapsed(from, to event.Reading) time.Duration {
	if from.Clock == to.Clock && from.Clock != "" {
		return time.Duration(to.Mono - from.Mono)
	}
	return to.Wall.Sub(from.Wall)
}

func draft(t event.Type, data any) Move {
	return Move{Kind: MoveAppend, Drafts: []event.Draft{{Type: t, Data: data}}}
}

func abort(by, reason, cause string) Move {
	return draft(event.TypeAbortRequested, event.AbortRequested{By: by, Reason: reason, Cause: cause})
}

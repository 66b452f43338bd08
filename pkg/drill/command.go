package drill

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// Command is something that happened outside the history and wants to enter it.
type Command interface{ isCommand() }

// TakeLease makes Holder the conductor.
type TakeLease struct {
	Holder string
	TTL    time.Duration
	Reason string
}

// RenewLease is the holder's sign of life.
type RenewLease struct{ Holder string }

// Abort cuts the drill short.
type Abort struct{ By, Reason, Cause string }

// Approve lets a drill that asked for approval go on.
type Approve struct{ By string }

// Planned is the outcome of MovePlan.
type Planned struct {
	Steps []event.PlannedStep
	// Systems are the identities of the targets, now claimed for this drill.
	Systems map[string]string
	// Problem is why the drill must not begin, apart from what the steps say.
	Problem string
}

// Surveyed is the outcome of MoveSurvey.
type Surveyed struct {
	// Problem is why nothing must be broken.
	Problem string
}

// Resolved is the outcome of MoveResolve: what the driver would do, or Err.
type Resolved struct {
	Step    Step
	Parts   []event.Part
	Undo    json.RawMessage
	DeadMan time.Duration
	Err     error
}

// Prepared is the outcome of MovePrepare. It changes nothing: what could not be
// planned ahead is planned again when its time comes.
type Prepared struct{}

// Performed is the outcome of MovePerform.
type Performed struct {
	Step         Step
	Began, Ended event.Reading
	Proof        event.Proof
	Details      map[string]string
	Err          error
}

// Undone is the outcome of MoveUndo.
type Undone struct {
	Debt         Debt
	Began, Ended event.Reading
	Details      map[string]string
	Err          error
	// Permanent says that no other try could do better than Err.
	Permanent bool
}

func (TakeLease) isCommand()  {}
func (RenewLease) isCommand() {}
func (Abort) isCommand()      {}
func (Approve) isCommand()    {}
func (Planned) isCommand()    {}
func (Surveyed) isCommand()   {}
func (Resolved) isCommand()   {}
func (Prepared) isCommand()   {}
func (Performed) isCommand()  {}
func (Undone) isCommand()     {}

// ErrOver is returned for a command that comes after the drill's end.
var ErrOver = errors.New("the drill is over")

// Decide turns a command into the events that record it; none when the command
// changes nothing (a second abort, an outcome already known).
func Decide(s State, c Command) ([]event.Draft, error) {
	if s.Finished != nil {
		return nil, ErrOver
	}
	switch c := c.(type) {
	case TakeLease:
		return one(event.TypeLeaseTaken, event.LeaseTaken{Holder: c.Holder, Epoch: s.Lease.Epoch + 1, TTL: event.Duration(c.TTL), Reason: c.Reason})
	case RenewLease:
		return one(event.TypeLeaseRenewed, event.LeaseRenewed{Holder: c.Holder, Epoch: s.Lease.Epoch})
	case Abort:
		if s.Abort != nil {
			return nil, nil
		}
		return one(event.TypeAbortRequested, event.AbortRequested{By: c.By, Reason: c.Reason, Cause: c.Cause})
	case Approve:
		if s.Approval != "requested" {
			return nil, nil
		}
		return one(event.TypeApprovalGiven, event.ApprovalGiven{By: c.By})
	case Planned:
		return decidePlanned(s, c)
	case Surveyed:
		if c.Problem == "" || !SurveyDue(s) {
			return nil, nil
		}
		return abort("firedrill", strings.ReplaceAll(c.Problem, "\n", "; "), CauseGuard).Drafts, nil
	case Resolved:
		return decideResolved(s, c)
	case Prepared:
		return nil, nil
	case Performed:
		return decidePerformed(s, c)
	case Undone:
		return decideUndone(s, c)
	}
	return nil, fmt.Errorf("decide: unknown command %T", c)
}

func decidePlanned(s State, c Planned) ([]event.Draft, error) {
	if s.Planned != nil || s.Abort != nil {
		return nil, nil
	}
	plan := event.DrillPlanned{Steps: c.Steps, Systems: c.Systems}
	kinds := map[string]StepKind{}
	for _, st := range s.Program {
		kinds[st.ID] = st.Kind
	}
	// A recovery that cannot even be resolved is no reason to break anything.
	problem := c.Problem
	for _, st := range c.Steps {
		if st.Problem != "" && problem == "" {
			problem = st.Step + ": " + st.Problem
		}
		if kinds[st.Step] == StepFault {
			plan.BlastRadius = max(plan.BlastRadius, len(st.Parts))
		}
	}
	if s.Settles != "" && len(c.Systems) == 0 && problem == "" {
		problem = "the systems could not be taken for the settlement"
	}
	drafts := []event.Draft{{Type: event.TypeDrillPlanned, Data: plan}}
	if problem != "" {
		drafts = append(drafts, abort("firedrill", problem, CauseGuard).Drafts...)
	}
	return drafts, nil
}

func decideResolved(s State, c Resolved) ([]event.Draft, error) {
	if i := s.Position(); s.Abort != nil || i == len(s.Program) || s.Program[i].ID != c.Step.ID {
		return nil, nil // what was resolved is no longer wanted
	}
	fault := c.Step.Kind == StepFault
	err := c.Err
	if err == nil && fault {
		err = GuardParts(s.Drill.Spec.Guards, c.Parts)
	}
	if err != nil {
		if fault {
			return one(event.TypeFaultFailed, event.FaultFailed{Step: c.Step.ID, Reason: err.Error()})
		}
		return one(event.TypeActionFailed, event.ActionFailed{Step: c.Step.ID, Reason: err.Error()})
	}
	e := event.Effect{Step: c.Step.ID, Target: c.Step.Target, Operation: c.Step.Operation, Epoch: s.Lease.Epoch, Parts: c.Parts, Undo: c.Undo}
	if fault {
		return one(event.TypeFaultIntended, event.FaultIntended{Effect: e, Hold: event.Duration(c.Step.Hold), DeadMan: event.Duration(c.DeadMan)})
	}
	return one(event.TypeActionIntended, event.ActionIntended{Effect: e})
}

func decidePerformed(s State, c Performed) ([]event.Draft, error) {
	if s.Steps[c.Step.ID].Status != Asked {
		return nil, nil
	}
	switch fault := c.Step.Kind == StepFault; {
	case c.Err != nil && fault:
		return one(event.TypeFaultFailed, event.FaultFailed{Step: c.Step.ID, Reason: c.Err.Error()})
	case c.Err != nil:
		return one(event.TypeActionFailed, event.ActionFailed{Step: c.Step.ID, Reason: c.Err.Error()})
	case fault:
		return one(event.TypeFaultInjected, event.FaultInjected{Step: c.Step.ID, F0: c.Began, F1: c.Ended, Proof: c.Proof})
	}
	return one(event.TypeActionDone, event.ActionDone{Step: c.Step.ID, Began: c.Began, Ended: c.Ended, Details: c.Details})
}

func decideUndone(s State, c Undone) ([]event.Draft, error) {
	d := s.debt(c.Debt.Step)
	if d == nil || !d.Asked {
		return nil, nil
	}
	if c.Err != nil {
		return one(event.TypeUndoFailed, event.UndoFailed{Step: d.Step, Try: d.Tries, Reason: c.Err.Error(), Permanent: c.Permanent})
	}
	return one(event.TypeUndoDone, event.UndoDone{Step: d.Step, Began: c.Began, Ended: c.Ended, Details: c.Details})
}

func one(t event.Type, data any) ([]event.Draft, error) {
	return []event.Draft{{Type: t, Data: data}}, nil
}

package drill

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
)

// Status is how far a step has come.
type Status string

// The statuses of a step.
const (
	Waiting Status = ""
	// Asked: the intent or the request is in the history, the outcome is not.
	Asked  Status = "asked"
	Done   Status = "done"
	Failed Status = "failed"
)

// Progress is the state of one step.
type Progress struct {
	Status Status
	// Epoch is the lease under which it was asked.
	Epoch int64
	// At is when it came to its status.
	At event.Reading
	// Reason is set when it failed.
	Reason string
}

// Debt is an effect that has to be undone.
type Debt struct {
	Step      string
	Phase     string
	Target    string
	Operation string
	Undo      json.RawMessage
	// Tries counts undo.intended; Asked is true while one has no outcome.
	Tries int
	Asked bool
	// Failed counts the tries that failed; FailedAt is when the last one did.
	Failed   int
	FailedAt event.Reading
	// Epoch is the lease of the last try.
	Epoch int64
	// GaveUp is true when the last try failed, or one that none could better: somebody
	// must look.
	GaveUp bool
}

// Lease is who conducts the drill.
type Lease struct {
	Holder string
	Epoch  int64
	// Seen is the holder's last event.
	Seen event.Reading
}

// State is everything the drill's events say. It is a value: Apply returns a
// new one and leaves the old one as it was.
type State struct {
	ID        string
	Requester string
	Request   event.RequestRef
	// Settles is the earlier drill whose outstanding undos this one carries out;
	// empty for a drill of its own.
	Settles string
	// Anew names the targets that a settlement's request described anew.
	Anew []string
	// Waives is why a settlement undoes nothing; empty for every other one.
	Waives string
	// Systems are the identities of the targets, as planned.
	Systems  map[string]string
	Seed     int64
	Drill    Drill
	Program  []Step
	Accepted event.Reading
	Planned  *event.DrillPlanned
	// PlannedAt is when the plan was stored.
	PlannedAt event.Reading
	// Approval is "", "requested" or "given".
	Approval string
	Lease    Lease
	Steps    map[string]Progress
	Debts    []Debt
	// Phase is the open phase, or "".
	Phase string
	// HoldEnded is when the last fault with a hold was undone.
	HoldEnded event.Reading
	Abort     *event.AbortRequested
	Finished  *event.DrillFinished
	// Published is true when the report is out: the history is closed.
	Published bool
	// Index is the chain index of the last event applied; events up to it are
	// ignored, so duplicates change nothing.
	Index int32
	Last  event.Reading
	// Ignored counts events of unknown type or without meaning here.
	Ignored int
}

// Step returns a step's progress.
func (s State) Step(id string) Progress { return s.Steps[id] }

// LetGo says that a settlement undid nothing, and on whose word; "" for all others.
func (s State) LetGo() string {
	if s.Waives == "" {
		return ""
	}
	return "let go on " + s.Requester + "'s word: NOT undone by firedrill"
}

// Position is the index in Program of the first step that has no outcome, or
// len(Program). The undo step of a phase is over when the phase owes nothing.
func (s State) Position() int {
	for i, st := range s.Program {
		if st.Kind == StepUndo {
			if s.owes(st.Phase) {
				return i
			}
			continue
		}
		if p := s.Steps[st.ID].Status; p == Waiting || p == Asked {
			return i
		}
	}
	return len(s.Program)
}

// holds reports whether a step is a fault that lasts for a time of its own.
func (s State) holds(id string) bool {
	return slices.ContainsFunc(s.Program, func(st Step) bool { return st.ID == id && st.Kind == StepFault && st.Hold > 0 })
}

func (s State) owes(phase string) bool {
	return slices.ContainsFunc(s.Debts, func(d Debt) bool { return d.Phase == phase })
}

// Apply folds one event into the state. It never fails: what it cannot
// understand is counted in Ignored, since a history must stay readable.
func Apply(s State, e event.Event) State {
	if e.ChainIndex <= s.Index {
		return s
	}
	s.Index, s.Last = e.ChainIndex, e.At()
	payload, err := event.Decode(e)
	if err != nil {
		s.Ignored++
		return s
	}
	s.Steps, s.Debts = maps.Clone(s.Steps), slices.Clone(s.Debts)
	if s.Steps == nil {
		s.Steps = map[string]Progress{}
	}
	if e.Service() == event.Injector && e.Instance() == s.Lease.Holder {
		s.Lease.Seen = e.At()
	}
	switch p := payload.(type) {
	case *event.DrillAccepted:
		s = applyAccepted(s, e, p)
	case *event.DrillPlanned:
		s.Planned, s.PlannedAt = p, e.At()
		if len(p.Systems) > 0 { // a settlement knows them from the start
			s.Systems = p.Systems
		}
	case *event.LeaseTaken:
		s.Lease = Lease{Holder: p.Holder, Epoch: p.Epoch, Seen: e.At()}
	case *event.LeaseRenewed:
		// The sign of life was noted above.
	case *event.ApprovalRequested:
		s.Approval = "requested"
	case *event.ApprovalGiven:
		s.Approval = "given"
	case *event.AbortRequested:
		if s.Abort == nil {
			s.Abort = p
		}
	case *event.DrillFinished:
		s.Finished = p
	case *event.ReportPublished:
		s.Published = true
	default:
		if !applyStep(&s, e, payload) {
			s.Ignored++
		}
	}
	return s
}

func applyAccepted(s State, e event.Event, p *event.DrillAccepted) State {
	s.ID, s.Requester, s.Request, s.Seed, s.Accepted = e.Subject, p.Requester, p.Request, p.Seed, e.At()
	if err := json.Unmarshal(p.Spec, &s.Drill); err != nil {
		s.Ignored++
		return s
	}
	s.Program = Compile(s.Drill)
	s.Anew, s.Waives = p.Anew, p.Waives
	if s.Settles, s.Systems = p.Settles, p.Systems; s.Settles != "" {
		for _, e := range p.Owes {
			s.Phase = phaseOf(s.Program, e.Step)
			addDebt(&s, e)
		}
		s.Phase, s.Program = "", settlement(s.Program, s.Debts)
	}
	return s
}

func phaseOf(program []Step, id string) string {
	if i := slices.IndexFunc(program, func(st Step) bool { return st.ID == id }); i >= 0 {
		return program[i].Phase
	}
	return ""
}

// applyStep handles the events that move a step or a debt.
func applyStep(s *State, e event.Event, payload any) bool {
	set := func(id string, st Status, reason string) {
		pr := s.Steps[id]
		if pr.Status == Done || pr.Status == Failed {
			return // the first outcome counts
		}
		s.Steps[id] = Progress{Status: st, Epoch: pr.Epoch, At: e.At(), Reason: reason}
	}
	ask := func(id string, epoch int64) {
		s.Steps[id] = Progress{Status: Asked, Epoch: epoch, At: e.At()}
	}
	switch p := payload.(type) {
	case *event.PhaseStarted:
		s.Phase = p.Phase
		set(StepID(p.Phase, StepBegin, ""), Done, "")
	case *event.PhaseFinished:
		s.Phase = ""
		set(StepID(p.Phase, StepEnd, ""), Done, p.Reason)
	case *event.BaselineRequested:
		ask(p.Step, s.Lease.Epoch)
	case *event.BaselineRecorded:
		set(p.Step, Done, "")
	case *event.SteadyRequested:
		ask(p.Step, s.Lease.Epoch)
	case *event.SteadyEstablished:
		set(p.Step, Done, "")
	case *event.SteadyViolated:
		set(p.Step, Failed, firstOf(p.Reasons))
	case *event.RecoveryStable:
		set(p.Step, Done, "")
	case *event.RecoveryMissing:
		set(p.Step, Failed, firstOf(p.Reasons))
	case *event.ChecksRequested:
		ask(p.Step, s.Lease.Epoch)
	case *event.ChecksCompleted:
		set(p.Step, Done, "")
	case *event.MirrorRequested:
		ask(p.Step, s.Lease.Epoch)
	case *event.MirrorCompleted:
		set(p.Step, Done, "")
	case *event.MirrorFailed:
		set(p.Step, Failed, p.Reason)
	case *event.FaultIntended:
		ask(p.Step, p.Epoch)
		addDebt(s, p.Effect)
	case *event.FaultInjected:
		set(p.Step, Done, "")
	case *event.FaultFailed:
		set(p.Step, Failed, p.Reason)
	case *event.ActionIntended:
		ask(p.Step, p.Epoch)
		addDebt(s, p.Effect)
	case *event.ActionDone:
		set(p.Step, Done, "")
	case *event.ActionFailed:
		set(p.Step, Failed, p.Reason)
	default:
		return applyUndo(s, e, payload)
	}
	return true
}

func applyUndo(s *State, e event.Event, payload any) bool {
	switch p := payload.(type) {
	case *event.UndoIntended:
		if d := s.debt(p.Step); d != nil {
			d.Tries, d.Asked, d.Epoch = p.Try, true, p.Epoch
		}
	case *event.UndoDone:
		if s.holds(p.Step) {
			s.HoldEnded = e.At()
		}
		s.Debts = slices.DeleteFunc(s.Debts, func(d Debt) bool { return d.Step == p.Step })
	case *event.UndoWaived:
		s.Debts = slices.DeleteFunc(s.Debts, func(d Debt) bool { return d.Step == p.Step })
	case *event.UndoFailed:
		if d := s.debt(p.Step); d != nil {
			d.Asked, d.FailedAt = false, e.At()
			d.Failed++
			d.GaveUp = d.Failed >= MaxUndoTries || p.Permanent
		}
	case *event.ObserverClaimed, *event.ClockCompared, *event.ProbeBatch, *event.OutageStarted, *event.OutageEnded,
		*event.LedgerCut, *event.CheckCompleted, *event.EvidenceCollected, *event.ExternalNoted:
		// Evidence for the report; the drill's course does not depend on it.
	default:
		return false
	}
	return true
}

// addDebt notes what an intent promises to undo. A repeated action keeps the
// record of its first intent: that one saw the state to go back to.
func addDebt(s *State, e event.Effect) {
	if len(e.Undo) == 0 || s.debt(e.Step) != nil {
		return
	}
	s.Debts = append(s.Debts, Debt{Step: e.Step, Phase: s.Phase, Target: e.Target, Operation: e.Operation, Undo: e.Undo})
}

func (s *State) debt(step string) *Debt {
	for i := range s.Debts {
		if s.Debts[i].Step == step {
			return &s.Debts[i]
		}
	}
	return nil
}

// Fold applies a history's events from the first one on. Only trusted ones may be
// among them: the state tells what is to be done and undone.
func Fold(trusted iter.Seq[event.Event]) State {
	var s State
	for e := range trusted {
		s = Apply(s, e)
	}
	return s
}

func firstOf(ss []string) string {
	if len(ss) == 0 {
		return "no reason given"
	}
	return ss[0]
}

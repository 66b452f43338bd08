package fold

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// entry is one trusted event with its payload and its place in the history.
type entry struct {
	order   int
	event   event.Event
	payload any
}

func (e entry) at() event.Reading { return e.event.At() }

// history is a drill's trusted events, sorted by what they are about.
type history struct {
	verification Verification
	// sound is false when events are altered, missing or out of order: what is
	// left cannot prove anything.
	sound     bool
	first     entry
	last      entry
	accepted  *event.DrillAccepted
	drill     drill.Drill
	specFault string
	planned   *event.DrillPlanned
	finished  *event.DrillFinished
	// finishedAt is the event of finished.
	finishedAt entry
	conduct    Conduct
	notes      []Note
	// turns are the lease.taken, claims the observer.claimed events.
	turns, claims, aborts []entry
	phases                map[string]*phaseLog
	clocks                []entry
}

// phaseLog is one phase's events.
type phaseLog struct {
	name     string
	entries  []entry
	batches  []event.ProbeBatch
	started  *entry
	finished *entry
}

// gather proves the messages and sorts the trusted events. The history ends
// before report.published: the report cannot be part of itself.
func gather(ms []message) (*history, error) {
	h := &history{phases: map[string]*phaseLog{}}
	h.verification.Unknown = map[string]int{}
	id := h.prove(ms)
	trusted := 0
	for i := range ms {
		if ms[i].Err != nil {
			continue
		}
		if ms[i].Event.Subject == id {
			h.take(trusted, &ms[i])
		}
		trusted++
	}
	if h.accepted == nil {
		return nil, fmt.Errorf("fold %d messages, %d of them trusted: %w", len(ms), trusted, ErrNoDrill)
	}
	return h, nil
}

// prove checks the chain of what was opened, and names the drill.
func (h *history) prove(ms []message) string {
	opened := make([]event.Opened, len(ms))
	for i := range ms {
		opened[i] = ms[i].Opened
	}
	v := event.VerifyOpened(opened)
	h.verification.Events, h.verification.Trusted = v.Messages, v.Events
	h.verification.Whole, h.verification.Hash = v.Whole(), v.Head
	h.sound = true
	for _, f := range v.Findings {
		h.verification.Problems = append(h.verification.Problems, f.String())
		if f.Kind != event.FindingForeign && f.Kind != event.FindingDuplicate {
			h.sound = false
		}
	}
	return v.Drill
}

// take sorts one event in. Events at a place of the chain that was passed
// already are duplicates and change nothing.
func (h *history) take(order int, m *message) {
	e := m.Event
	if e.ChainIndex <= h.last.event.ChainIndex {
		return
	}
	if m.fault != nil {
		h.verification.Problems = append(h.verification.Problems, m.fault.Error())
		h.sound = false
		return
	}
	n := entry{order, e, m.payload}
	h.last = n
	h.verification.Of = e.ChainIndex
	switch p := m.payload.(type) {
	case *event.Unknown:
		h.verification.Unknown[string(e.Type)]++
	case *event.DrillAccepted:
		h.accept(n, p)
	case *event.DrillPlanned:
		h.planned = p
	case *event.DrillFinished:
		h.finished, h.finishedAt = p, n
	case *event.LeaseTaken:
		h.turns = append(h.turns, n)
		h.conduct.Leases = append(h.conduct.Leases, Lease{Holder: p.Holder, Epoch: p.Epoch, At: e.Time, Reason: p.Reason})
	case *event.ObserverClaimed:
		h.claims = append(h.claims, n)
		h.conduct.Observers = append(h.conduct.Observers, Observer{Instance: p.Instance, Epoch: p.Epoch, At: e.Time})
	case *event.AbortRequested:
		h.aborts = append(h.aborts, n)
		h.conduct.Aborts = append(h.conduct.Aborts, Abort{By: p.By, Cause: p.Cause, Reason: reasonOf(p), At: e.Time})
	case *event.ApprovalGiven:
		h.conduct.Approvals = append(h.conduct.Approvals, p.By)
	case *event.ClockCompared:
		h.clocks = append(h.clocks, n)
	case *event.ExternalNoted:
		h.notes = append(h.notes, Note{From: p.From, Note: p.Note, At: e.Time})
	default:
		h.takePhase(n)
	}
}

func (h *history) accept(n entry, p *event.DrillAccepted) {
	if h.accepted != nil {
		return
	}
	h.accepted, h.first = p, n
	if err := json.Unmarshal(p.Spec, &h.drill); err != nil {
		h.specFault = "the drill's spec cannot be read: " + err.Error()
		return
	}
	h.drill = drill.WithDefaults(h.drill)
}

// reasonOf is why a drill was aborted. A halt's reason begins by saying that it is
// one, as its cause does.
func reasonOf(p *event.AbortRequested) string {
	if p.Cause == drill.CauseHalt {
		return strings.TrimPrefix(p.Reason, "halted: ")
	}
	return p.Reason
}

func (h *history) takePhase(n entry) {
	phase := phaseOf(n.payload)
	if phase == "" {
		return
	}
	l := h.phases[phase]
	if l == nil {
		l = &phaseLog{name: phase}
		h.phases[phase] = l
	}
	switch p := n.payload.(type) {
	case *event.PhaseStarted:
		if l.started == nil {
			l.started = &n
		}
	case *event.PhaseFinished:
		if l.finished == nil {
			l.finished = &n
		}
	case *event.ProbeBatch:
		l.batches = append(l.batches, *p)
	}
	l.entries = append(l.entries, n)
}

// phaseOf names the phase that a payload is about, or "".
func phaseOf(payload any) string {
	switch p := payload.(type) {
	case *event.PhaseStarted:
		return p.Phase
	case *event.PhaseFinished:
		return p.Phase
	case *event.ProbeBatch:
		return p.Phase
	case *event.OutageStarted:
		return p.Phase
	case *event.OutageEnded:
		return p.Phase
	case *event.EvidenceCollected:
		return p.Phase
	}
	phase, _, _ := strings.Cut(stepOf(payload), "/")
	return phase
}

// stepOf names the step that a payload is about, or "".
func stepOf(payload any) string {
	switch p := payload.(type) {
	case *event.SteadyRequested:
		return p.Step
	case *event.SteadyEstablished:
		return p.Step
	case *event.SteadyViolated:
		return p.Step
	case *event.BaselineRequested:
		return p.Step
	case *event.BaselineRecorded:
		return p.Step
	case *event.ChecksRequested:
		return p.Step
	case *event.CheckCompleted:
		return p.Step
	case *event.ChecksCompleted:
		return p.Step
	case *event.LedgerCut:
		return p.Step
	case *event.RecoveryStable:
		return p.Step
	case *event.RecoveryMissing:
		return p.Step
	}
	return effectOf(payload)
}

// effectOf is stepOf for faults, actions, undos and copies.
func effectOf(payload any) string {
	switch p := payload.(type) {
	case *event.FaultIntended:
		return p.Step
	case *event.FaultInjected:
		return p.Step
	case *event.FaultFailed:
		return p.Step
	case *event.ActionIntended:
		return p.Step
	case *event.ActionDone:
		return p.Step
	case *event.ActionFailed:
		return p.Step
	case *event.UndoIntended:
		return p.Step
	case *event.UndoDone:
		return p.Step
	case *event.UndoFailed:
		return p.Step
	case *event.UndoWaived:
		return p.Step
	case *event.MirrorRequested:
		return p.Step
	case *event.MirrorCompleted:
		return p.Step
	case *event.MirrorFailed:
		return p.Step
	}
	return ""
}

// cutStep splits "<phase>/<kind>/<name>".
func cutStep(step string) (kind drill.StepKind, name string) {
	_, rest, _ := strings.Cut(step, "/")
	k, name, _ := strings.Cut(rest, "/")
	return drill.StepKind(k), name
}

// phaseNames lists the phases in the drill's order, then any that only the
// events know, in the order of their first event.
func (h *history) phaseNames() []string {
	var names []string
	for _, p := range h.drill.Spec.Phases {
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	var strays []*phaseLog
	for n, l := range h.phases {
		if !slices.Contains(names, n) {
			strays = append(strays, l)
		}
	}
	slices.SortFunc(strays, func(a, b *phaseLog) int { return a.entries[0].order - b.entries[0].order })
	for _, l := range strays {
		names = append(names, l.name)
	}
	return names
}

// spec finds a phase's definition.
func (h *history) spec(name string) (drill.Phase, bool) {
	i := slices.IndexFunc(h.drill.Spec.Phases, func(p drill.Phase) bool { return p.Name == name })
	if i < 0 {
		return drill.Phase{}, false
	}
	return h.drill.Spec.Phases[i], true
}

package event

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// Type is an event's type, such as "fault.injected". One token is the type, the
// name of its JSON Schema and, with a dash for the dot, the last token of its
// subject.
type Type string

// The types. Each is written by exactly one service.
const (
	TypeDrillAccepted     Type = "drill.accepted"
	TypeDrillPlanned      Type = "drill.planned"
	TypeDrillFinished     Type = "drill.finished"
	TypeLeaseTaken        Type = "lease.taken"
	TypeLeaseRenewed      Type = "lease.renewed"
	TypeApprovalRequested Type = "approval.requested"
	TypeApprovalGiven     Type = "approval.given"
	TypeAbortRequested    Type = "abort.requested"
	TypePhaseStarted      Type = "phase.started"
	TypePhaseFinished     Type = "phase.finished"
	TypeSteadyRequested   Type = "steady.requested"
	TypeBaselineRequested Type = "baseline.requested"
	TypeFaultIntended     Type = "fault.intended"
	TypeFaultInjected     Type = "fault.injected"
	TypeFaultFailed       Type = "fault.failed"
	TypeActionIntended    Type = "action.intended"
	TypeActionDone        Type = "action.done"
	TypeActionFailed      Type = "action.failed"
	TypeChecksRequested   Type = "checks.requested"
	TypeMirrorRequested   Type = "mirror.requested"
	TypeUndoIntended      Type = "undo.intended"
	TypeUndoDone          Type = "undo.done"
	TypeUndoFailed        Type = "undo.failed"
	TypeUndoWaived        Type = "undo.waived"
	TypeExternalNoted     Type = "external.noted"

	TypeObserverClaimed   Type = "observer.claimed"
	TypeClockCompared     Type = "clock.compared"
	TypeSteadyEstablished Type = "steady.established"
	TypeSteadyViolated    Type = "steady.violated"
	TypeProbeBatch        Type = "probe.batch"
	TypeOutageStarted     Type = "outage.started"
	TypeOutageEnded       Type = "outage.ended"
	TypeRecoveryStable    Type = "recovery.stable"
	TypeRecoveryMissing   Type = "recovery.missing"
	TypeLedgerCut         Type = "ledger.cut"

	TypeBaselineRecorded  Type = "baseline.recorded"
	TypeCheckCompleted    Type = "check.completed"
	TypeChecksCompleted   Type = "checks.completed"
	TypeEvidenceCollected Type = "evidence.collected"

	TypeMirrorCompleted Type = "mirror.completed"
	TypeMirrorFailed    Type = "mirror.failed"

	TypeReportPublished Type = "report.published"
)

// The services' names, as they stand in sources and subjects.
const (
	Injector  = "injector"
	Observer  = "observer"
	Mirror    = "mirror"
	Validator = "validator"
	Reporter  = "reporter"
)

// Services lists the five services.
func Services() []string { return []string{Injector, Observer, Mirror, Validator, Reporter} }

// Info is one row of the table of types.
type Info struct {
	Type Type
	// Version is the payload's version; a released version's schema is frozen.
	Version string
	// Service is the only service that may write the type.
	Service string
	// Summary is one sentence for the catalogue.
	Summary string
	payload reflect.Type
}

// New returns a pointer to a zero payload.
func (i Info) New() any { return reflect.New(i.payload).Interface() }

// PayloadType is the payload's Go type, for deriving its schema.
func (i Info) PayloadType() reflect.Type { return i.payload }

// Schema is the payload's dataschema URI.
func (i Info) Schema() string { return SchemaBase + i.Version + "/" + string(i.Type) + ".json" }

// Kind is the type as a subject token: "fault-injected".
func (t Type) Kind() string { return strings.ReplaceAll(string(t), ".", "-") }

func row[P any](t Type, service, summary string) Info {
	return Info{Type: t, Version: "v1", Service: service, Summary: summary, payload: reflect.TypeFor[P]()}
}

// Table returns every type, in the order of a drill's life. It is the one place
// where types, payloads and writers are listed.
func Table() []Info {
	return []Info{
		row[DrillAccepted](TypeDrillAccepted, Injector, "A request became a drill."),
		row[DrillPlanned](TypeDrillPlanned, Injector, "The drill's targets were resolved and its actions listed."),
		row[LeaseTaken](TypeLeaseTaken, Injector, "An injector instance conducts the drill from here on."),
		row[LeaseRenewed](TypeLeaseRenewed, Injector, "The conducting instance is alive."),
		row[ApprovalRequested](TypeApprovalRequested, Injector, "The drill waits for approval."),
		row[ApprovalGiven](TypeApprovalGiven, Injector, "Somebody approved the drill."),
		row[ObserverClaimed](TypeObserverClaimed, Observer, "An observer instance watches the drill."),
		row[ClockCompared](TypeClockCompared, Observer, "Another process's clock was compared with the observer's."),
		row[PhaseStarted](TypePhaseStarted, Injector, "A phase began."),
		row[SteadyRequested](TypeSteadyRequested, Injector, "The observer is asked whether the steady state holds."),
		row[ProbeBatch](TypeProbeBatch, Observer, "Attempts of one probe lane."),
		row[SteadyEstablished](TypeSteadyEstablished, Observer, "The steady state held."),
		row[SteadyViolated](TypeSteadyViolated, Observer, "The steady state did not hold."),
		row[BaselineRequested](TypeBaselineRequested, Injector, "The validator is asked for baselines."),
		row[BaselineRecorded](TypeBaselineRecorded, Validator, "What later checks compare with was recorded."),
		row[FaultIntended](TypeFaultIntended, Injector, "A fault is about to be injected; its undo is on record."),
		row[FaultInjected](TypeFaultInjected, Injector, "A fault took effect."),
		row[FaultFailed](TypeFaultFailed, Injector, "A fault could not be injected, or nobody knows whether it was."),
		row[OutageStarted](TypeOutageStarted, Observer, "A probe lane began to fail."),
		row[ActionIntended](TypeActionIntended, Injector, "A recovery or restore action is about to be taken."),
		row[ActionDone](TypeActionDone, Injector, "An action succeeded."),
		row[ActionFailed](TypeActionFailed, Injector, "An action failed."),
		row[OutageEnded](TypeOutageEnded, Observer, "A probe lane works again."),
		row[RecoveryStable](TypeRecoveryStable, Observer, "The system is stable again."),
		row[RecoveryMissing](TypeRecoveryMissing, Observer, "The system did not become stable in time."),
		row[LedgerCut](TypeLedgerCut, Observer, "The ledgers are settled up to a sequence number."),
		row[ChecksRequested](TypeChecksRequested, Injector, "The observer settles its ledgers, then the validator checks."),
		row[CheckCompleted](TypeCheckCompleted, Validator, "One check's results."),
		row[ChecksCompleted](TypeChecksCompleted, Validator, "All checks of a step are done."),
		row[EvidenceCollected](TypeEvidenceCollected, Validator, "Troubleshooting evidence was kept."),
		row[MirrorRequested](TypeMirrorRequested, Injector, "A copy is asked for."),
		row[MirrorCompleted](TypeMirrorCompleted, Mirror, "A copy is whole and verified."),
		row[MirrorFailed](TypeMirrorFailed, Mirror, "A copy did not come about."),
		row[AbortRequested](TypeAbortRequested, Injector, "The drill is being cut short and cleaned up."),
		row[UndoIntended](TypeUndoIntended, Injector, "A step's undo is about to run."),
		row[UndoDone](TypeUndoDone, Injector, "A step's effect is gone."),
		row[UndoFailed](TypeUndoFailed, Injector, "A try to undo a step failed."),
		row[UndoWaived](TypeUndoWaived, Injector, "Somebody's word stands for a step's undo."),
		row[PhaseFinished](TypePhaseFinished, Injector, "A phase ended."),
		row[ExternalNoted](TypeExternalNoted, Injector, "A system outside firedrill reported something."),
		row[DrillFinished](TypeDrillFinished, Injector, "The drill ended."),
		row[ReportPublished](TypeReportPublished, Reporter, "The report was written; the history is closed."),
	}
}

// byType indexes the table once: every event that is read is looked up.
var byType = sync.OnceValue(func() map[Type]Info {
	m := map[Type]Info{}
	for _, i := range Table() {
		m[i.Type] = i
	}
	return m
})

// Lookup finds a type's row.
func Lookup(t Type) (Info, bool) {
	i, ok := byType()[t]
	return i, ok
}

// Unknown is the payload of a type that this build does not know. It is kept
// and counted, never dropped.
type Unknown struct{ Raw json.RawMessage }

// Decode returns the event's payload as a pointer to its struct, or *Unknown
// for a type or version this build does not know.
func Decode(e Event) (any, error) {
	info, ok := Lookup(e.Type)
	if !ok || e.DataSchema != info.Schema() {
		return &Unknown{Raw: e.Data}, nil
	}
	p := info.New()
	if err := json.Unmarshal(e.Data, p); err != nil {
		return nil, fmt.Errorf("event %s of type %s: payload: %w", e.ID, e.Type, err)
	}
	return p, nil
}

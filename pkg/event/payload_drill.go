package event

import "encoding/json"

// DrillAccepted opens a drill: the request as it was understood.
type DrillAccepted struct {
	// Requester is the <who> of the request's subject.
	Requester string `json:"requester"`
	// Request names the message asked with, for the requester's own books.
	Request RequestRef `json:"request"`
	// Spec is the whole drill as it will be run, in JSON.
	Spec json.RawMessage `json:"spec"`
	// SpecHash is the hex SHA-256 of Spec.
	SpecHash string `json:"spec_hash"`
	// Seed feeds every random choice of the drill.
	Seed int64 `json:"seed,string"`
	// Settles is the earlier drill whose outstanding undos this one carries out;
	// empty for a drill of its own. Spec is then that drill's.
	Settles string `json:"settles,omitempty"`
	// Owes are the effects of the settled drill that are to be undone, in the
	// order in which they took place.
	Owes []Effect `json:"owes,omitempty"`
	// Anew names the targets that the request of a settlement described anew: Spec holds
	// them as described.
	Anew []string `json:"anew,omitempty"`
	// Waives is, for a settlement that undoes nothing, why: its requester says that what
	// is owed was seen to by hand.
	Waives string `json:"waives,omitempty"`
	// Systems are, for a settlement, those of the settled drill's plan.
	Systems map[string]string `json:"systems,omitempty"`
}

// RequestRef locates a request in its stream.
type RequestRef struct {
	Subject  string `json:"subject"`
	Sequence uint64 `json:"sequence"`
	MsgID    string `json:"msg_id,omitempty"`
	// TraceParent is the requester's own trace, which the drill's trace links to.
	TraceParent string `json:"traceparent,omitempty"`
}

// DrillPlanned lists what the drill would touch, resolved against the real
// targets without touching them.
type DrillPlanned struct {
	Steps []PlannedStep `json:"steps"`
	// BlastRadius counts distinct parts hit by faults at the same time, at most.
	BlastRadius int `json:"blast_radius"`
	// Systems maps each target's name to the identity of the system behind it,
	// such as "postgres/7412345678901234567". No other drill runs on these.
	Systems map[string]string `json:"systems,omitempty"`
}

// PlannedStep is one fault or action of the plan.
type PlannedStep struct {
	Step      string   `json:"step"`
	Target    string   `json:"target"`
	Operation string   `json:"operation"`
	Parts     []Part   `json:"parts"`
	Does      []string `json:"does"`
	Undo      string   `json:"undo,omitempty"`
	DeadMan   Duration `json:"dead_man,omitempty"`
	Problem   string   `json:"problem,omitempty"`
}

// Part is one thing a fault hits: a server, a pod, a disk.
type Part struct {
	ID     string            `json:"id"`
	Kind   string            `json:"kind"`
	Labels map[string]string `json:"labels,omitempty"`
}

// LeaseTaken says which injector instance conducts the drill from here on.
type LeaseTaken struct {
	Holder string `json:"holder"`
	// Epoch rises by one with every takeover; effects carry it as a fence.
	Epoch int64    `json:"epoch"`
	TTL   Duration `json:"ttl"`
	// Reason is empty for the first holder.
	Reason string `json:"reason,omitempty"`
}

// LeaseRenewed is the holder's sign of life after a silence.
type LeaseRenewed struct {
	Holder string `json:"holder"`
	Epoch  int64  `json:"epoch"`
}

// PhaseStarted opens a phase.
type PhaseStarted struct {
	Phase string `json:"phase"`
}

// PhaseFinished closes a phase. It carries no verdict: the reporter judges.
type PhaseFinished struct {
	Phase string `json:"phase"`
	// Complete is false when the phase was cut short by an abort or a failure.
	Complete bool   `json:"complete"`
	Reason   string `json:"reason,omitempty"`
}

// SteadyRequested asks the observer whether the phase's steady state holds.
type SteadyRequested struct {
	Step string `json:"step"`
}

// SteadyEstablished says that it held over the window; probing goes on, armed.
type SteadyEstablished struct {
	Step string `json:"step"`
	// Window is how long it was watched.
	Window Duration      `json:"window"`
	Lanes  []LaneSummary `json:"lanes"`
}

// SteadyViolated says that it did not hold, and why.
type SteadyViolated struct {
	Step    string        `json:"step"`
	Reasons []string      `json:"reasons"`
	Lanes   []LaneSummary `json:"lanes"`
}

// LaneSummary describes a probe lane over a window.
type LaneSummary struct {
	Probe     string `json:"probe"`
	Lane      string `json:"lane"`
	Scheduled int64  `json:"scheduled"`
	OK        int64  `json:"ok"`
	P50       Nanos  `json:"p50"`
	P95       Nanos  `json:"p95"`
	P99       Nanos  `json:"p99"`
}

// ApprovalRequested holds the drill until somebody approves it.
type ApprovalRequested struct {
	Reason string `json:"reason"`
}

// ApprovalGiven lets it go on.
type ApprovalGiven struct {
	By string `json:"by"`
}

// AbortRequested starts the clean-up of a drill before its end.
type AbortRequested struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
	// Cause is who-independent: operator, halt, deadline, stop-condition,
	// steady-state, failure, takeover or guard.
	Cause string `json:"cause"`
}

// DrillFinished ends the drill: nothing is broken any more, or Outstanding says
// what still is. The reporter takes it from here.
type DrillFinished struct {
	// Complete is true when every step of the drill was carried out.
	Complete bool   `json:"complete"`
	Reason   string `json:"reason,omitempty"`
	// Outstanding lists steps whose undo failed: someone must look.
	Outstanding []string `json:"outstanding,omitempty"`
}

// ReportPublished closes the history: the chain's last event.
type ReportPublished struct {
	Verdict string `json:"verdict"`
	// Files maps each file of the report to the hex SHA-256 of its bytes; that of
	// events.jsonl is of the lines before this event's own, which is its last.
	Files map[string]string `json:"files"`
	// Of is the chain index of the last event that the report was folded from.
	Of int32 `json:"of"`
}

// ExternalNoted is an observation by a system outside firedrill, as published
// on drill.ext.<drill>: kept, drawn in the timeline, and never judged by.
type ExternalNoted struct {
	From string          `json:"from"`
	Note string          `json:"note"`
	Data json.RawMessage `json:"data,omitempty"`
}

package event

import "encoding/json"

// ObserverClaimed says which observer instance watches the drill. A second
// claim means that the first one died: what it was measuring is INVALID.
type ObserverClaimed struct {
	Instance string `json:"instance"`
	// Epoch counts claims from 1; lanes restart with each.
	Epoch int64 `json:"epoch"`
}

// ClockCompared relates another process's monotonic clock to the observer's:
// other = observer + Offset, within ±Error (half the round trip).
type ClockCompared struct {
	Observer string `json:"observer_clock"`
	Other    string `json:"other_clock"`
	Offset   Nanos  `json:"offset"`
	Error    Nanos  `json:"error"`
}

// ProbeBatch carries a contiguous run of one lane's attempts, in columns. Every
// time is microseconds; starts are rounded down and completions up, so that an
// interval built from them still contains the truth.
type ProbeBatch struct {
	Phase  string `json:"phase"`
	Probe  string `json:"probe"`
	Target string `json:"target"`
	// Kind is write or read.
	Kind string `json:"kind"`
	// Lane is pooled or fresh.
	Lane string `json:"lane"`
	// Reads names, for read lanes, the write probe whose pooled lane's canaries are read.
	Reads string `json:"reads,omitempty"`
	// Epoch is the observer claim that the sequence numbers belong to.
	Epoch int64 `json:"epoch"`
	// Origin is the zero of ScheduledUS of the first attempt.
	Origin Reading `json:"origin"`
	// FirstSeq is the first attempt's sequence number; the others follow by one.
	FirstSeq int64 `json:"first_seq"`
	// ScheduledUS is each slot's distance from the slot before (the first: from Origin).
	ScheduledUS []int64 `json:"scheduled_us"`
	// LateUS is started minus scheduled.
	LateUS []int64 `json:"late_us"`
	// TookUS is completed minus started.
	TookUS []int64 `json:"took_us"`
	// Outcomes has a letter an attempt: k ok, f failed, u unknown, s skipped, n held
	// back with nothing sent.
	Outcomes string `json:"outcomes"`
	// ObservedSeq is, for read lanes, the highest canary seen (0 when not ok).
	ObservedSeq []int64 `json:"observed_seq,omitempty"`
	// Extra are the sequence numbers of attempts that were made besides the
	// schedule: they show whether the service worked, and count as no slot.
	Extra []int64 `json:"extra,omitempty"`
	// Connected are, for pooled lanes, the sequence numbers of attempts that asked by a
	// connection which was begun no earlier than they were: what they met is not a matter
	// of an old connection. Those of other lanes all do.
	Connected []int64 `json:"connected,omitempty"`
	// AskedUS is how long after its start an attempt asked, once it had a connection;
	// empty where all asked at once.
	AskedUS []int64 `json:"asked_us,omitempty"`
	// Deadline is D, after which an attempt counts as unknown.
	DeadlineUS int64 `json:"deadline_us"`
	// Errors are the distinct error texts, each with its first sequence number.
	Errors []ProbeError `json:"errors,omitempty"`
}

// ProbeError is one distinct error of a batch.
type ProbeError struct {
	FirstSeq int64  `json:"first_seq"`
	Count    int64  `json:"count"`
	Text     string `json:"text"`
}

// OutageStarted is the observer's live notice; the report recomputes it.
type OutageStarted struct {
	Phase string `json:"phase"`
	Probe string `json:"probe"`
	Lane  string `json:"lane"`
	// At is the first bad attempt's completion.
	At Reading `json:"at"`
	// Error is what the attempt met.
	Error string `json:"error,omitempty"`
}

// OutageEnded is the observer's live notice of the first ok after an outage.
type OutageEnded struct {
	Phase string  `json:"phase"`
	Probe string  `json:"probe"`
	Lane  string  `json:"lane"`
	At    Reading `json:"at"`
	// Lasted is the outage's length as an interval.
	Lasted Interval `json:"lasted"`
}

// RecoveryStable says that every probe of the phase was stable for its window
// after the fault.
type RecoveryStable struct {
	Step string `json:"step"`
	// At is the first ok of the stable stretch of the slowest lane.
	At Reading `json:"at"`
	// NeverFailed is true when no lane saw a bad attempt.
	NeverFailed bool `json:"never_failed,omitempty"`
}

// RecoveryMissing says that stability did not come within the timeout.
type RecoveryMissing struct {
	Step    string   `json:"step"`
	Waited  Duration `json:"waited"`
	Reasons []string `json:"reasons"`
}

// LedgerCut answers checks.requested: attempts up to these sequence numbers are
// settled and published, so the ledger can be compared with what the target holds.
type LedgerCut struct {
	Step  string    `json:"step"`
	Lanes []LaneCut `json:"lanes"`
}

// LaneCut is the last settled sequence number of one lane.
type LaneCut struct {
	Probe string `json:"probe"`
	Lane  string `json:"lane"`
	Epoch int64  `json:"epoch"`
	UpTo  int64  `json:"up_to"`
}

// BaselineRequested asks the validator to record what checks compare with later.
type BaselineRequested struct {
	Step string `json:"step"`
}

// BaselineRecorded answers.
type BaselineRecorded struct {
	Step string `json:"step"`
	// Checks maps a check's name to the driver's baseline.
	Checks map[string]json.RawMessage `json:"checks,omitempty"`
	// Problems lists checks without a baseline; they will be INCONCLUSIVE.
	Problems []string `json:"problems,omitempty"`
}

// ChecksRequested asks the validator to check the targets.
type ChecksRequested struct {
	Step string `json:"step"`
}

// CheckCompleted is one check's outcome: a result for each property.
type CheckCompleted struct {
	Step       string     `json:"step"`
	Check      string     `json:"check"`
	Target     string     `json:"target"`
	Kind       string     `json:"kind"`
	Began      Reading    `json:"began"`
	Ended      Reading    `json:"ended"`
	Properties []Property `json:"properties"`
	// Ledgers holds, for ledger checks, what the target was found to hold.
	Ledgers []LedgerFound `json:"ledgers,omitempty"`
}

// Property results.
const (
	ResultPass         = "pass"
	ResultFail         = "fail"
	ResultInconclusive = "inconclusive"
	// ResultInfo marks a figure that is recorded and not judged.
	ResultInfo = "info"
)

// Property is one thing that a check found true, false or undecidable.
type Property struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	// Found and Wanted are for people; Found is never empty.
	Found  string `json:"found"`
	Wanted string `json:"wanted,omitempty"`
	// Samples are a few of the offending items, at most 20.
	Samples []string `json:"samples,omitempty"`
}

// LedgerFound is one write lane's canaries as the target holds them.
type LedgerFound struct {
	Probe string `json:"probe"`
	Lane  string `json:"lane"`
	Epoch int64  `json:"epoch"`
	// UpTo is the cut: later canaries are left out on both sides.
	UpTo    int64  `json:"up_to"`
	Present Ranges `json:"present"`
	// Duplicates maps a sequence number, in decimal, to how often it was found.
	Duplicates map[string]int64 `json:"duplicates,omitempty"`
}

// ChecksCompleted closes a step's checks.
type ChecksCompleted struct {
	Step string `json:"step"`
	// Passed is true when no property failed and none was inconclusive.
	Passed bool `json:"passed"`
}

// EvidenceCollected keeps what a person would look at when a phase failed.
type EvidenceCollected struct {
	Phase  string     `json:"phase"`
	Target string     `json:"target"`
	Cause  string     `json:"cause"`
	Items  []Artifact `json:"items"`
}

// Artifact is one piece of evidence, as text, with secrets removed.
type Artifact struct {
	Name string `json:"name"`
	Text string `json:"text"`
	// Truncated says that only the text's end was kept.
	Truncated bool `json:"truncated,omitempty"`
}

// MirrorRequested asks the mirror workers for a copy, or for a run of a mirror.
type MirrorRequested struct {
	Step string `json:"step"`
	// From and To are empty where Mirror names one of the inventory's mirrors.
	From   string `json:"from"`
	To     string `json:"to"`
	Mirror string `json:"mirror,omitempty"`
}

// MirrorCompleted says that a copy is whole and verified, or that a mirror's run left
// nothing undone.
type MirrorCompleted struct {
	Step  string  `json:"step"`
	Began Reading `json:"began"`
	Ended Reading `json:"ended"`
	// Files and Bytes are what was copied; a mirror copies what changed.
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
	// Root is the hex BLAKE3 root of the manifest.
	Root string `json:"root"`
	// Manifest is where the manifest lies; "" for a mirror, which keeps it itself.
	Manifest string `json:"manifest"`
	// Verified is the level of proof that was really reached (L0-L4); "" if nothing
	// was looked at after it was written.
	Verified string `json:"verified"`
}

// MirrorFailed says that a copy did not come about.
type MirrorFailed struct {
	Step   string `json:"step"`
	Reason string `json:"reason"`
}

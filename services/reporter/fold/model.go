// Package fold turns a drill's whole history into its report. It is pure: the
// same events give the same report, byte for byte, on any machine at any time,
// so every figure can be recomputed from the exported events.
package fold

import (
	"encoding/json"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// FormatVersion names the shape of report.json.
const FormatVersion = "firedrill/report/v1"

// States of a report.
const (
	// StateRunning is the state of a drill without drill.finished.
	StateRunning = "running"
	// StateFinished is the state of one with it.
	StateFinished = "finished"
)

// Report is everything that a drill's history says, judged. Durations are
// nanoseconds; a measured figure is an interval that contains the truth.
type Report struct {
	Format string `json:"format"`
	// ID is the drill's id.
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Title       string            `json:"title"`
	Description string            `json:"description,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// State is running or finished; while running, every verdict is provisional.
	State   string          `json:"state"`
	Verdict verdict.Verdict `json:"verdict"`
	// Summary is the executive summary, a sentence an element.
	Summary      []string         `json:"summary"`
	Requester    string           `json:"requester"`
	Request      event.RequestRef `json:"request"`
	Participants []string         `json:"participants"`
	Accepted     time.Time        `json:"accepted"`
	// Ended is drill.finished, or the last event while running.
	Ended    time.Time `json:"ended"`
	Duration int64     `json:"duration_ns"`
	// Complete is true when every step was carried out.
	Complete bool   `json:"complete"`
	Reason   string `json:"reason,omitempty"`
	// Settles is the earlier drill whose outstanding undos this one carried out;
	// empty for a drill of its own. Settlement is then what came of them, and there
	// are no phases.
	Settles      string       `json:"settles,omitempty"`
	Settlement   *Settlement  `json:"settlement,omitempty"`
	Phases       []Phase      `json:"phases"`
	Issues       []Issue      `json:"issues"`
	ActionItems  []ActionItem `json:"action_items"`
	Agenda       []AgendaItem `json:"agenda"`
	Conduct      Conduct      `json:"conduct"`
	Outstanding  []string     `json:"outstanding,omitempty"`
	External     []Note       `json:"external,omitempty"`
	Verification Verification `json:"verification"`
	// Plan is what the drill said it would touch, before it did.
	Plan *event.DrillPlanned `json:"plan,omitempty"`
	// Spec is the drill as it was run; SpecHash its hex SHA-256 as accepted.
	Spec     json.RawMessage `json:"spec,omitempty"`
	SpecHash string          `json:"spec_hash"`
	Seed     int64           `json:"seed,string"`
}

// Settlement is what came of undoing what an earlier drill had left.
type Settlement struct {
	// Anew names the targets that its request described anew.
	Anew []string `json:"anew,omitempty"`
	// Undos are the steps that were to be undone, in the order in which they had
	// taken effect.
	Undos []SettledStep `json:"undos"`
	// Owed lists the steps that are still in effect.
	Owed []string `json:"owed,omitempty"`
	// Back says how far all of it is back, as in a Phase; empty while it runs.
	Back     string        `json:"back,omitempty"`
	Results  []Result      `json:"results"`
	Evidence []EvidenceSet `json:"evidence,omitempty"`
}

// SettledStep is one step of the earlier drill and its undo, whose Status is
// owed as long as none was tried.
type SettledStep struct {
	Target    string `json:"target"`
	Operation string `json:"operation"`
	UndoRun
}

// Phase is one experiment of the drill and what came of it.
type Phase struct {
	Name     string    `json:"name"`
	Title    string    `json:"title"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	Duration int64     `json:"duration_ns"`
	// State is waiting, running or finished.
	State string `json:"state"`
	// Complete is false when the phase was cut short, for Reason.
	Complete bool            `json:"complete"`
	Reason   string          `json:"reason,omitempty"`
	Verdict  verdict.Verdict `json:"verdict"`
	// Invalidities say why the measurement, not the system, failed.
	Invalidities []string   `json:"invalidities,omitempty"`
	Objective    Objective  `json:"objective"`
	Results      []Result   `json:"results"`
	Recovery     []Recovery `json:"recovery"`
	Availability []LaneRow  `json:"availability"`
	// Downtime is the union over lanes of the outages in the measured window; its upper
	// end, and that of each lane, holds the time in which nobody watched.
	Downtime Figure      `json:"downtime"`
	Outages  []Outage    `json:"outages"`
	Ledgers  []Ledger    `json:"ledgers"`
	Faults   []FaultRun  `json:"faults"`
	Actions  []ActionRun `json:"actions"`
	Undos    []UndoRun   `json:"undos"`
	// Owed lists the steps whose effect needs an undo that was not done.
	Owed []string `json:"owed,omitempty"`
	// Back says how far what the phase broke is back: outstanding, wrong, undone
	// (and not checked) or checked. It is empty while the phase runs and where
	// nothing was broken.
	Back     string        `json:"back,omitempty"`
	Failback *Failback     `json:"failback,omitempty"`
	Steady   []Steady      `json:"steady"`
	Checks   []CheckRun    `json:"checks"`
	Copies   []CopyRun     `json:"copies,omitempty"`
	Evidence []EvidenceSet `json:"evidence,omitempty"`
	Window   *Window       `json:"window,omitempty"`
	Timeline *Timeline     `json:"timeline,omitempty"`
	// cost is for how long its users were without service, where the verdict is INVALID
	// and costly says that it is known.
	cost   event.Interval
	costly bool
	// unwatched is true when nobody watched a lane for a part of that time.
	unwatched bool
}

// Objective is what a phase was judged against; a missing part is not judged.
type Objective struct {
	RTO          int64   `json:"rto_ns,omitempty"`
	RPORecords   *int64  `json:"rpo_records,omitempty"`
	RPOTime      *int64  `json:"rpo_time_ns,omitempty"`
	Availability float64 `json:"availability_percent,omitempty"`
}

// Result is one judged line of a phase: objective against achieved.
type Result struct {
	// Of is rto, rpo-records, rpo-time, availability, validity, checks, keep,
	// restore or, of a settlement, undo.
	Of string `json:"of"`
	// Objective and Achieved are for people, with units; "–" where there is none.
	Objective string          `json:"objective"`
	Achieved  string          `json:"achieved"`
	Verdict   verdict.Verdict `json:"verdict"`
	Why       string          `json:"why"`
	// cause is what made it INVALID, as far as something can be done about it.
	cause cause
}

// Figure is a measured duration and whether there is one.
type Figure struct {
	Known bool `json:"known"`
	event.Interval
}

// Recovery is the achieved recovery after one fault, with its splits.
type Recovery struct {
	Step string `json:"step"`
	Name string `json:"name"`
	// Objective is the RTO, 0 when there is none.
	Objective int64 `json:"objective_ns,omitempty"`
	// Achieved is the time from the fault to the first success of the stable stretch.
	Achieved event.Interval `json:"achieved"`
	// FirstSuccess is the time from the fault to the first success after it.
	FirstSuccess event.Interval `json:"first_success"`
	// NeverFailed is true when attempts were made after the fault and none was bad.
	NeverFailed bool `json:"never_failed,omitempty"`
	// Ongoing is true while the drill runs and an outage has not ended yet.
	Ongoing bool `json:"ongoing,omitempty"`
	// Elapsed is then the time from the fault to the last event.
	Elapsed  int64  `json:"elapsed_ns,omitempty"`
	Censored bool   `json:"censored,omitempty"`
	Decisive string `json:"decisive,omitempty"`
	// Slow are the lanes whose latency alone put the recovery off.
	Slow []verdict.Slowness `json:"slow,omitempty"`
	// Status is the judgement of the RTO in this phase.
	Status verdict.Verdict `json:"status"`
	Splits Splits          `json:"splits"`
}

// Splits cut the way from the fault to verified data into four stretches.
type Splits struct {
	// Detect runs from the fault to the first recovery action; without actions,
	// to the first attempt that failed.
	Detect Figure `json:"detect"`
	// Failover runs from there to the end of the last recovery action; without
	// actions, to the first success.
	Failover Figure `json:"failover"`
	// Restore runs from there to the first success of the stable stretch.
	Restore Figure `json:"restore"`
	// Verify runs from there to the end of the data checks.
	Verify Figure `json:"verify"`
}

// LaneRow is one lane's line of the availability table, over the measured window.
type LaneRow struct {
	Target string `json:"target,omitempty"`
	// Observer names who made the attempts, where more than one did.
	Observer string `json:"observer,omitempty"`
	verdict.LaneResult
	// After is the lane's downtime after the measured window, to the end of the
	// phase, under all claims, in the row of the last; not known where there was no
	// restore.
	After Figure `json:"downtime_after"`
}

// Outage is one window without service, placed on the phase's axis.
type Outage struct {
	verdict.Outage
	// From and To are Start and End as distances from the timeline's zero.
	From event.Interval `json:"from"`
	To   event.Interval `json:"to"`
	// Restore is true for outages after the measured window: the way back's, mostly.
	Restore bool `json:"restore,omitempty"`
	// Errors are what its attempts met, each text once, as the observer recorded it.
	Errors []string `json:"errors,omitempty"`
}

// Ledger is one write lane's acknowledgements against what the target held.
type Ledger struct {
	// Step is the check's step.
	Step string `json:"step"`
	// Observer is as in LaneRow. Acked counts every acknowledged write of the lane,
	// from its first attempt to the moment of the check, extra attempts included.
	Observer string `json:"observer,omitempty"`
	verdict.LedgerResult
	LostCount      int64 `json:"lost_count"`
	RecoveredCount int64 `json:"recovered_count"`
	PhantomCount   int64 `json:"phantom_count"`
	DuplicateCount int64 `json:"duplicate_count"`
}

// FaultRun is a fault as it was injected.
type FaultRun struct {
	Step      string       `json:"step"`
	Name      string       `json:"name"`
	Target    string       `json:"target"`
	Operation string       `json:"operation"`
	Parts     []event.Part `json:"parts"`
	// Status is intended, injected or failed.
	Status string `json:"status"`
	// At is f0 on the wall clock; From and To are f0 and f1 on the phase's axis.
	At     time.Time   `json:"at,omitzero"`
	From   int64       `json:"from_ns"`
	To     int64       `json:"to_ns"`
	Hold   int64       `json:"hold_ns,omitempty"`
	Proof  event.Proof `json:"proof"`
	Reason string      `json:"reason,omitempty"`
}

// ActionRun is a recovery or restore action as it was taken.
type ActionRun struct {
	Step      string `json:"step"`
	Name      string `json:"name"`
	Target    string `json:"target"`
	Operation string `json:"operation"`
	// Stage is recovery or restore.
	Stage string `json:"stage"`
	// Status is intended, done, failed, or cut off: under way as the drill was aborted.
	Status  string            `json:"status"`
	At      time.Time         `json:"at,omitzero"`
	From    int64             `json:"from_ns"`
	To      int64             `json:"to_ns"`
	Took    int64             `json:"took_ns"`
	Details map[string]string `json:"details,omitempty"`
	Reason  string            `json:"reason,omitempty"`
}

// UndoRun is the undo of one step.
type UndoRun struct {
	Step string `json:"step"`
	// Status is intended, done, failed, or waived: not undone, on somebody's word.
	Status  string            `json:"status"`
	Tries   int               `json:"tries"`
	At      time.Time         `json:"at,omitzero"`
	From    int64             `json:"from_ns"`
	To      int64             `json:"to_ns"`
	Took    int64             `json:"took_ns"`
	Details map[string]string `json:"details,omitempty"`
	Reasons []string          `json:"reasons,omitempty"`
}

// Failback is what putting everything back cost its users, measured apart from
// the recovery: from the end of the measured window to the end of the phase.
type Failback struct {
	// Downtime is the union over lanes of the outages; its upper end, and that of Longest,
	// holds the time in which nobody watched.
	Downtime event.Interval `json:"downtime"`
	Outages  int            `json:"outages"`
	// Longest bounds the longest single outage of all lanes; nil when there was none.
	Longest *event.Interval `json:"longest,omitempty"`
	// Lane is the lane that saw it, as "probe/lane"; several where it may have been any.
	Lane string `json:"lane,omitempty"`
	// StillDown is true when the service was still down from the fault as the
	// measured window ended: the outages are then not the way back's alone.
	StillDown bool `json:"still_down,omitempty"`
	// unwatched is true when nobody watched a lane for a part of that time.
	unwatched bool
}

// Steady is one look at the steady state.
type Steady struct {
	// When is before or after.
	When string `json:"when"`
	// Status is asked, established or violated.
	Status  string              `json:"status"`
	Window  int64               `json:"window_ns,omitempty"`
	Reasons []string            `json:"reasons,omitempty"`
	Lanes   []event.LaneSummary `json:"lanes,omitempty"`
	// Earlier is, before the fault, for how long the service was down before the window
	// that was steady, over all lanes; nil when it was not.
	Earlier *event.Interval `json:"earlier_downtime,omitempty"`
}

// CheckRun is one check's results.
type CheckRun struct {
	Step   string `json:"step"`
	Check  string `json:"check"`
	Target string `json:"target"`
	Kind   string `json:"kind"`
	// When is recovered or restored.
	When       string           `json:"when"`
	Took       int64            `json:"took_ns"`
	From       int64            `json:"from_ns"`
	To         int64            `json:"to_ns"`
	Properties []event.Property `json:"properties"`
}

// CopyRun is evidence copied away before the restore.
type CopyRun struct {
	Step string `json:"step"`
	From string `json:"from"`
	To   string `json:"to"`
	// Mirror is the inventory's mirror that was run; From and To are empty then.
	Mirror string `json:"mirror,omitempty"`
	// Status is asked, done, failed or not asked.
	Status   string `json:"status"`
	Files    int64  `json:"files"`
	Bytes    int64  `json:"bytes"`
	Root     string `json:"root,omitempty"`
	Verified string `json:"verified,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// instead is what the way back kept, and may be it.
	instead []string
}

// EvidenceSet is what was collected because something failed.
type EvidenceSet struct {
	Target string           `json:"target"`
	Cause  string           `json:"cause"`
	Items  []event.Artifact `json:"items"`
}

// Window is the stretch that was measured, on the observer's clock.
type Window struct {
	Clock string `json:"clock"`
	From  int64  `json:"from_ns"`
	Until int64  `json:"until_ns"`
	// Complete is true when the observer saw the recovery or its absence.
	Complete bool `json:"complete"`
}

// Issue is a problem found; ID ties action items to it.
type Issue struct {
	ID string `json:"id"`
	// Severity is critical, major or minor.
	Severity string `json:"severity"`
	Phase    string `json:"phase,omitempty"`
	Title    string `json:"title"`
	Detail   string `json:"detail,omitempty"`
}

// ActionItem is a thing to do about an issue.
type ActionItem struct {
	Issue string `json:"issue"`
	Text  string `json:"text"`
}

// AgendaItem is a point of the review meeting.
type AgendaItem struct {
	Title   string   `json:"title"`
	Minutes int      `json:"minutes"`
	Points  []string `json:"points"`
}

// Conduct is how the drill itself was run.
type Conduct struct {
	Leases    []Lease    `json:"leases"`
	Observers []Observer `json:"observers"`
	Aborts    []Abort    `json:"aborts,omitempty"`
	Approvals []string   `json:"approvals,omitempty"`
	// Clocks are the comparisons between hosts; none means one clock for all.
	Clocks []Clock `json:"clocks,omitempty"`
}

// Lease is one injector instance's turn.
type Lease struct {
	Holder string    `json:"holder"`
	Epoch  int64     `json:"epoch"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
}

// Observer is one observer instance's claim.
type Observer struct {
	Instance string    `json:"instance"`
	Epoch    int64     `json:"epoch"`
	At       time.Time `json:"at"`
}

// Abort is a request to cut the drill short.
type Abort struct {
	By     string    `json:"by"`
	Cause  string    `json:"cause"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Clock is the last comparison of another host's clock with the observer's.
type Clock struct {
	Name   string `json:"name"`
	Offset int64  `json:"offset_ns"`
	Error  int64  `json:"error_ns"`
}

// Note is an observation by a system outside firedrill; it is never judged by.
type Note struct {
	From string    `json:"from"`
	Note string    `json:"note"`
	At   time.Time `json:"at"`
}

// Verification is how far the history can be trusted.
type Verification struct {
	// Whole is true when every event is signed by a known service and chained.
	Whole bool `json:"whole"`
	// Events counts all messages before report.published, which closes the history
	// and cannot be in the report that it announces; Trusted counts those that the
	// report was folded from.
	Events  int `json:"events"`
	Trusted int `json:"trusted"`
	// Of and Hash name the last event folded: its chain index and the hex
	// SHA-256 of its stored bytes.
	Of   int32  `json:"of"`
	Hash string `json:"hash"`
	// Problems says what is wrong with the signatures or the chain.
	Problems []string `json:"problems,omitempty"`
	// Unknown counts the events of types that this build does not know.
	Unknown map[string]int `json:"unknown_types,omitempty"`
}

// Timeline is what is drawn of a phase. Times are nanoseconds from its zero,
// the first fault, or the phase's start where there was none.
type Timeline struct {
	// Zero is the wall time of the zero, ZeroMono its place on the observer's clock.
	Zero     time.Time `json:"zero"`
	ZeroMono int64     `json:"zero_mono_ns"`
	From     int64     `json:"from_ns"`
	To       int64     `json:"to_ns"`
	Strip    []Strip   `json:"strips"`
	Marks    []Mark    `json:"marks"`
	// Close is a closer look at the outages after the faults, if there were any.
	Close *CloseUp `json:"close_up,omitempty"`
}

// CloseUp is a part of the timeline at a finer grain.
type CloseUp struct {
	From  int64   `json:"from_ns"`
	To    int64   `json:"to_ns"`
	Strip []Strip `json:"strips"`
}

// Strip shows one lane's attempts, in equal buckets over the timeline: a digit a
// bucket, 0 for none and 1 to 9 for the share of Peak.
type Strip struct {
	Probe string `json:"probe"`
	Lane  string `json:"lane"`
	// Peak is the largest number of attempts in a bucket.
	Peak int    `json:"peak"`
	OK   string `json:"ok"`
	Bad  string `json:"bad"`
}

// Mark is one thing on the time axis; From and To are equal for a moment.
type Mark struct {
	// Kind is fault, action, restore, undo, check, copy, stable, missing, abort,
	// takeover, observer or note.
	Kind  string `json:"kind"`
	Label string `json:"label"`
	From  int64  `json:"from_ns"`
	To    int64  `json:"to_ns"`
	// Failed is true when it did not succeed.
	Failed bool `json:"failed,omitempty"`
}

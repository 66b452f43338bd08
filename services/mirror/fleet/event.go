package fleet

import (
	"time"

	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/outcome"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// Kinds of events on mirror.evt.<mirror>.<kind>.
const (
	// KindWaiting: the run waits for others, its turn, or whoever has the mirror open, or, after
	// started, for other heavy work; or, as yet without a name, for the mirrors that come first,
	// which is told once.
	KindWaiting  = "waiting"
	KindStarted  = "started"
	KindProgress = "progress"
	KindStalled  = "stalled"
	// KindDrift: a comparison has seen that a side is not what the last run left there. It
	// comes before finished.
	KindDrift     = "drift"
	KindFinished  = "finished"
	KindFailed    = "failed"
	KindCancelled = "cancelled"
	KindRejected  = "rejected"
)

// Endings are the kinds of events with which a run ends.
func Endings() []string { return []string{KindFinished, KindFailed, KindCancelled} }

// Event is what is published of a run, which a comparison is, too.
type Event struct {
	Mirror string `json:"mirror"`
	// Run is "" where a run waits that is not asked for before other mirrors have run.
	Run string    `json:"run"`
	At  time.Time `json:"at"`
	// Do is what is done: sync, verify, drift or audit; left out where that is not known.
	Do string `json:"do,omitempty"`
	// By says who asked.
	By string `json:"by,omitempty"`
	// Since is when a run that is waiting began to wait; it goes with its progress, too.
	Since *time.Time `json:"since,omitempty"`
	// Reason says why it was rejected, failed, waits or is stalled, by whom it was cancelled, and
	// what has drifted.
	Reason string `json:"reason,omitempty"`
	// Fault goes with failed: refused where something is not as it should be, description
	// where the mirror cannot be run as it is described; else firedrill, or what it needs,
	// failed.
	Fault job.Fault `json:"fault,omitempty" jsonschema:"enum=refused,enum=description"`
	// Progress goes with progress and stalled, and with waiting after started.
	Progress *Progress `json:"progress,omitempty"`
	// Result goes with finished, of a sync.
	Result *Result `json:"result,omitempty"`
	// Outcome goes with finished, of a comparison, and with drift.
	Outcome *outcome.Outcome `json:"outcome,omitempty"`
	// Log is what is known by then of the mirror's runs; it goes with what ends one.
	Log *runlog.Log `json:"log,omitempty"`
}

// Progress is how far a run is.
type Progress struct {
	// Planned says that all is planned: until then the rest is what is known so far. A
	// comparison's actions are entries that it looks at.
	Planned     bool  `json:"planned"`
	Seen        int64 `json:"seen"`
	Actions     int64 `json:"actions"`
	DoneActions int64 `json:"doneActions"`
	Bytes       int64 `json:"bytes"`
	DoneBytes   int64 `json:"doneBytes"`
	Failed      int64 `json:"failed"`
	// StillSeconds is for how long nothing has moved, once that is as long as the mirror's
	// stalled.
	StillSeconds float64 `json:"stillSeconds,omitempty"`
	// LeftSeconds is how long it will still take at the mean speed so far; left out
	// where nothing tells.
	LeftSeconds *float64 `json:"leftSeconds,omitempty"`
}

// Kept counts entries that were not deleted for one reason.
type Kept struct {
	Why     string `json:"why"`
	Entries int64  `json:"entries"`
}

// Result is what a run came to.
type Result struct {
	Whole   bool             `json:"whole"`
	DryRun  bool             `json:"dryRun,omitempty"`
	Began   time.Time        `json:"began,omitzero"`
	Seconds float64          `json:"seconds"`
	Done    map[string]int64 `json:"done"`
	// Believed counts those of the equal ones that nobody looked at in this run.
	Believed int64 `json:"believed,omitempty"`
	// Listed is when the destination was last listed in full; left out if it never was.
	Listed time.Time `json:"listed,omitzero"`
	Bytes  int64     `json:"bytes"`
	Failed int64     `json:"failed"`
	// NotTried counts what was not tried as a place had refused very many before it.
	NotTried int64 `json:"notTried,omitempty"`
	HeldBack int64 `json:"heldBack"`
	// Problems are the first of what went wrong, in words.
	Problems []string `json:"problems,omitempty"`
	// From, To and Mode are the mirror's, as the process describes it that planned the run.
	From string `json:"from"`
	To   string `json:"to"`
	Mode string `json:"mode,omitempty"`
	// NewDestination says that there was no destination before, or there is none where
	// nothing is done; Replaced counts what was put over an entry that no run is known to
	// have put there.
	NewDestination bool  `json:"newDestination,omitempty"`
	Replaced       int64 `json:"replaced,omitempty"`
	// PermissionsSet counts the entries whose permissions were set by the mirror's rules after
	// the copy, SourcePermissionsSet those of them that are the source's, or, of a dry run, would
	// be set there. OwnersNotSet counts what keeps another owner, as the process that wrote it may
	// not change owners.
	PermissionsSet       int64 `json:"permissionsSet,omitempty"`
	SourcePermissionsSet int64 `json:"sourcePermissionsSet,omitempty"`
	OwnersNotSet         int64 `json:"ownersNotSet,omitempty"`
	// Unchecked counts what was taken for equal and never read.
	Unchecked int64 `json:"unchecked,omitempty"`
	// Compared counts, by side, the contents that a run which audits has read to compare them.
	Compared map[string]int64 `json:"compared,omitempty"`
	// FirstRun says that no run had come to look at the places before, KeptByMode counts what
	// a mode that deletes nothing has left at the destination.
	FirstRun   bool  `json:"firstRun,omitempty"`
	KeptByMode int64 `json:"keptByMode,omitempty"`
	// Kept counts, by reason, what only one side has and was not deleted; Scans is the mirror's
	// deletes.scans, if it has one.
	Kept  []Kept `json:"kept,omitempty"`
	Scans int    `json:"scans,omitempty"`
	// Keyless say of which buckets no keys were given, so that they are used as by anybody.
	Keyless []string `json:"keyless,omitempty"`
	// Untried are the buckets of a dry run into which nothing was written to see whether
	// that is allowed.
	Untried []string `json:"untried,omitempty"`
	// Unasked is why ZFS did not tell what was written in a dataset, so that times did.
	Unasked string `json:"unasked,omitempty"`
	// Root stands for what both sides hold, Entries counts them.
	Root    string `json:"root,omitempty"`
	Entries int64  `json:"entries"`
}

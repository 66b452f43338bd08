// Package engine carries a mirror's plan out: it makes the plan from the two
// places and from what the last run left, cuts it into items of work, hands them
// to workers in this process or elsewhere, and remembers what came of each. It
// deletes last, and only if all before went well.
package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"golang.org/x/time/rate"
)

// Check is how a run finds out what the destination holds.
type Check uint8

const (
	// CheckAuto is CheckState where a run listed the destination within
	// [Job.ListEvery], CheckListing otherwise.
	CheckAuto Check = iota
	// CheckState believes what the last run left there, and does not look.
	CheckState
	// CheckListing lists the destination.
	CheckListing
	// CheckAudit lists it, and believes neither times nor the last run: what no
	// equal hashes vouch for is read.
	CheckAudit
)

// ParseCheck reads auto, state, listing or audit; "" is auto.
func ParseCheck(s string) (Check, error) {
	switch s {
	case "", "auto":
		return CheckAuto, nil
	case "state":
		return CheckState, nil
	case "listing":
		return CheckListing, nil
	case "audit":
		return CheckAudit, nil
	}
	return 0, fmt.Errorf("%q is unknown: use auto, state, listing or audit", s)
}

// DefaultListEvery is how old a listing may be before CheckAuto asks for another.
const DefaultListEvery = 24 * time.Hour

// Store is what is remembered from run to run. Package state has the real one.
// Its methods may be used concurrently.
type Store interface {
	// Empty reports whether no run has left anything yet.
	Empty() bool
	// Past streams what was committed last, sorted by key.
	Past() iter.Seq2[plan.Past, error]
	// Note remembers what a run left at a key, Forget that it left nothing there.
	Note(p plan.Past) error
	Forget(key string) error
	// Sync makes the notes so far durable; Commit makes them the past.
	Sync() error
	Commit() error
	// Load and Save keep small documents; Load is false where there is none. Remove
	// forgets one; that there is none is fine.
	Load(name string, v any) (bool, error)
	Save(name string, v any) error
	Remove(name string) error
}

// Pool carries items out, wherever its workers are. It may be used concurrently.
type Pool interface {
	// Do carries out one item and returns when that is done: one result for each
	// of its actions, in their order. An error ends the run: of the results that
	// come with it, those without an error of their own are done, and of all other
	// actions it is not known what became of them. They may be given again.
	Do(ctx context.Context, it Item) ([]Done, error)
	// Width is how many items may be under way at once to keep all workers busy.
	Width() int
	// Split is the size in bytes above which the parts of one file are spread over the
	// workers, as items of their own, if its destination is written in parts at all; 0
	// means DefaultSplit.
	Split() int64
}

// Job is one run of a mirror between two places.
type Job struct {
	// Places are the source and the destination, by [plan.Side].
	Places [2]place.Place
	Mode   plan.Mode
	// Unedited is [plan.Rules.Unedited].
	Unedited bool
	Check    Check
	// Filter reports whether an entry takes part; nil lets everything.
	Filter func(path string, kind entry.Kind) bool
	// LeftOut are what of the source takes no part by the Filter although nobody asked for
	// that: it is reported, and the run has left something undone.
	LeftOut []LeftOut
	Trust   plan.Trust
	// Guards limit deletes; the markers are filled in by the run.
	Guards plan.Guards
	// Bin is where what the run deletes is put aside; the zero Bin is nowhere. The run sets
	// its time, once it begins to delete. What is
	// written to is then a [place.Keeper].
	Bin place.Bin
	// ListEvery is for CheckAuto; 0 means DefaultListEvery.
	ListEvery time.Duration
	// AcceptPlaces takes the places for those that the mirror is set up with, whatever
	// they were before.
	AcceptPlaces bool
	// Boot identifies the machine's boot: a run that was interrupted in another one
	// may have lost what was not durable yet. "" is one, too.
	Boot string
	// DryRun does nothing but read: Each is told what would be done.
	DryRun bool

	Store Store
	// Spill keeps deletes until the end; it may be nil if Mode is Copy.
	Spill plan.Spill
	Pool  Pool
	// Limit bounds the bytes per second of the few contents that the run reads
	// itself; nil does not.
	Limit *rate.Limiter
	// Now is the clock. Required.
	Now func() time.Time
	// AsOf is when the source was as it is read, if that was before the run, as of a
	// snapshot; zero is when the run begins. What was modified after it, or not long
	// before, may be modified again without showing it.
	AsOf time.Time
	// Touched, if not nil, reports whether the content of a file may be another than the
	// last run left on the source, whatever its times say. It is read then.
	Touched func(e entry.Entry) bool
	// Pass, if not nil, is asked before anything more is begun, and returns once that may be,
	// or with the error of ctx. What is under way goes on meanwhile. It is called often and
	// concurrently.
	Pass func(ctx context.Context) error
	// Each, if not nil, is told of each action once it was carried out, failed or,
	// in a dry run, was found to be needed. It is called by one goroutine at a time.
	Each func(Done)
	// Watch, if not nil, is told how far the run is, about each quarter of a second.
	Watch func(Progress)
}

// LeftOut is a directory that takes no part, and why.
type LeftOut struct {
	Path string
	Err  error
}

// ErrHeldBack marks what was not done because something before it had failed.
var ErrHeldBack = errors.New("held back: something before it failed")

// ErrPool says that a pool broke its contract.
var ErrPool = errors.New("the workers answered something else than they were asked")

// ErrJob is what every [*JobError] is.
var ErrJob = errors.New("the job cannot be run")

// JobError says what about a job is wrong.
type JobError struct{ Field, Problem, Fix string }

// Error describes the fault.
func (e *JobError) Error() string {
	return fmt.Sprintf("mirror job: %s: %s; %s", e.Field, e.Problem, e.Fix)
}

// Unwrap returns ErrJob.
func (e *JobError) Unwrap() error { return ErrJob }

// Elsewhere is the error of a side that is not the place that the mirror was set up with.
func Elsewhere(s plan.Side, p place.Place) error {
	return &JobError{"Places", fmt.Sprintf("the %s %s is not the place that the mirror was set up with", s, p),
		elsewhereFix}
}

const elsewhereFix = "see whether the right one is mounted or answers; if it was replaced on purpose, run once with --accept-places"

// Facts is what a job remembers of itself, beside its entries.
type Facts struct {
	// Identities are those of the places when the mirror was set up.
	Identities [2]string `json:"identities"`
	// Listed is when the destination was last listed in full without an error.
	Listed time.Time `json:"listed,omitzero"`
	// Mode is what the past was made with: another needs a new start.
	Mode plan.Mode `json:"mode"`
	// Generation grows with each run that changes what is remembered, before it
	// does: what was made from the past of another generation is out of date.
	Generation int64 `json:"generation"`
	// Unfinished says that a run began to change what is remembered and has not
	// made all of it durable yet. Where the machine stopped meanwhile, notes may
	// have outlived what they are about: the next run looks for itself.
	Unfinished bool `json:"unfinished,omitempty"`
	// Boot is the machine's boot in which the unfinished run began.
	Boot string `json:"boot,omitempty"`
}

// FactsName is the name of the document in the Store that holds Facts.
const FactsName = "job"

// Report is what a run came to.
type Report struct {
	Began, Ended time.Time
	// Check is what was done about the destination; never CheckAuto.
	Check Check
	// Believed counts the entries that are done as equal although this run did not
	// look at the destination's: they were there when it was last listed in full, at
	// Listed, or written since. Listed is when the run began, where it listed the
	// destination itself; zero if that was never done without an error.
	Believed int64
	Listed   time.Time
	// Seen counts, by side, the entries that took part.
	Seen [2]int64
	// Done and Bytes count what was carried out, by operation: for a Rehash, what
	// it was settled to.
	Done  map[plan.Op]int64
	Bytes map[plan.Op]int64
	// Failed counts the actions that failed; Failures are the first of them, and Causes
	// tell what they have in common.
	Failed   int64
	Failures []Failure
	Causes   []Cause
	// NotTried counts what was not tried as a place had refused very many before it: the
	// run's error is then a [*GaveUpError].
	NotTried int64
	// Replaced counts what was put over an entry that the job knew nothing of.
	Replaced int64
	// Conflicts are the first of what needs a human; Done has the number.
	Conflicts []plan.Action
	// Unholdable are the first of what a side cannot hold.
	Unholdable []plan.Action
	// Refusals say why nothing was deleted; Faults counts the errors of scans and
	// listings, of which Errors are the first.
	Refusals []plan.Refusal
	Faults   int64
	Errors   []error
	// HeldBack counts the deletes, and what needs the place of something deleted,
	// that were not carried out because something before them had failed.
	HeldBack int64
	// LeftUploads are unfinished uploads of earlier runs in a place that is no longer the
	// mirror's, as another one was accepted: nobody frees what they hold.
	LeftUploads []LeftUpload
	// Changed says that the run changed what is remembered.
	Changed bool
}

// LeftUpload is an unfinished upload in parts that remains where this mirror does not
// reach any more.
type LeftUpload struct {
	// Key is what it was to become, Place the identity of the place that it is in; either
	// may be "" where it is not known.
	Key, Place string
	Began      time.Time
}

// String says what remains where, and what to do about it.
func (u LeftUpload) String() string {
	where := u.Place
	if where == "" {
		where = "the place before this one"
	}
	return fmt.Sprintf("an upload of %q, begun %s, was never finished and remains in %s, which is no longer this mirror's: abort it there, or leave that to a lifecycle rule",
		u.Key, u.Began.UTC().Format(time.RFC3339), where)
}

// Failure is an action that could not be carried out. The text of Err leaves out what Key
// and Op say.
type Failure struct {
	Key string
	Op  plan.Op
	Err error
}

// Whole reports whether the run left nothing to be done that it was to do.
func (r *Report) Whole() bool {
	return r.Failed == 0 && r.NotTried == 0 && r.Faults == 0 && len(r.Refusals) == 0 && r.HeldBack == 0 &&
		r.Done[plan.Conflict] == 0 && r.Done[plan.Unholdable] == 0
}

// keepFirst is how many failures, conflicts and the like a report keeps.
const keepFirst = 1000

// careful is [plan.Rules.Careful], before there are rules.
func (j *Job) careful() bool { return (&plan.Rules{Mode: j.Mode, Unedited: j.Unedited}).Careful() }

func (j *Job) check() error {
	switch {
	case j.Places[plan.Source] == nil || j.Places[plan.Dest] == nil:
		return &JobError{"Places", "one is missing", "open both"}
	case j.Store == nil || j.Pool == nil || j.Now == nil:
		return &JobError{"Store, Pool, Now", "one is missing", "give all"}
	}
	for s, p := range j.Places {
		if _, keeps := p.(place.Keeper); !keeps && j.Bin != (place.Bin{}) && (plan.Side(s) == plan.Dest || j.Mode == plan.TwoWay) {
			return &JobError{"Bin", fmt.Sprintf("the %s %s keeps nothing that is removed", plan.Side(s), p), "leave it out"}
		}
	}
	return nil
}

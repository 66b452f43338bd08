// Package plan decides what a run of the mirror has to do. It merges three
// streams that are sorted by key: what the source holds, what the destination
// holds, and what the last run left on both; and it yields actions in an order
// in which they can be carried out, deletes last and guarded.
//
// It is pure: no clock, no input or output but the iterators it is given and the
// [Spill] that keeps the deletes until the end. Memory is bounded by the depth of
// the tree and, for the search for names that differ in Unicode normalisation
// only, by the non-ASCII names of the directories that are being walked.
//
// The roots themselves take no part: whoever makes them knows them.
package plan

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// Side is one of the two locations that are mirrored.
type Side uint8

// The sides. They index arrays such as [Past.Missing].
const (
	Source Side = iota
	Dest
)

// Other is the side across.
func (s Side) Other() Side { return 1 - s }

// String names the side.
func (s Side) String() string {
	if s == Source {
		return "source"
	}
	return "destination"
}

// Mode is what the mirror is to achieve.
type Mode uint8

const (
	// Copy makes the destination hold what the source holds. What only the
	// destination holds stays.
	Copy Mode = iota
	// Mirror is Copy, and what only the destination holds is deleted, as far as
	// the guards allow.
	Mirror
	// TwoWay carries what changed on one side to the other. What changed on both
	// is a conflict and stays as it is on both.
	TwoWay
)

// String is the mode as an inventory writes it.
func (m Mode) String() string { return [...]string{"copy", "mirror", "two-way"}[m] }

// Attr is a set of attributes.
type Attr uint8

// The attributes of entries.
const (
	AttrKind Attr = 1 << iota // the exact kind, not only whether it is a directory
	AttrMTime
	AttrMode
	AttrOwner
	AttrXattrs
)

// AllAttrs is what a directory knows that root walks.
const AllAttrs = AttrKind | AttrMTime | AttrMode | AttrOwner | AttrXattrs

// Input is the streams that a plan merges. Each must be sorted strictly by key.
// An error in a stream does not end it: the plan goes on with what follows, takes
// nothing for missing that the stream might have held from there on, and refuses
// all deletes.
type Input struct {
	Source iter.Seq2[entry.Entry, error]
	// Dest may be nil in the modes Copy and Mirror: then Past stands for it.
	Dest iter.Seq2[entry.Entry, error]
	// Past is what the last run left; nil where there was none.
	Past iter.Seq2[Past, error]
}

// Rules say how a plan is made. They are not changed, and may be shared by
// goroutines if Filter and Holds may.
type Rules struct {
	Mode Mode
	// Unedited has a Copy overwrite nothing but what the last run left at the
	// destination: an entry that somebody changed there since, or that no run put there,
	// is a Conflict unless it is equal. What is missing there is made all the same. The
	// destination is looked at.
	Unedited bool
	// Filter reports whether an entry takes part; it applies to all three
	// streams, so that what it leaves out is neither copied nor deleted. nil
	// lets everything take part.
	Filter func(path string, kind entry.Kind) bool
	// Holds tells, by side, why the side cannot hold an entry; nil for a side
	// that holds everything. A bucket's is [entry.Entry.Check].
	Holds [2]func(entry.Entry) error
	// Roots are, by side, the file systems of the roots; zero for a side that has none.
	Roots [2]entry.FSID
	// Accept takes what is mounted below the roots for what should be there, so that what lay
	// in other file systems is missing.
	Accept bool
	// Lists says, by side, which attributes the side keeps and its stream carries.
	// What is missing here is never taken from an entry: a listing without
	// metadata has none of them.
	Lists [2]Attr
	// Claims reports, by side, whether what has a key there is not the mirror's to change or to
	// delete, unless the last run left it there; nil for a side of which all is.
	Claims [2]func(key string) bool
	// Both says, by side, that it can hold a file and a directory of the same
	// name, as S3 can; directories and MinIO cannot.
	Both [2]bool
	// Trust says what makes two files equal of which no hash is known on both.
	Trust Trust
	// Grain is the distance below which two modification times are the same,
	// for sides that cut times; 0 compares nanoseconds.
	Grain time.Duration
	// Audit believes neither times nor the last run: without equal hashes
	// nothing is equal.
	Audit bool
	// ScanStart is when the scan of the source began. What was modified less than
	// two seconds before may be modified again without showing it, and is hashed
	// again by the next run. Required.
	ScanStart time.Time
	// Guards stand before deletes.
	Guards Guards
	// Hash reads what only one side still holds in a two-way run and of which no
	// time tells whether it is what the last run left there: with its hashes a
	// delete is told from a conflict while the guards can still count it. They must
	// be comparable with like. It is called by whoever ranges over the actions. Where
	// it is nil or fails, the content is taken for changed.
	Hash func(s Side, e entry.Entry, like entry.Sum) (entry.Sum, error)
	// AsLeft, if not nil, is told of files that are on the source what the last run left
	// there, and of whose destination the same is only believed, by the size of their
	// content: not of all such files, but of nearly all. The actions hold no Equal of
	// those that it was told of, as there is nothing in it that was not remembered before.
	// It is called by whoever ranges over the actions.
	AsLeft func(size int64)
}

// Trust is what passes for equal content when no hash is known on both sides.
type Trust uint8

const (
	// TrustTimes takes equal size and modification time for equal content.
	TrustTimes Trust = iota
	// TrustHashes takes nothing but hashes: the rest is hashed.
	TrustHashes
	// TrustSize takes equal size for equal content.
	TrustSize
)

// Op is what an action does.
type Op uint8

const (
	// Equal does nothing: both sides hold the same.
	Equal Op = iota + 1
	// Put writes the whole entry to the side To. What the action's other entry
	// shows is what may be overwritten; where it is absent, nothing may. Where a
	// bucket implied a directory above it, nothing but the Put makes that.
	Put
	// Meta writes the attributes to the side To: the content is equal already.
	Meta
	// MakeDir makes a directory on the side To.
	MakeDir
	// Rehash hashes the content on the sides that are in Doubt, and asks
	// [Rules.Settle] with the hashes filled in.
	Rehash
	// Keep does nothing: what only the side To holds stays there, for Reason.
	Keep
	// Conflict does nothing: a human has to decide, for Reason.
	Conflict
	// Unholdable does nothing: the side To cannot hold the entry, for Err.
	Unholdable
	// Delete removes what the side To holds; of a directory no more than itself,
	// which is empty by then.
	Delete
	// Gone does nothing: neither side holds what the last run left there, and it
	// is to be forgotten.
	Gone
)

// String is the operation's name in reports.
func (o Op) String() string {
	names := [...]string{"none", "equal", "put", "meta", "mkdir", "rehash", "keep", "conflict", "unholdable", "delete", "gone"}
	if int(o) < len(names) {
		return names[o]
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// Changes reports whether the operation may change a side.
func (o Op) Changes() bool {
	switch o {
	case Put, Meta, MakeDir, Rehash, Delete:
		return true
	}
	return false
}

// Reason says why an action is a Keep or a Conflict.
type Reason string

const (
	// KeepMode: the mode deletes nothing.
	KeepMode Reason = "nothing is removed in this mode"
	// KeepMissing: it was not missing in enough scans yet.
	KeepMissing Reason = "missing, but not in enough scans yet"
	// KeepGuarded: a guard refused the deletes.
	KeepGuarded Reason = "deletes are refused"
	// KeepUnlisted: the other side could not be listed, so it may be there.
	KeepUnlisted Reason = "the other side could not be read"
	// KeepAway: the file system in which the other side had it is not where it was.
	KeepAway Reason = "the other side's file system that held it is not mounted there"
	// KeepOccupied: a directory in which something stays.
	KeepOccupied Reason = "something in it stays"
	// KeepYoung: it was modified so shortly before the scan that it may be modified
	// again without a trace in its times.
	KeepYoung Reason = "modified a moment ago: the next run sees to it"
	// KeepClaimed: somebody else keeps it there.
	KeepClaimed Reason = "part of a ZFS archive, which no mirror deletes"

	// ConflictChanged: it was changed on both sides.
	ConflictChanged Reason = "changed on both sides"
	// ConflictCreated: it appeared on both sides and differs.
	ConflictCreated Reason = "created on both sides"
	// ConflictDeleted: it was deleted on one side and changed on the other.
	ConflictDeleted Reason = "deleted on one side and changed on the other"
	// ConflictEdited: it is not what the last run left at the destination, and the mode
	// overwrites nothing else.
	ConflictEdited Reason = "changed at the destination, or never put there by a run"
	// ConflictKind: a file stands where a directory is needed, or the reverse,
	// and cannot be removed.
	ConflictKind Reason = "a file and a directory of one name"
	// ConflictPlace: it needs the place of something that would be deleted, and
	// deletes are refused.
	ConflictPlace Reason = "what stands in its place may not be deleted"
	// ConflictClaimed: what the destination has there somebody else keeps.
	ConflictClaimed Reason = "part of a ZFS archive, which no mirror writes over"
	// ConflictRotten: the content is not what both sides were left with, although
	// nothing has touched it since.
	ConflictRotten Reason = "the content changed, and its times did not: it may be damaged"
	// ConflictKey: one side holds two entries of the same key.
	ConflictKey Reason = "two entries of one key"
	// ConflictUnicode: the name and that of Action.Twin differ in Unicode
	// normalisation only. Both are mirrored as they are.
	ConflictUnicode Reason = "two names that look alike"
)

// Fix says how a human resolves a Conflict; "" for other reasons.
func (r Reason) Fix() string {
	switch r {
	case ConflictChanged, ConflictCreated:
		return "copy the right one over the other by hand, under another name what is to be kept of that, and run again"
	case ConflictDeleted:
		return "copy it back to the side that lacks it, or delete it on both, and run again"
	case ConflictEdited:
		return "copy the right one over the other by hand and run again; a run with overwrite: always takes the source's"
	case ConflictKind:
		return "rename or remove one of the two, and run again; in the mode mirror the source's wins"
	case ConflictPlace:
		return "see why deletes are refused, or move away by hand what stands there, and run again"
	case ConflictClaimed:
		return "keep the archive in a place that is apart from the mirror's, or leave it out by the filter, and run again"
	case ConflictRotten:
		return "audit the mirror, and have it repaired; or, if it was meant, touch the file and run again"
	case ConflictKey:
		return "rename one of the two, and run again"
	case ConflictUnicode:
		return "both are mirrored; where they are meant to be one, remove one"
	}
	return ""
}

// Action is one thing to do, or to report.
type Action struct {
	Op  Op
	Key string
	// To is the side that is changed; see the operations.
	To Side
	// Source and Dest are what the sides hold; [Present] tells where one holds
	// nothing. An Equal's and a Meta's carry the hashes that the last run knew of
	// the same side's content.
	Source, Dest entry.Entry
	// Past is what the last run left; its Key is empty where it left nothing.
	Past Past
	// Doubt says, of a Rehash, which sides have to be hashed.
	Doubt [2]bool
	// Reason goes with Keep and Conflict.
	Reason Reason
	// Twin is the key of the other name of a ConflictUnicode.
	Twin string
	// Err says why the side To cannot hold the entry, of an Unholdable.
	Err error
	// Missed says of a Keep for KeepGuarded that only how much is to be deleted, or what the
	// destination is, is in its way: that the other side has it no more is believed. It is
	// not stored, and does not travel.
	Missed bool
	// Believed says that Dest is what the last run left there, and that nobody looked.
	// It is not stored, and does not travel.
	Believed bool
}

// At is what a side holds.
func (a *Action) At(s Side) entry.Entry {
	if s == Source {
		return a.Source
	}
	return a.Dest
}

// Present reports whether a side holds the entry: the zero Entry stands for
// nothing.
func Present(e entry.Entry) bool { return e.Path != "" }

// ErrRules is what every [*RulesError] is.
var ErrRules = errors.New("the rules of the plan contradict themselves")

// RulesError says which rule cannot be followed.
type RulesError struct{ Field, Problem, Fix string }

// Error describes the fault.
func (e *RulesError) Error() string {
	return fmt.Sprintf("make a plan: %s: %s; %s", e.Field, e.Problem, e.Fix)
}

// Unwrap returns ErrRules.
func (e *RulesError) Unwrap() error { return ErrRules }

// Careful reports whether what somebody edited at the destination stays: that is then looked
// at in each run, and written to under conditions.
func (r *Rules) Careful() bool { return r.Mode == TwoWay || r.Unedited }

func (r *Rules) check(in Input, spill Spill) error {
	switch {
	case in.Source == nil:
		return &RulesError{"Source", "there is no stream", "give the scan or listing of the source"}
	case r.Mode > TwoWay:
		return &RulesError{"Mode", fmt.Sprintf("%d is none", r.Mode), "use Copy, Mirror or TwoWay"}
	case r.Unedited && r.Mode != Copy:
		return &RulesError{"Unedited", "the mode overwrites more", "use Copy"}
	case r.ScanStart.IsZero():
		return &RulesError{"ScanStart", "it is not set", "give the time at which the scan of the source began"}
	case in.Dest == nil && (r.Careful() || r.Audit):
		return &RulesError{"Dest", "two-way runs, audits and copies that overwrite no edit look at the destination", "give its listing"}
	case in.Dest == nil && in.Past == nil:
		return &RulesError{"Dest", "neither it nor the last run is known", "give its listing"}
	case spill == nil && r.Mode != Copy:
		return &RulesError{"Spill", "deletes have to be kept until the end, and there is no place for them", "give a Spill"}
	}
	return r.Guards.check()
}

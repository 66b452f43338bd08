package plan

import (
	"cmp"
	"fmt"
	"math"
)

// Guard is a check that stands before deletes.
type Guard string

// The guards. Whichever refuses turns all deletes of the run off, but for GuardMount, and
// nothing else.
const (
	// GuardIdentity: a side does not carry the marker that it carried when it was
	// set up, as when another disk, or none, is mounted there.
	GuardIdentity Guard = "identity"
	// GuardEmpty: a side whose absences would delete holds no entry but
	// directories.
	GuardEmpty Guard = "empty"
	// GuardMount: a directory below a side's root is not in the file system that it was in, as
	// when another disk, or none, is mounted there. It alone refuses no other deletes than
	// those of what lay there.
	GuardMount Guard = "mount"
	// GuardListing: a stream had an error, so that what it did not show may exist.
	GuardListing Guard = "listing"
	// GuardNumber: more deletes than allowed.
	GuardNumber Guard = "number"
	// GuardPercent: a greater share of a side than allowed.
	GuardPercent Guard = "percent"
	// GuardVersioned: two-way deletes, and the destination keeps no versions, nor the mirror
	// what it deletes.
	GuardVersioned Guard = "versioned"
)

// Refusal says why nothing is deleted.
type Refusal struct {
	Guard Guard
	// Value is what was found, Limit what is allowed.
	Value, Limit string
	// Fix says what to do.
	Fix string
	// Deletes is how many entries would be deleted, of GuardNumber and GuardPercent, or kept
	// though they were not found, of GuardMount.
	Deletes int64
}

// String is the refusal in one sentence.
func (r Refusal) String() string {
	return fmt.Sprintf("deletes refused by guard %s: found %s, want %s; %s", r.Guard, r.Value, r.Limit, r.Fix)
}

// Marker is what identifies a side, such as the content of a file in its root.
type Marker struct {
	// Want is what was found when the mirror was set up, Got what is there now.
	// Empty ones never match.
	Want, Got string
	// Fix says what to do where they differ; "" is to see whether the right place is there.
	Fix string
}

func (m Marker) matches() bool { return m.Want != "" && m.Got == m.Want }

// Guards are the limits of deletes. The zero value deletes nothing, as no marker
// matches.
type Guards struct {
	// Markers identify the sides whose absences delete: the source, and in
	// two-way runs the destination as well.
	Markers [2]Marker
	// Once says that Number is for this run only, and not the mirror's own.
	Once bool
	// Number is how many entries a run may delete on a side; 0 means
	// [DefaultNumber], less than 0 that there is no limit.
	Number int64
	// Percent is the share of a side's entries that a run may delete; 0 means
	// [DefaultPercent], 100 that there is no limit.
	Percent float64
	// Scans is in how many scans in a row an entry must be missing; 0 means
	// [DefaultScans].
	Scans int
	// Versioned says that the destination keeps what is deleted or overwritten, or that the
	// run puts aside what it deletes.
	// Without it a two-way run deletes on neither side.
	Versioned bool
}

// What the zero values of [Guards] mean.
const (
	DefaultNumber  = 10_000
	DefaultPercent = 25.0
	DefaultScans   = 2
)

func (g *Guards) scans() int {
	if g.Scans == 0 {
		return DefaultScans
	}
	return g.Scans
}

func (g *Guards) check() error {
	switch {
	case !(g.Percent >= 0 && g.Percent <= 100): // NaN too
		return &RulesError{"Guards.Percent", fmt.Sprintf("%v is no share", g.Percent), "use 0 to 100"}
	case g.Scans < 0 || g.Scans > math.MaxUint8:
		return &RulesError{"Guards.Scans", fmt.Sprintf("%d cannot be counted", g.Scans), "use 1 to 255"}
	}
	return nil
}

// tally is what the guards judge.
type tally struct {
	// seen counts, by side, the entries; content those that are no directories.
	seen, content [2]int64
	// deletes and missing count, by side, what is to be deleted there, and what
	// would be but was not missing often enough yet.
	deletes, missing [2]int64
	// errors counts the streams' errors; first is one of them.
	errors int64
	first  error
}

// judge asks every guard. Where nothing is missing, only errors are refused.
func (r *Rules) judge(t *tally) []Refusal {
	var out []Refusal
	refuse := func(g Guard, value, limit, fix string) {
		out = append(out, Refusal{Guard: g, Value: value, Limit: limit, Fix: fix})
	}
	if t.errors > 0 {
		refuse(GuardListing, fmt.Sprintf("%d errors, the first: %v", t.errors, t.first), "complete listings",
			"mend what could not be read, and run again")
	}
	for _, on := range []Side{Source, Dest} {
		if t.deletes[on]+t.missing[on] == 0 {
			continue
		}
		absent := on.Other()
		// What is not mounted is told first: to take the empty place for the right one would not help.
		if t.content[absent] == 0 {
			refuse(GuardEmpty, fmt.Sprintf("a %s without a file", absent), "at least one",
				fmt.Sprintf("see whether the %s is mounted; to empty the %s, do so by hand", absent, on))
		}
		if m := r.Guards.Markers[absent]; !m.matches() {
			refuse(GuardIdentity, fmt.Sprintf("%s %s", absent, quote(m.Got)), quote(m.Want),
				cmp.Or(m.Fix, fmt.Sprintf("see whether the right %s is mounted; if it was replaced on purpose, set the mirror up again", absent)))
		}
		r.judgeNumbers(t, on, func(r Refusal) { out = append(out, r) })
	}
	if r.Mode == TwoWay && !r.Guards.Versioned && t.deletes[Source]+t.deletes[Dest] > 0 {
		refuse(GuardVersioned, "a destination without versions", "a versioned one", "turn on the bucket's versioning, or have the mirror keep what it deletes (keepDeleted)")
	}
	return out
}

// believed reports whether refusals are no doubt about what a side holds.
func believed(refusals []Refusal) bool {
	for _, r := range refusals {
		switch r.Guard {
		case GuardNumber, GuardPercent, GuardVersioned:
		default:
			return false
		}
	}
	return true
}

// judgeNumbers says what it found by the numbers that it counted: a rounded share might be
// that of the limit. Each limit is named as whoever set it knows it.
func (r *Rules) judgeNumbers(t *tally, on Side, refuse func(Refusal)) {
	found := fmt.Sprintf("%d of the %s's %d entries", t.deletes[on], on, t.seen[on])
	fix := func(field string) string {
		return fmt.Sprintf("if this is meant, allow it for one run with --may-delete %d, or raise %s in the inventory", t.deletes[on], field)
	}
	number := r.Guards.Number
	if number == 0 {
		number = DefaultNumber
	}
	if number > 0 && t.deletes[on] > number {
		field := "deletes.most"
		if r.Guards.Once {
			field = "--may-delete"
		}
		refuse(Refusal{Guard: GuardNumber, Value: found, Limit: fmt.Sprintf("at most %d (%s)", number, field), Fix: fix("deletes.most"), Deletes: t.deletes[on]})
	}
	percent := r.Guards.Percent
	if percent == 0 {
		percent = DefaultPercent
	}
	if share := 100 * float64(t.deletes[on]) / float64(t.seen[on]); share > percent {
		most := int64(percent * float64(t.seen[on]) / 100)
		refuse(Refusal{Guard: GuardPercent, Value: found, Limit: fmt.Sprintf("at most %d (%g %%, deletes.mostPercent)", most, percent), Fix: fix("deletes.mostPercent"), Deletes: t.deletes[on]})
	}
}

func quote(marker string) string {
	if marker == "" {
		return "no marker"
	}
	return fmt.Sprintf("marker %q", marker)
}

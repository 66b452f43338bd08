package plan

import (
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// MissingKept says in [Past.Missing] that the mode Copy, which deletes nothing, has found an
// entry gone. A mode that deletes has not counted that, and begins with its own scans.
const MissingKept = ^uint8(0)

// Past is what the last run left at one key.
type Past struct {
	Key string
	// Source and Dest are what the sides held; [Present] tells whether they did.
	// Where both did, their contents were equal.
	Source, Dest entry.Entry
	// Missing counts, by side, the scans in a row that did not find the entry, or is
	// MissingKept.
	Missing [2]uint8
	// Dirty says, by side, that the entry was modified so shortly before it was
	// read that its times do not tell whether it was modified again.
	Dirty [2]bool
}

// At is what a side held.
func (p *Past) At(s Side) entry.Entry {
	if s == Source {
		return p.Source
	}
	return p.Dest
}

func (p *Past) set(s Side, e entry.Entry) {
	if s == Source {
		p.Source = e
	} else {
		p.Dest = e
	}
}

// synced reports whether both sides held the entry.
func (p *Past) synced() bool { return Present(p.Source) && Present(p.Dest) }

// dirtySpan is the coarsest step of file times, FAT's.
const dirtySpan = 2 * time.Second

// Next is what has to be remembered of an action's key for the next run; false
// where that is nothing. Done says that the action was carried out; its Source
// and Dest must then be what the sides hold now, with the hashes that were
// computed. What was settled is remembered as what it was settled to. An action
// that only reports is never done.
func (r *Rules) Next(a Action, done bool) (Past, bool) {
	switch a.Op {
	case Equal:
		done = true
	case Put, Meta, MakeDir:
	case Gone:
		return Past{}, false
	case Delete:
		return a.undeleted(), !done && a.Past.Key != ""
	case Keep:
		switch {
		case a.Reason == KeepMissing:
			return a.missed(), true
		case a.Missed:
			return a.undeleted(), a.Past.Key != ""
		case a.Reason == KeepMode && r.left(&a):
			return a.kept(), true
		}
		done = false
	default:
		if a.Reason == ConflictUnicode || a.Reason == ConflictKey {
			return Past{}, false // another action speaks for the key
		}
		done = false
	}
	if !done {
		return a.undone(), a.Past.Key != ""
	}
	p := Past{Key: a.Key, Source: a.Source, Dest: a.Dest}
	for _, s := range []Side{Source, Dest} {
		// Of what this very run wrote, the times are known to be its own.
		written := a.To == s && a.Op != Equal
		looked := s == Source || r.Careful()
		e := a.At(s)
		p.Dirty[s] = looked && !written && r.dirty(&e)
	}
	return p, true
}

// missed is the past with one scan more that did not find the entry. To is the
// side that still holds it.
func (a *Action) missed() Past {
	p := a.Past
	if p.Key == "" {
		p = Past{Key: a.Key, Source: a.Source, Dest: a.Dest}
	}
	other := a.To.Other()
	if p.Missing[other] = uint8(p.scans(other)); p.Missing[other] < MissingKept-1 {
		p.Missing[other]++
	}
	p.Missing[a.To] = 0
	return p
}

// Waits reports whether the entry is gone from a side, and is kept on the other until a mode
// that deletes does so there.
func (p *Past) Waits(s Side) bool { return p.scans(s) > 0 }

// undeleted is the past of what was to be deleted and was not: it is missing on the other
// side, however few scans it takes to delete it.
func (a *Action) undeleted() Past {
	if a.Past.Waits(a.To.Other()) {
		return a.Past
	}
	return a.missed()
}

// undone is the past of what was not carried out. What a side holds is not missing there.
func (a *Action) undone() Past {
	p := a.Past
	for _, s := range []Side{Source, Dest} {
		if Present(a.At(s)) {
			p.Missing[s] = 0
		}
	}
	return p
}

// scans is in how many scans in a row a mode that deletes has not found the entry.
func (p *Past) scans(s Side) int {
	if p.Missing[s] == MissingKept {
		return 0
	}
	return int(p.Missing[s])
}

// kept is the past of what a copy keeps though it is gone from one side.
func (a *Action) kept() Past {
	p := a.Past
	p.Missing = [2]uint8{}
	p.Missing[a.To.Other()] = MissingKept
	return p
}

// left reports whether what a copy keeps was on both sides before, and is missing for the
// first time on one that is the place it should be.
func (r *Rules) left(a *Action) bool {
	other := a.To.Other()
	return a.Past.synced() && a.Past.Missing[other] != MissingKept && r.Guards.Markers[other].matches()
}

// dirty reports whether the entry was modified within two seconds of the scan.
func (r *Rules) dirty(e *entry.Entry) bool {
	if e.Kind != entry.File {
		return false
	}
	at := e.MTime
	if e.Change != (entry.Change{}) {
		at = e.Change.CTime // which, unlike the other, nobody can set
	}
	return at >= r.ScanStart.Add(-dirtySpan).UnixNano()
}

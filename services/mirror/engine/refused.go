package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// A place that was mounted read-only, is full, or whose credentials lost their rights
// refuses each write alike. To try all of very many costs hours and tells nothing new. But
// what is refused may be some directories only, or some entries, or what is too large for
// what is left of a disk: so nothing is given up for good. The longer nothing was taken the
// fewer are tried, and which is left to chance, so that no run passes over the same ones;
// once something is taken all that come have their turn.

const (
	// mostRefusals is how many refusals in a row, without anything taken between them, are
	// enough to try no longer each: fewer than one item, and more than a few files that are
	// special.
	mostRefusals = 100
	// mostDirs is of how many directories the first entry is tried all the same.
	mostDirs = 1000
	// sparing is by how many more refusals in a row one more is passed over before the next
	// one is tried: of a million, some thousands are.
	sparing = 8
)

// ErrNotTried, which is an ErrHeldBack, marks what was not tried as the place had refused
// everything before it.
var ErrNotTried = fmt.Errorf("not tried: %w", ErrHeldBack)

// Refused reports whether a place refuses a write in a way that does not pass by itself.
func Refused(err error) bool {
	if _, source := errors.AsType[*sourceError](err); source {
		return false
	}
	return errors.Is(err, place.ErrRefused) || errors.Is(err, place.ErrReadOnly)
}

// changes reports whether an operation changes a place, which may refuse that.
func changes(op plan.Op) bool {
	switch op {
	case plan.Put, plan.MakeDir, plan.Meta, plan.Delete:
		return true
	}
	return false
}

// refusals watches for what two places refuse. The zero value has seen none. It is used
// concurrently.
type refusals struct {
	mu   sync.Mutex
	rows map[kind]*streak
}

// kind is what is refused, or not, for itself: a full disk may still take directories.
type kind struct {
	to plan.Side
	op plan.Op
}

// streak is what became of one kind.
type streak struct {
	// inRow counts the refusals since something was taken, refused all of the run, and
	// spared what was not tried.
	inRow, refused, spared int64
	// pass is how many more are passed over before the next one is tried.
	pass int64
	// dir is the directory of what came last, and dirs how many were tried for being
	// the first of theirs since something was taken.
	dir  string
	dirs int
	// first is the first refusal, and why its words without a name.
	first error
	why   string
}

// doubts reports whether anything may have to be spared.
func (r *refusals) doubts() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range r.rows {
		if row.inRow >= mostRefusals {
			return true
		}
	}
	return false
}

// pass reports whether an action is not to be tried now.
func (r *refusals) pass(a *plan.Action) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.rows[kind{a.To, a.Op}]
	if row == nil || row.inRow < mostRefusals {
		return false
	}
	dir := parent(a.Key)
	first := dir != row.dir
	row.dir = dir
	switch {
	case first && row.dirs < mostDirs:
		row.dirs++
		return false
	case row.pass > 0:
		row.pass--
		return true
	}
	row.pass = rand.Int64N(2*row.inRow/sparing + 1)
	return false
}

// gaveUp reports whether an action that was passed over is not tried at all, as nothing of
// its kind was taken since, and counts it.
func (r *refusals) gaveUp(a *plan.Action) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.rows[kind{a.To, a.Op}]
	if row == nil || row.inRow < mostRefusals {
		return false
	}
	row.spared++
	return true
}

// note is told what came of an action that was tried.
func (r *refusals) note(a *plan.Action, err error) {
	if !changes(a.Op) || err != nil && !Refused(err) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := kind{a.To, a.Op}
	row := r.rows[k]
	if err == nil {
		if row != nil {
			row.inRow, row.pass, row.dirs = 0, 0, 0
		}
		return
	}
	if row == nil {
		if r.rows == nil {
			r.rows = map[kind]*streak{}
		}
		row = &streak{first: err, why: reason(a.Key, err)}
		r.rows[k] = row
	}
	row.inRow++
	row.refused++
}

// parent is the key of the directory that a key lies in; "" for the root.
func parent(key string) string {
	return key[:strings.LastIndexByte(strings.TrimSuffix(key, "/"), '/')+1]
}

// err is what a run returns that has not tried all; nil if it has. deleted is how many
// entries it has deleted.
func (r *refusals) err(places [2]place.Place, deleted int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, op := range []plan.Op{plan.Put, plan.MakeDir, plan.Meta, plan.Delete} {
		for _, to := range []plan.Side{plan.Source, plan.Dest} {
			if row := r.rows[kind{to, op}]; row != nil && row.spared > 0 {
				errs = append(errs, &GaveUpError{
					Place: places[to].String(), Op: op, Why: row.why, Refused: row.refused, NotTried: row.spared, Deleted: deleted, Err: row.first,
				})
			}
		}
	}
	return errors.Join(errs...)
}

// GaveUpError says that a run has not tried all that it was to do, as a place refused very
// many in a row for reasons that do not pass by themselves.
type GaveUpError struct {
	// Place is the one that refuses Op.
	Place string
	Op    plan.Op
	// Why is what it said first, without a name.
	Why string
	// Refused is how many changes were refused, NotTried how many were not tried, Deleted
	// how many entries the run deleted.
	Refused, NotTried, Deleted int64
	// Err is the first of the refusals.
	Err error
}

// Error says what was given up, and what to do.
func (e *GaveUpError) Error() string {
	kept := ""
	if e.Deleted == 0 {
		kept = " and nothing was deleted"
	}
	return fmt.Sprintf("gave up: %s was refused %d times in %s: %s; %d more were not tried%s: mend that and run it again, which goes on from here",
		e.Op, e.Refused, e.Place, e.Why, e.NotTried, kept)
}

// Unwrap gives the refusal.
func (e *GaveUpError) Unwrap() error { return e.Err }

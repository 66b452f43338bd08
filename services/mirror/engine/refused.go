package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// A place that was mounted read-only, is full, or whose credentials lost their rights
// refuses each write alike. To try all of very many costs hours and tells nothing new. But
// it may be some directories only that are refused, so that what lies elsewhere must have
// its turn: first no more is given up than what lies beside something that was refused.

const (
	// mostRefusals is how many equal refusals in a row, without anything taken between
	// them, are enough to try no more than one entry of each directory: fewer than one
	// item, and more than a few files that are special.
	mostRefusals = 100
	// mostDirs is how many are enough to try nothing more.
	mostDirs = 1000
)

// ErrNotTried, which is an ErrHeldBack, marks what was not tried as the place had refused
// everything before it that lies beside it.
var ErrNotTried = fmt.Errorf("not tried: %w", ErrHeldBack)

// refused reports whether a place refuses a write in a way that does not pass by itself.
func refused(err error) bool {
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
	// given is what was given up, in its order.
	given []*givenUp
}

// kind is what is refused, or not, for itself: a full disk may still take directories.
type kind struct {
	to plan.Side
	op plan.Op
}

// streak are equal refusals in a row, since something of the kind was taken.
type streak struct {
	why string
	n   int64
	// dirs are the directories that what was refused lies in, in their order.
	dirs []string
	open *givenUp
}

// givenUp is where nothing more of a kind is tried.
type givenUp struct {
	kind
	// why is what all say, of which first is one; tried is how many, spared how many were
	// not tried.
	why           string
	first         error
	tried, spared int64
	// dirs are directories in which nothing more is tried; all says that it is so in any.
	dirs []string
	in   map[string]bool
	all  bool
}

func (g *givenUp) has(a *plan.Action) bool {
	return g.kind == kind{a.To, a.Op} && (g.all || g.in[parent(a.Key)])
}

// add gives up directories.
func (g *givenUp) add(dirs ...string) {
	for _, dir := range dirs {
		if !g.in[dir] {
			g.dirs = append(g.dirs, dir)
			g.in[dir] = true
		}
	}
}

// stops reports whether an action is not worth a try.
func (r *refusals) stops(a *plan.Action) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.given, func(g *givenUp) bool { return g.has(a) })
}

// none reports whether nothing was given up, which is quick to ask.
func (r *refusals) none() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.given) == 0
}

// doubts reports whether the last of an action's kind were all refused.
func (r *refusals) doubts(a *plan.Action) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.rows[kind{a.To, a.Op}]
	return row != nil && row.open != nil
}

// spared is stops, and counts an action that was not tried.
func (r *refusals) spared(a *plan.Action) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.given {
		if g.has(a) {
			g.spared++
			return true
		}
	}
	return false
}

// note is told what came of an action that was tried.
func (r *refusals) note(a *plan.Action, err error) {
	if !changes(a.Op) || err != nil && !refused(err) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k, dir := kind{a.To, a.Op}, parent(a.Key)
	if err == nil {
		delete(r.rows, k)
		for _, g := range r.given {
			if g.has(a) {
				g.all = false
				delete(g.in, dir)
			}
		}
		return
	}
	row, why := r.rows[k], reason(a.Key, err)
	if row == nil || row.why != why {
		if r.rows == nil {
			r.rows = map[kind]*streak{}
		}
		row = &streak{why: why}
		r.rows[k] = row
	}
	row.n++
	if row.open == nil {
		row.dirs = append(row.dirs, dir)
	}
	switch g := row.open; {
	case g != nil:
		g.tried, g.all = g.tried+1, g.all || row.n >= mostDirs
		g.add(dir)
	case row.n >= mostRefusals:
		g = r.give(k, why, err)
		g.tried += row.n
		g.add(row.dirs...)
		row.open, row.dirs = g, nil
	}
}

// give is what is given up of a kind for a reason.
func (r *refusals) give(k kind, why string, first error) *givenUp {
	for _, g := range r.given {
		if g.kind == k && g.why == why {
			return g
		}
	}
	g := &givenUp{kind: k, why: why, first: first, in: map[string]bool{}}
	r.given = append(r.given, g)
	return g
}

// parent is the key of the directory that a key lies in; "" for the root.
func parent(key string) string {
	return key[:strings.LastIndexByte(strings.TrimSuffix(key, "/"), '/')+1]
}

// err is what a run returns that has given up; nil if it has not.
func (r *refusals) err(places [2]place.Place) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, g := range r.given {
		if g.spared > 0 {
			errs = append(errs, &GaveUpError{
				Place: places[g.to].String(), Op: g.op, Dirs: g.dirs, Why: g.why, Refused: g.tried, NotTried: g.spared, Err: g.first,
			})
		}
	}
	return errors.Join(errs...)
}

// GaveUpError says that a run has not tried all that it was to do, as a place refused all
// that it tried for one reason that does not pass by itself.
type GaveUpError struct {
	// Place is the one that refuses Op.
	Place string
	Op    plan.Op
	// Dirs are the directories of what was refused, in that order, with '/' at the end; ""
	// is the root.
	Dirs []string
	// Why is what it says, without a name.
	Why string
	// Refused is how many changes were refused, NotTried how many were not tried.
	Refused, NotTried int64
	// Err is the first of the refusals.
	Err error
}

// Error says what was given up, and what to do.
func (e *GaveUpError) Error() string {
	where, kept := "", " and nothing was deleted"
	if i := slices.IndexFunc(e.Dirs, func(dir string) bool { return dir != "" }); i >= 0 {
		where = fmt.Sprintf(", such as in %q,", e.Dirs[i])
	}
	if e.Op == plan.Delete {
		kept = ""
	}
	return fmt.Sprintf("gave up: %s was refused %d times%s in %s: %s; %d more were not tried%s: mend that and run it again, which goes on from here",
		e.Op, e.Refused, where, e.Place, e.Why, e.NotTried, kept)
}

// Unwrap gives the refusal.
func (e *GaveUpError) Unwrap() error { return e.Err }

// Package runlog keeps, beside what a mirror remembers of its entries, how it was
// described and what its runs came to: for people, and for the commands that compare
// later. It is read without opening the mirror, also while a run is under way.
package runlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// logName is the document's name in the mirror's state.
const logName = "runs"

// Log is what is known of a mirror's runs. Dry runs leave nothing in it.
type Log struct {
	// Mirror is the mirror as that run was described that left what is remembered:
	// the last one that came to its end. While nothing is remembered, it is the last.
	Mirror drill.Mirror `json:"mirror"`
	// Last is the last run that began, Success the last that left nothing to be
	// done, Failure the last other one that ended.
	Last    *Run `json:"last,omitempty"`
	Success *Run `json:"success,omitempty"`
	Failure *Run `json:"failure,omitempty"`
	// Check is the last comparison with what is remembered that came to its end.
	Check *Check `json:"check,omitempty"`
	// Since is when the first run ended that left nothing to be done.
	Since time.Time `json:"since,omitzero"`
}

// Check is what a comparison came to.
type Check struct {
	// What is verify, drift or audit; Level is that which was asked for, Reached that which
	// was reached for every entry.
	What    string    `json:"what"`
	Level   string    `json:"level"`
	Reached string    `json:"reached,omitempty"`
	By      string    `json:"by"`
	Ended   time.Time `json:"ended"`
	// Good says that nothing was found that is not as it should be, Differs that something
	// was seen not to be what the last run left, Sides in words what each place has shown
	// that was looked at.
	Good    bool     `json:"good"`
	Differs bool     `json:"differs,omitempty"`
	Sides   []string `json:"sides"`
	// Levels is when a comparison that asked for a level ended last, this one's included.
	Levels map[string]time.Time `json:"levels,omitempty"`
}

// Reach is when a comparison ended last that asked for a level, or for a higher one; zero if
// none is known. It may be called of nil.
func (c *Check) Reach(level string) (last time.Time) {
	if c == nil {
		return last
	}
	if c.Level >= level {
		last = c.Ended
	}
	for l, at := range c.Levels {
		if l >= level && at.After(last) {
			last = at
		}
	}
	return last
}

// with is the comparison with what is known of those before it, which may be nil. What
// ended after this one did so by a clock that was ahead, and is as good as none.
func (c Check) with(before *Check) *Check {
	levels := map[string]time.Time{}
	for _, level := range drill.MirrorLevels {
		for _, at := range []time.Time{c.exactly(level), before.exactly(level)} {
			if at.After(levels[level]) && !at.After(c.Ended) {
				levels[level] = at
			}
		}
	}
	c.Levels = levels
	return &c
}

// exactly is Reach of no higher level.
func (c *Check) exactly(level string) time.Time {
	switch {
	case c == nil:
		return time.Time{}
	case c.Level == level:
		return c.Ended
	}
	return c.Levels[level]
}

// CheckOf is a comparison that came to its end, which somebody has asked for.
func CheckOf(c job.Compared, by string, at time.Time) Check {
	out := Check{What: c.What, Level: c.Level.String(), Reached: c.Reached().String(), By: by, Ended: at.UTC(), Good: c.Good(), Differs: c.Differs()}
	for _, v := range c.Shown {
		out.Sides = append(out.Sides, fmt.Sprintf("%s: %s", v.Place, v.Result))
	}
	return out
}

// Later is the comparison of two that ended later, with the levels of both; nil is earlier
// than any.
func (c *Check) Later(than *Check) *Check {
	switch {
	case c == nil:
		return than
	case than == nil:
		return c
	case than.Ended.After(c.Ended):
		return than.with(c)
	}
	return c.with(than)
}

// Newer reports whether a log tells of a later run than another one, or of the end of one
// that has none there; nil tells of none.
func (l *Log) Newer(than *Log) bool {
	switch {
	case l == nil || l.Last == nil:
		return false
	case than == nil || than.Last == nil || l.Last.Began.After(than.Last.Began):
		return true
	}
	return l.Last.Began.Equal(than.Last.Began) && !l.Last.Ended.IsZero() && than.Last.Ended.IsZero()
}

// ErrCancelled is the error of a run that was called off.
var ErrCancelled = errors.New("the run was called off")

// Run is what one run came to.
type Run struct {
	// By says who asked for it.
	By    string    `json:"by"`
	Began time.Time `json:"began"`
	// Ended is zero while it is under way, and for ever if its process was killed.
	Ended time.Time `json:"ended,omitzero"`
	// Whole says that it left nothing to be done.
	Whole bool `json:"whole"`
	// Failed says that it could not go on to its end, Cancelled that it was called off.
	Failed    bool `json:"failed,omitempty"`
	Cancelled bool `json:"cancelled,omitempty"`
	// Problem is what went wrong first; Problems counts all.
	Problem  string `json:"problem,omitempty"`
	Problems int64  `json:"problems,omitempty"`
	// Copied and Deleted count entries, Bytes the content that was copied.
	Copied  int64 `json:"copied"`
	Deleted int64 `json:"deleted"`
	Bytes   int64 `json:"bytes"`
	// Root stands for what both sides hold alike; nil where the run did not come so
	// far.
	Root *proof.Signed `json:"root,omitempty"`
}

// Dir is where a mirror's log lies, below what an environment keeps.
func Dir(env job.Env, m drill.Mirror) string {
	name := m.Name
	if name == "" {
		name = job.AdHoc(m)
	}
	return filepath.Join(env.StateDir, name)
}

// Read reads the log in a mirror's directory; false if no run has left one. Of one that
// is damaged it gives what is whole, with an error that wraps state.ErrCorrupt: the next
// run mends it.
func Read(dir string) (Log, bool, error) {
	var l Log
	known, err := state.LoadFrom(dir, logName, &l)
	if err == nil {
		return l, known, nil
	}
	if damage, ok := errors.AsType[*state.CorruptError](err); ok {
		// What another package advises would set the mirror up anew.
		damage.Fix = "the next run writes it anew, with what is whole of it"
		l, known = salvage(damage.File)
	} else {
		l = Log{}
	}
	return l, known, fmt.Errorf("read what the mirror's runs came to: %w", err)
}

// salvage reads what comes before the damage of a log; false if that is nothing.
func salvage(path string) (l Log, found bool) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Log{}, false
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if begins, err := d.Token(); err != nil || begins != json.Delim('{') {
		return Log{}, false
	}
	for d.More() {
		name, err := d.Token()
		key, named := name.(string)
		var value json.RawMessage
		if err != nil || !named || d.Decode(&value) != nil {
			break
		}
		one, err := json.Marshal(map[string]json.RawMessage{key: value})
		more := l // what is half read of a part is not taken
		if err == nil && json.Unmarshal(one, &more) == nil {
			l, found = more, true
		}
	}
	return l, found
}

// history is Read for who goes on to write: it mends what is damaged.
func history(dir string) (Log, error) {
	l, _, err := Read(dir)
	if errors.Is(err, state.ErrCorrupt) {
		return l, nil
	}
	return l, err
}

// Begun reports whether any run has come so far as to look at the mirror's places and to
// remember something: of one that was mistyped none ever does.
func Begun(dir string) bool {
	var f engine.Facts
	known, err := state.LoadFrom(dir, engine.FactsName, &f)
	return known || err != nil // what cannot be read was written
}

// Begin notes that a run begins. The caller has the mirror open, so that no other
// run writes to the log meanwhile, or could not open it.
func Begin(dir string, m drill.Mirror, by string, at time.Time) error {
	l, err := history(dir)
	if err != nil {
		return err
	}
	if l.Mirror.From == "" || l.Success == nil && !Begun(dir) {
		l.Mirror = m
	}
	l.Last = &Run{By: by, Began: at.UTC()}
	return write(dir, l)
}

// Refused notes that the run which began last was refused before it did anything: the log is
// what it was before; nil is none.
func Refused(dir string, before *Log) error {
	if before != nil {
		return write(dir, *before)
	}
	if err := os.Remove(filepath.Join(dir, logName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("note that a run of the mirror was refused: %w", err)
	}
	return nil
}

// End notes what the run that began last came to: err is why it could not go on.
func End(dir string, m drill.Mirror, res job.Result, err error, at time.Time) error {
	l, rerr := history(dir)
	if rerr != nil {
		return rerr
	}
	if l.Last == nil {
		l.Last = &Run{Began: at.UTC()}
	}
	if l.Last.end(res, err, at); l.Last.Root != nil {
		l.Mirror = m
	}
	if l.Last.Whole {
		if l.Since.IsZero() && l.Success != nil {
			l.Since = l.Success.Ended // as who ran before did not note it
		} else if l.Since.IsZero() {
			l.Since = l.Last.Ended
		}
		l.Success = l.Last
	} else {
		l.Failure = l.Last
	}
	return write(dir, l)
}

// Checked notes what a comparison came to, where there is a log of runs that is whole: the
// next run mends it. The caller has the mirror open.
func Checked(dir string, c Check) error {
	l, known, err := Read(dir)
	switch {
	case errors.Is(err, state.ErrCorrupt), err == nil && !known:
		return nil
	case err != nil:
		return err
	}
	l.Check = c.with(l.Check)
	return write(dir, l)
}

func write(dir string, l Log) error {
	err := state.MakeDir(dir) // as a mirror is first seen when it cannot be run
	if err == nil {
		err = state.SaveIn(dir, logName, l)
	}
	if err != nil {
		return fmt.Errorf("note what became of the mirror: %w", err)
	}
	return nil
}

func (r *Run) end(res job.Result, err error, at time.Time) {
	r.Ended = at.UTC()
	r.Whole = err == nil && res.Whole()
	r.Copied, r.Deleted, r.Bytes = res.Done[plan.Put], res.Done[plan.Delete], res.Bytes[plan.Put]
	if res.Root.Subject != "" {
		r.Root = &res.Root
	}
	if err != nil {
		r.Failed, r.Cancelled, r.Problem, r.Problems = true, errors.Is(err, ErrCancelled), err.Error(), 1
		return
	}
	r.Problems = Left(&res.Report)
	if all := Problems(&res.Report); r.Problems > 0 && len(all) > 0 {
		r.Problem = all[0]
	}
}

// Package runlog keeps, beside what a mirror remembers of its entries, how it was
// described and what its runs came to: for people, and for the commands that compare
// later. It is read without opening the mirror, also while a run is under way.
package runlog

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
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
	// the last one that came to its end.
	Mirror drill.Mirror `json:"mirror"`
	// Last is the last run that began, Success the last that left nothing to be
	// done, Failure the last other one that ended.
	Last    *Run `json:"last,omitempty"`
	Success *Run `json:"success,omitempty"`
	Failure *Run `json:"failure,omitempty"`
}

// Run is what one run came to.
type Run struct {
	// By says who asked for it.
	By    string    `json:"by"`
	Began time.Time `json:"began"`
	// Ended is zero while it is under way, and for ever if its process was killed.
	Ended time.Time `json:"ended,omitzero"`
	// Whole says that it left nothing to be done.
	Whole bool `json:"whole"`
	// Failed says that it could not go on to its end.
	Failed bool `json:"failed,omitempty"`
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

// Read reads the log in a mirror's directory; false if no run has left one.
func Read(dir string) (Log, bool, error) {
	var l Log
	known, err := state.LoadFrom(dir, logName, &l)
	if err != nil {
		return Log{}, false, fmt.Errorf("read what the mirror's runs came to: %w", err)
	}
	return l, known, nil
}

// Begin notes that a run begins. The caller has the mirror open, so that no other
// run writes to the log meanwhile, or could not open it.
func Begin(dir string, m drill.Mirror, by string, at time.Time) error {
	l, _, err := Read(dir)
	if err != nil {
		return err
	}
	if l.Mirror.From == "" {
		l.Mirror = m
	}
	l.Last = &Run{By: by, Began: at.UTC()}
	return write(dir, l)
}

// End notes what the run that began last came to: err is why it could not go on.
func End(dir string, m drill.Mirror, res job.Result, err error, at time.Time) error {
	l, _, rerr := Read(dir)
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
		l.Success = l.Last
	} else {
		l.Failure = l.Last
	}
	return write(dir, l)
}

func write(dir string, l Log) error {
	err := os.MkdirAll(dir, 0o700) // as a mirror is first seen when it cannot be run
	if err == nil {
		err = state.SaveIn(dir, logName, l)
	}
	if err != nil {
		return fmt.Errorf("note what the mirror's run came to: %w", err)
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
		r.Failed, r.Problem, r.Problems = true, err.Error(), 1
		return
	}
	r.Problems = Left(&res.Report)
	if all := Problems(&res.Report); len(all) > 0 {
		r.Problem = all[0]
	}
}

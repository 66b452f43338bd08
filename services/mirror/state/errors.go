package state

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

var (
	// ErrLocked is what every [*LockedError] is.
	ErrLocked = errors.New("another process uses it")
	// ErrCorrupt is what every [*CorruptError] is.
	ErrCorrupt = errors.New("the state is damaged")
	// ErrClosed says that a store, or what was made by it, is used after its Close.
	ErrClosed = errors.New("it is closed")
	// ErrName says that no file of a state can have a name.
	ErrName = errors.New("the state keeps no file of this name: use a plain name that does not begin with a dot")
	// ErrNote says that a note cannot be kept.
	ErrNote = errors.New("the note cannot be kept")
)

// LockedError says who holds the lock of a state, or has a place that a job needs.
type LockedError struct {
	// Dir is the state's directory, or the place.
	Dir string
	// By is the job that has the place; "" for a state.
	By string
	// PID is the process that holds it; 0 where that is not known.
	PID int
	// Since is when it took it; zero where that is not known.
	Since time.Time
}

// Error names the holder.
func (e *LockedError) Error() string {
	if e.By != "" {
		return fmt.Sprintf("%s is in use by %s (process %d): wait until that has ended", e.Dir, e.By, e.PID)
	}
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("open the state %s: %s uses it: wait until it ends, or give this job another directory", e.Dir, who)
}

// Unwrap returns ErrLocked.
func (e *LockedError) Unwrap() error { return ErrLocked }

// CorruptError says where a file of a state is not what was written.
type CorruptError struct {
	// File is its path, and Offset the byte from which on it cannot be used; less
	// than 0 where that is not known.
	File   string
	Offset int64
	// Problem is what is wrong there.
	Problem string
	// Fix says what to do.
	Fix string
	// Err is the cause, if there is one.
	Err error
}

// Error describes the damage and says what to do.
func (e *CorruptError) Error() string {
	var at, cause string
	if e.Offset >= 0 {
		at = fmt.Sprintf(" at byte %d", e.Offset)
	}
	if e.Err != nil {
		cause = fmt.Sprintf(" (%v)", e.Err)
	}
	return fmt.Sprintf("read %s%s: %s%s; %s", e.File, at, e.Problem, cause, e.Fix)
}

// Unwrap gives ErrCorrupt and the cause.
func (e *CorruptError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrCorrupt}
	}
	return []error{ErrCorrupt, e.Err}
}

// fixFor says what to do when what the runs left is damaged. What was noted cannot
// be told apart from what was committed, so that both files have to go.
func fixFor(path string) string {
	dir := filepath.Dir(path)
	return fmt.Sprintf("remove %s and %s: the next run then lists and compares both sides in full",
		filepath.Join(dir, pastName), filepath.Join(dir, journalName))
}

func corrupt(path string, at int64, problem string, err error) error {
	return &CorruptError{File: path, Offset: at, Problem: problem, Fix: fixFor(path), Err: err}
}

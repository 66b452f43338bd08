package job

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/joined"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// absent says what to do about a directory that is not there.
func (j *Job) absent(path string, err error) error {
	advice := "mount what should be there, or see whether the name is right; else make it"
	if j.store != nil && !j.store.Empty() {
		advice = "it was there when the mirror last ran: mount it; if it was replaced on purpose, make it and run once with --accept-places"
	}
	return &adviceError{fmt.Sprintf("cannot open %q: %v: %s", path, joined.Reason(err), advice), err}
}

// noDirectory says what to do about a place that is no directory.
func noDirectory(path string, side plan.Side) error {
	advice := "name another directory"
	if side == plan.Source {
		advice = fmt.Sprintf("name the one that it lies in, %q, and leave the rest out by a filter, %q and %q", filepath.Dir(path), "+ /"+filepath.Base(path), "- **")
	}
	return &adviceError{fmt.Sprintf("%q is no directory, and only whole directories are mirrored: %s", path, advice), unix.ENOTDIR}
}

// unmade says what to do about a destination that could not be made.
func unmade(path string, err error) error {
	at := path
	if told, ok := errors.AsType[*fs.PathError](err); ok {
		at = told.Path
	}
	var advice string
	switch up := filepath.Dir(at); {
	case errors.Is(err, fs.ErrPermission):
		advice = fmt.Sprintf("make it as a user who may write to %s, and give it to this one: sudo install -d -o %d -g %d %s", up, os.Geteuid(), os.Getegid(), control.Quote(path))
	case errors.Is(err, unix.ENOTDIR):
		advice = fmt.Sprintf("what lies at %q, or above it, is no directory: name another destination, or move that away", at)
	case errors.Is(err, unix.EROFS):
		advice = fmt.Sprintf("mount what holds %s for writing, or name a directory elsewhere", up)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		advice = fmt.Sprintf("free space or inodes in %s, or name a directory elsewhere", up)
	default:
		advice = fmt.Sprintf("mount what should be at %s, make the directory by hand, or name one elsewhere", up)
	}
	return &adviceError{fmt.Sprintf("cannot make the directory %q: %v: %s", path, joined.Reason(err), advice), err}
}

// adviceError says in words of its own what came of err, and what to do.
type adviceError struct {
	text string
	err  error
}

// Error implements error.
func (e *adviceError) Error() string { return e.text }

// Unwrap gives the cause.
func (e *adviceError) Unwrap() error { return e.err }

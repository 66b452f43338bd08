package scan

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrChanged means that a name no longer stands for what was seen under it: it
// was replaced while it was walked, or the entry was touched before it was opened.
var ErrChanged = errors.New("something else took the name, or it was touched, since it was seen")

// ErrKind means that an entry has no content that could be opened.
var ErrKind = errors.New("it is not a regular file")

// Error says what could not be learnt of one entry. A listing with an error is not
// whole: nothing may be deleted because of it.
type Error struct {
	// Op is what was tried, such as "list".
	Op string
	// Path is the entry's, raw; "" is the root.
	Path string
	Err  error
}

// Error quotes the path, so that no control character reaches a terminal.
func (e *Error) Error() string {
	text := fmt.Sprintf("cannot %s %q: %v", e.Op, e.Path, e.Err)
	if what := advice(e.Err); what != "" {
		text += ": " + what
	}
	return text
}

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

func advice(err error) string {
	switch {
	case errors.Is(err, ErrChanged):
		return "scan again when it keeps still"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "give the mirror the right to read it, or leave it out with a filter"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return "raise the limit of open files"
	case errors.Is(err, unix.EIO):
		return "check the disk and its file system"
	}
	return ""
}

// vanished reports that an entry went away, which is no error of a walk.
func vanished(err error) bool { return errors.Is(err, unix.ENOENT) }

// changed replaces the errors by which calls that follow no links tell that
// something of another kind has the name now.
func changed(err error) error {
	switch err {
	case unix.ELOOP, unix.ENOTDIR:
		return ErrChanged
	}
	return err
}

package local

import (
	"errors"
	"fmt"
	"slices"

	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/scan"
	"golang.org/x/sys/unix"
)

// ErrPrivilege says that only a process with more rights can write an entry as it
// is: a device, or a file that runs as an owner whom the process cannot set.
var ErrPrivilege = errors.New("that takes more rights than this process has")

// ErrLends says that an entry gives rights here, and is not made as others may have said
// that it is so.
var ErrLends = errors.New("that lends rights here to whoever may write to the bucket")

// Error says what could not be done with one entry.
type Error struct {
	// Op is what was tried, such as "write".
	Op string
	// Path is the entry's, raw; of what concerns the whole place the location.
	Path string
	Err  error
}

// Error quotes the path, so that no control character reaches a terminal.
func (e *Error) Error() string {
	text := fmt.Sprintf("cannot %s %q: %v", e.Op, e.Path, e.Err)
	_, own := errors.AsType[*Error](e.Err)
	_, read := errors.AsType[*scan.Error](e.Err)
	if own || read {
		return text // It says itself what to do, maybe at another place.
	}
	if what := advice(e.Err); what != "" {
		text += ": " + what
	}
	return text
}

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

// Is makes what passes only if somebody mends it a [place.ErrRefused]. What comes from a
// source that cannot be read is that of another place, and no such error.
func (e *Error) Is(target error) bool {
	return target == place.ErrRefused && e.refused()
}

func (e *Error) refused() bool {
	switch e.Op {
	case "open", "read", "look at", "hold":
		return false
	}
	if _, other := errors.AsType[*Error](e.Err); other {
		return false
	}
	return slices.ContainsFunc([]error{place.ErrReadOnly, unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.EACCES, unix.EPERM},
		func(err error) bool { return errors.Is(e.Err, err) })
}

func advice(err error) string {
	for _, a := range [...]struct {
		err  error
		what string
	}{
		{place.ErrChanged, "the next run takes it as it is then"},
		{place.ErrReadOnly, "open it for writing"},
		{place.ErrNotEmpty, "remove what it holds first"},
		{ErrPrivilege, "run the mirror as root, or leave it out with a filter"},
		{ErrLends, "if they are all trusted, run with --privileged, or write privileged: true in the inventory; or leave it out with a filter"},
		{unix.ENOENT, "make it, or mount what should be there"},
		{unix.ENOTDIR, "a directory is needed"},
		{unix.ENOSPC, "free space or inodes there, then run again"},
		{unix.EDQUOT, "raise the quota or free space there, then run again"},
		{unix.EROFS, "mount the file system for writing"},
		{unix.EACCES, "give the mirror the right to write there, or run it as the owner or root"},
		{unix.EPERM, "run the mirror as the owner or root, and look for an immutable flag (lsattr) or a share that does not let root write"},
		{unix.EXDEV, "another file system is mounted there: allow the mirror to cross, or leave it out with a filter"},
		{unix.ENAMETOOLONG, "rename it at the source"},
		{unix.ENOTSUP, "the file system cannot hold this: leave it out, or use another one"},
		{unix.EFBIG, "the file system or a limit (ulimit -f) cannot hold a file of this size"},
		{unix.EBUSY, "something is mounted there"},
		{unix.EMFILE, "raise the limit of open files"},
		{unix.ENFILE, "raise the limit of open files"},
		{unix.EIO, "check the disk and its file system"},
	} {
		if errors.Is(err, a.err) {
			return a.what
		}
	}
	return ""
}

// changed makes an error that is [place.ErrChanged] and says what was found.
func changed(found string) error { return fmt.Errorf("%w: %s", place.ErrChanged, found) }

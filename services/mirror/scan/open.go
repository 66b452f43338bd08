package scan

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"golang.org/x/sys/unix"
)

// Open opens the file that a walk yielded, for reading. It follows no link, waits
// for no pipe and disturbs no device: the name is opened only when what it stands
// for is still e, with its inode, size and times. The error is an [*Error] that is
// [ErrChanged] where it is not, and [ErrKind] where e is not a file. The caller
// closes the file, and asks [Changed] when it has read it. It needs /proc.
func Open(root *os.Root, e entry.Entry) (*os.File, error) {
	at, closeRoot, err := rootFD(root)
	if err != nil {
		return nil, &Error{"open", e.Path, err}
	}
	defer closeRoot()
	return OpenAt(at, e)
}

// OpenAt is [Open] below a directory that the caller has open as a descriptor: for
// who opens many files.
func OpenAt(dir int, e entry.Entry) (*os.File, error) {
	if e.Kind != entry.File {
		return nil, &Error{"open", e.Path, fmt.Errorf("%w but a %s", ErrKind, e.Kind)}
	}
	var f *os.File
	err := withPathAt(dir, e.Path, func(fd int) error {
		var st unix.Stat_t
		if err := fstat(fd, &st); err != nil {
			return err
		}
		if differs(e, &st) {
			return ErrChanged
		}
		// What fd stands for is a regular file, so this neither blocks nor acts.
		self := fmt.Sprintf("/proc/self/fd/%d", fd)
		const flags = unix.O_RDONLY | unix.O_CLOEXEC
		opened, err := openat(unix.AT_FDCWD, self, flags|unix.O_NOATIME)
		if err == unix.EPERM {
			opened, err = openat(unix.AT_FDCWD, self, flags)
		}
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w (is /proc mounted?)", self, err)
		}
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(opened), e.Path)
		return nil
	})
	if err != nil {
		return nil, &Error{"open", e.Path, err}
	}
	return f, nil
}

// Changed looks again at what a walk yielded, of any kind, and reports whether it
// was touched, replaced or removed since. Asked after the content was read, false
// says that what was read is what the walk saw. The error is an [*Error].
func Changed(root *os.Root, e entry.Entry) (bool, error) {
	var st unix.Stat_t
	err := withPath(root, e.Path, func(fd int) error { return fstat(fd, &st) })
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, ErrChanged):
		return true, nil
	case err != nil:
		return false, &Error{"look again at", e.Path, err}
	}
	return differs(e, &st), nil
}

// Touched looks again at a file that Open opened for e, without its name, and
// reports whether it was touched, replaced or removed since the walk: each of that
// moves the times of the inode or takes its last link away. That a directory above it
// was moved does not show. The error is an [*Error].
func Touched(f *os.File, e entry.Entry) (bool, error) {
	var st unix.Stat_t
	if err := fstat(int(f.Fd()), &st); err != nil {
		return false, &Error{"look again at", e.Path, err}
	}
	return st.Nlink == 0 || differs(e, &st), nil
}

// differs reports whether what was looked at is not e or was touched since.
func differs(e entry.Entry, st *unix.Stat_t) bool {
	var now entry.Entry
	fill(&now, st, e.Change.FS)
	if now.Kind == entry.Symlink {
		now.Size = e.Size // Not every file system has one; the inode's times tell.
	}
	return now.Kind != e.Kind || now.Change != e.Change || now.Size != e.Size || now.MTime != e.MTime
}

// withPath calls do with a descriptor of what has the path, opened for looking
// only. No component of the path is followed if it is a link: then it is
// ErrChanged, since none was when it was walked.
func withPath(root *os.Root, name string, do func(fd int) error) error {
	at, closeRoot, err := rootFD(root)
	if err != nil {
		return err
	}
	defer closeRoot()
	return withPathAt(at, name, do)
}

func withPathAt(at int, name string, do func(fd int) error) error {
	fd, err := openPath(at, name)
	if err != nil {
		return changed(err)
	}
	defer func() { _ = unix.Close(fd) }()
	return do(fd)
}

const lookOnly = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC

func openPath(at int, name string) (fd int, err error) {
	if name == "" {
		return openat(at, ".", lookOnly)
	}
	how := unix.OpenHow{Flags: lookOnly, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	err = uninterrupted(func() (err error) {
		fd, err = unix.Openat2(at, name, &how)
		return err
	})
	switch err {
	case unix.ENOSYS, unix.EPERM, unix.EAGAIN, unix.ENAMETOOLONG:
		// Old kernels and some sandboxes have no openat2(2), a rename somewhere may
		// make it give up, and paths of over 4,096 bytes it does not take.
		return openSteps(at, name)
	}
	return fd, err
}

// openSteps is openPath one component after the other.
func openSteps(at int, name string) (int, error) {
	parent := at
	for {
		first, rest, more := strings.Cut(name, "/")
		if first == "" || first == "." || first == ".." {
			return -1, os.ErrInvalid
		}
		flags := lookOnly
		if more {
			flags |= unix.O_DIRECTORY
		}
		fd, err := openat(parent, first, flags)
		if parent != at {
			_ = unix.Close(parent)
		}
		if err != nil || !more {
			return fd, err
		}
		parent, name = fd, rest
	}
}

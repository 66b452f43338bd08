// Package inherit keeps what a directory holds with whom the directory belongs to: what
// root writes for a user into that user's directory, the user's own runs go on with.
//
// Other users' processes may give nothing away, and do nothing here. All functions are
// safe for concurrent use.
package inherit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/firedrill/firedrill/pkg/joined"
)

// File gives a file that this process has just made in a directory to whom that belongs.
// Where that cannot be done, as on a share that lets no root change owners, it stays with
// whom it is: see Strange. A file that was there before must not be given: its name may be
// another name of something else.
func File(f *os.File, dir string) {
	if at, ok := heir(dir); ok {
		_ = f.Chown(int(at.Uid), int(at.Gid)) // See Strange.
	}
}

// MkdirAll makes a directory, and those above it that are missing, with that mode; each
// belongs to whom the one above it does. parent, unless it is nil, is called with the one
// above each that was made, and its error ends it.
func MkdirAll(dir string, mode fs.FileMode, parent func(string) error) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	up := filepath.Dir(dir)
	if up != dir {
		if err := MkdirAll(up, mode, parent); err != nil {
			return err
		}
	}
	if err := mkdir(up, filepath.Base(dir), mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if parent == nil {
		return nil
	}
	return parent(up)
}

// mkdir makes a directory in up, and gives it to whom up belongs. All is done in up as it
// was opened: who owns a directory above it could put something else in its place. One in
// which there is something, or that is not this process's, is not what was made.
func mkdir(up, name string, mode fs.FileMode) error {
	root, err := os.OpenRoot(up)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // It was read only, as the other one.
	if err := root.Mkdir(name, mode); err != nil {
		return &fs.PathError{Op: "mkdir", Path: filepath.Join(up, name), Err: joined.Reason(err)}
	}
	info, err := root.Stat(".")
	if err != nil || os.Geteuid() != 0 {
		return nil
	}
	at, ok := info.Sys().(*syscall.Stat_t)
	if !ok || at.Uid == 0 {
		return nil
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Readdirnames(1); errors.Is(err, io.EOF) && made(f) {
		_ = f.Chown(int(at.Uid), int(at.Gid)) // See Strange.
	}
	return nil
}

// made reports whether a directory belongs to root, as one does that it has just made.
func made(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0
}

// heir is to whom a directory belongs, if that is not root and this process is.
func heir(dir string) (at syscall.Stat_t, ok bool) {
	if os.Geteuid() != 0 || syscall.Stat(dir, &at) != nil {
		return at, false
	}
	return at, at.Uid != 0
}

// Strange is what root could not give away: an error that names the first in a directory
// that belongs to root while the directory is somebody else's, both owners, and the command
// that gives it, and nothing else, away. It is nil for all but root, and where there is none.
func Strange(dir string) error {
	at, ok := heir(dir)
	if !ok {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("see to whom belongs what lies in %s: %w", dir, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var st syscall.Stat_t
		if syscall.Lstat(path, &st) == nil && st.Uid == 0 {
			return fmt.Errorf("%s belongs to root, and %s to %s, whose runs cannot use it: if it is what a run by root left there, chown -h %d:%d %s",
				path, dir, account(at.Uid), at.Uid, at.Gid, quoted(path))
		}
	}
	return nil
}

// Explain adds to an error that says that what lies in dir, or dir, may not be used to whom
// that belongs, and the command that gives it to this process's user, where one is safe to
// give. Every other error is returned as it is.
func Explain(dir string, err error) error {
	told, ok := errors.AsType[*fs.PathError](err)
	if !ok || !errors.Is(told, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	path := told.Path
	var st syscall.Stat_t
	failed := syscall.Stat(path, &st)
	missing := true
	for failed != nil {
		missing = missing && failed == syscall.ENOENT
		up := filepath.Dir(path)
		if up == path {
			return err
		}
		path = up
		failed = syscall.Stat(path, &st)
	}
	if int(st.Uid) == os.Geteuid() {
		return err // It is about something else, such as its mode.
	}
	mend := "name another directory"
	switch rel, rerr := filepath.Rel(dir, path); {
	case rerr == nil && filepath.IsLocal(rel):
		mend = fmt.Sprintf("sudo chown -R %d:%d %s", os.Geteuid(), os.Getegid(), quoted(dir))
	case missing:
		mend = fmt.Sprintf("sudo install -d -m 700 -o %d -g %d %s", os.Geteuid(), os.Getegid(), quoted(dir))
	case ours(filepath.Dir(path)):
		// Root made it there. Elsewhere it may hold much else.
		mend = fmt.Sprintf("sudo chown -R %d:%d %s", os.Geteuid(), os.Getegid(), quoted(path))
	}
	return &ownerError{fmt.Sprintf("%v: %s belongs to %s, and this process is %s: run it as that user, or %s",
		err, path, account(st.Uid), account(uint32(os.Geteuid())), mend), err}
}

// ours reports whether a directory belongs to this process's user.
func ours(dir string) bool {
	var st syscall.Stat_t
	return syscall.Stat(dir, &st) == nil && int(st.Uid) == os.Geteuid()
}

// ownerError is an error with what Explain adds.
type ownerError struct {
	text string
	err  error
}

// Error implements error.
func (e *ownerError) Error() string { return e.text }

// Unwrap gives the cause.
func (e *ownerError) Unwrap() error { return e.err }

// account names a user.
func account(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(number); err == nil {
		return fmt.Sprintf("%s (uid %s)", u.Username, number)
	}
	return "uid " + number
}

// quoted writes a path for a shell where it needs that.
func quoted(path string) string {
	for _, c := range path {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '/', c == '.', c == '-', c == '_', c == '@', c == '+', c == ',', c == ':':
		default:
			return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
		}
	}
	return path
}

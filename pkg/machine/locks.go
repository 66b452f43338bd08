// Package machine has the locks by which the firedrills of one machine know of each
// other, whatever their event stores and users: two of them must not break the same
// system, nor write to the same place.
//
// A lock goes with its process at the latest. It is advisory: it keeps out only those
// who ask for it, too.
package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/firedrill/firedrill/pkg/filelock"
)

// Locks is a directory that all users of a machine share, in which each lock is a file.
// With "" nothing is locked, and nobody kept out. It may be used concurrently.
type Locks string

// Shared is the directory that all firedrills of this machine agree on: the machine's own
// for locks, if all users may make files there, for root and others have to agree on one.
// A service may have a temporary directory of its own, so that comes second.
func Shared() Locks {
	const usual = "/run/lock"
	if info, err := os.Stat(usual); err == nil && info.Mode().Perm() == 0o777 {
		return usual
	}
	return Locks(os.TempDir())
}

// HeldError says that somebody else has a lock.
type HeldError struct {
	// Path is the lock's file.
	Path string
	// By is what the holder said of itself, without what terminals take for commands; ""
	// if it said nothing.
	By string
	// PID is its process; 0 where that is not known.
	PID int
	// Since is when it took the lock; zero where that is not known.
	Since time.Time
}

// Error describes it.
func (e *HeldError) Error() string {
	by := e.By
	if by == "" {
		by = "it does not say which"
	}
	return fmt.Sprintf("another firedrill on this machine has locked %s (%s)", e.Path, by)
}

// Unwrap gives filelock.ErrHeld.
func (e *HeldError) Unwrap() error { return filelock.ErrHeld }

// Held is a lock that this process has; nil is one of no directory.
type Held struct{ f *os.File }

// Take locks something for this process alone. what names it to everybody alike, by to
// people: one line, to which the process is added. The error is a *HeldError if somebody
// else has it; any other one says why nothing can be locked there.
func (l Locks) Take(what, by string) (*Held, error) {
	if l == "" {
		return nil, nil
	}
	f, err := l.lock(what, filelock.Try)
	if err != nil {
		return nil, err
	}
	// For people: who may not write into another user's file is not named.
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "%s, process %d\n", by, os.Getpid())
	return &Held{f}, nil
}

// lock opens the file that stands for something, and locks it by a way of filelock's. The
// error is a *HeldError if somebody else has it, and that was not waited for.
func (l Locks) lock(what string, by func(*os.File) error) (*os.File, error) {
	sum := sha256.Sum256([]byte(what))
	path := filepath.Join(string(l), "firedrill-"+hex.EncodeToString(sum[:16]))
	f, err := openLock(path)
	if err != nil {
		return nil, err
	}
	if err = by(f); err == nil {
		return f, nil
	}
	held := holder(f)
	_ = f.Close() // nothing was written to it
	if errors.Is(err, filelock.ErrHeld) {
		return nil, held
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// Path is the lock's file; "" for nil.
func (h *Held) Path() string {
	if h == nil {
		return ""
	}
	return h.f.Name()
}

// Release gives the lock back. The file stays: whoever removes it takes another's lock
// away.
func (h *Held) Release() error {
	if h == nil {
		return nil
	}
	_ = h.f.Truncate(0) // for people, as above
	return filelock.LetGo(h.f)
}

// holder reads who has a lock, as far as its file tells. Anybody may have written that.
func holder(f *os.File) *HeldError {
	e := &HeldError{Path: f.Name()}
	said, _ := io.ReadAll(io.LimitReader(f, 300))
	e.By = Printable(string(said))
	if i := strings.LastIndex(e.By, ", process "); i >= 0 {
		_, _ = fmt.Sscanf(e.By[i:], ", process %d", &e.PID)
	}
	if info, err := f.Stat(); err == nil && e.By != "" {
		e.Since = info.ModTime()
	}
	return e
}

// Printable is the first line of what any user may have written, without what terminals
// take for commands.
func Printable(said string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return -1
	}, line)
}

// openLock is tryOpen until it does not meet somebody who is just making the file.
func openLock(path string) (f *os.File, err error) {
	for range 50 {
		f, err = tryOpen(path)
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrPermission) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return f, err
}

// tryOpen opens a lock's file, and makes one that is missing, for all users.
func tryOpen(path string) (*os.File, error) {
	f, err := openPlain(path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			err = f.Chmod(0o644) // whatever this process keeps from others
		}
	}
	if err != nil && f != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, err
}

// openPlain opens a lock's file. Reading is enough to lock it. Anybody may write to the
// directory: nothing but a plain file is used.
func openPlain(path string) (*os.File, error) {
	const careful = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	f, err := os.OpenFile(path, os.O_RDWR|careful, 0)
	if errors.Is(err, fs.ErrPermission) {
		f, err = os.OpenFile(path, os.O_RDONLY|careful, 0)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		if of, ok := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || ok && of.Nlink != 1 {
			err = fmt.Errorf("%s is not a plain file of its own; remove it", path)
		}
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil, err
	}
	return f, nil
}

package injector

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/filelock"
)

// holds are the locks that a conductor has on the systems of its drill, against the
// conductors of other event stores on this machine: a claim in a store is not known to
// them, and two drills on one cluster would take down both of its servers. A lock goes
// with its process at the latest. It is not safe for concurrent use.
type holds struct{ files []*os.File }

const (
	// holdWait is how long a lock is waited for that another one has: it gives it back a
	// moment after its drill's end.
	holdWait = 2 * time.Second
	// holdPause is the time between two tries, also of who waits to take a drill up.
	holdPause = 100 * time.Millisecond
)

// heldError says that another firedrill of this machine has a system.
type heldError struct{ path, holder string }

func (e *heldError) Error() string {
	return fmt.Sprintf("another firedrill on this machine drills it (%s): wait until that is over, or abort it there; it has locked %s", cmp.Or(e.holder, "it does not say which"), e.path)
}

// wait is take for as long as holdWait, or until ctx ends.
func (h *holds) wait(ctx context.Context, dir string, s drill.State, systems map[string]string, log *slog.Logger) error {
	tick := time.NewTicker(holdPause)
	defer tick.Stop()
	for give := time.Now().Add(holdWait); ; {
		err := h.take(dir, s, systems, log)
		if err == nil || time.Now().After(give) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// take takes a drill's systems, each a file of dir, which all users of the machine share.
// The error is a *heldError: another firedrill has one. Where nothing can be locked, that
// is logged, and no reason to keep from a drill.
func (h *holds) take(dir string, s drill.State, systems map[string]string, log *slog.Logger) error {
	if dir == "" {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(systems)) {
		err := h.takeOne(dir, s, systems[name])
		if errors.As(err, new(*heldError)) {
			return fmt.Errorf("target %s is %s: %w", name, systems[name], err)
		}
		if err != nil {
			log.Warn("another firedrill on this machine would not know of this drill", "target", name, "error", err)
		}
	}
	return nil
}

func (h *holds) takeOne(dir string, s drill.State, system string) error {
	sum := sha256.Sum256([]byte(system))
	path := filepath.Join(dir, "firedrill-"+hex.EncodeToString(sum[:16]))
	if slices.ContainsFunc(h.files, func(f *os.File) bool { return f.Name() == path }) {
		return nil // taken before, or by another target that is the same system
	}
	f, err := openLock(path)
	if err != nil {
		return err
	}
	if err := filelock.Try(f); err != nil {
		said, _ := io.ReadAll(io.LimitReader(f, 200)) // for people
		_ = f.Close()                                 // nothing was written to it
		if errors.Is(err, filelock.ErrHeld) {
			return &heldError{path, printable(string(said))}
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}
	h.files = append(h.files, f)
	// For people: who may not write into another user's file is not named.
	_ = f.Truncate(0)
	_, _ = fmt.Fprintf(f, "drill %s of %s, process %d\n", s.ID, cmp.Or(s.Requester, "nobody named"), os.Getpid())
	return nil
}

// printable is the first line of what any user may have written, without what terminals
// take for commands.
func printable(said string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return -1
	}, line)
}

// openLock is tryLockFile until it does not meet somebody who is just making the file.
func openLock(path string) (f *os.File, err error) {
	for range 50 {
		f, err = tryLockFile(path)
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrPermission) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return f, err
}

// tryLockFile opens a lock's file, and makes one that is missing, for all users. Reading is
// enough to lock it. Anybody may write to the directory: nothing but a plain file is used.
func tryLockFile(path string) (*os.File, error) {
	const careful = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	f, err := os.OpenFile(path, os.O_RDWR|careful, 0)
	if errors.Is(err, fs.ErrPermission) {
		f, err = os.OpenFile(path, os.O_RDONLY|careful, 0)
	}
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			err = f.Chmod(0o644) // whatever this process keeps from others
		}
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

// release gives back what was taken.
func (h *holds) release() error {
	var errs []error
	for _, f := range h.files {
		_ = f.Truncate(0) // for people, as above
		errs = append(errs, filelock.LetGo(f))
	}
	h.files = nil
	return errors.Join(errs...)
}

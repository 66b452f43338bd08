package injector

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/filelock"
)

// holds are the locks that a conductor has on the systems of its drill, against the
// conductors of other event stores on this machine: a claim in a store is not known to
// them, and two drills on one cluster would take down both of its servers. A lock goes
// with its process at the latest. It is not safe for concurrent use.
type holds struct{ files []*os.File }

// take takes a drill's systems, each a file in dir, which all users of the machine share.
// The error says who has one.
func (h *holds) take(dir string, s drill.State) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("locks of systems: %w", err)
	}
	// As for other users' files in such a place: nobody removes what is another's.
	if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("locks of systems: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Systems)) {
		if err := h.takeOne(dir, s, name); err != nil {
			return fmt.Errorf("target %s is %s: %w", name, s.Systems[name], err)
		}
	}
	return nil
}

func (h *holds) takeOne(dir string, s drill.State, name string) error {
	sum := sha256.Sum256([]byte(s.Systems[name]))
	path := filepath.Join(dir, hex.EncodeToString(sum[:16]))
	if slices.ContainsFunc(h.files, func(f *os.File) bool { return f.Name() == path }) {
		return nil // two of its targets are one system
	}
	f, err := openLock(path)
	if err != nil {
		return err
	}
	if err := filelock.Try(f); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 1000)) // for people
		_ = f.Close()                                    // opened for reading
		if errors.Is(err, filelock.ErrHeld) {
			return fmt.Errorf("another firedrill on this machine drills it: %s; wait until that is over, or abort it there", cmp.Or(strings.TrimSpace(string(holder)), "it does not say which"))
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	h.files = append(h.files, f)
	// Who may not write into another user's file leaves what that said.
	if w, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC|syscall.O_NOFOLLOW, 0); err == nil {
		_, werr := fmt.Fprintf(w, "drill %s of %s, process %d\n", s.ID, cmp.Or(s.Requester, "nobody named"), os.Getpid())
		return errors.Join(werr, w.Close())
	}
	return nil
}

// openLock opens a lock's file for reading, which is enough to lock it, and makes one that
// is missing. Links are not followed: anybody may write to the directory.
func openLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

// release gives back what was taken.
func (h *holds) release() error {
	var errs []error
	for _, f := range h.files {
		errs = append(errs, filelock.LetGo(f))
	}
	h.files = nil
	return errors.Join(errs...)
}

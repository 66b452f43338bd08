package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/filelock"
	"github.com/firedrill/firedrill/pkg/inherit"
)

// takeLock takes the directory for this process, until the file is let go. The file
// stays: whoever removes it takes another's lock away.
func takeLock(dir string) (*os.File, error) {
	f, err := lockFile(dir)
	if err != nil {
		return nil, err
	}
	err = lock(f)
	if errors.Is(err, filelock.ErrHeld) {
		return nil, errors.Join(holder(dir, f), f.Close())
	}
	if err == nil {
		err = writePID(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), filelock.LetGo(f))
	}
	return f, nil
}

// lockFile opens the file of the lock, which it makes if it is missing. A link in its place
// is refused: who owns the directory may have put it there, and what it leads to is written.
func lockFile(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	for range lookTries {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			inherit.File(f, dir)
			return f, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if f, err = os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0); !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, fmt.Errorf("lock %s: it comes and goes", path)
}

// lookTries is how often a lock is tried, lookPause the time between: who only looks
// whether it is held has it for an instant.
const (
	lookTries = 5
	lookPause = 10 * time.Millisecond
)

func lock(f *os.File) (err error) {
	for range lookTries {
		if err = filelock.Try(f); !errors.Is(err, filelock.ErrHeld) {
			return err
		}
		time.Sleep(lookPause)
	}
	return err
}

// holder says who has the lock, as far as its file tells.
func holder(dir string, f *os.File) *LockedError {
	e := &LockedError{Dir: dir}
	// Without the number and the time the message is still right.
	raw, _ := io.ReadAll(io.LimitReader(f, 32))
	e.PID, _ = strconv.Atoi(strings.TrimSpace(string(raw)))
	if st, err := f.Stat(); err == nil {
		e.Since = st.ModTime()
	}
	return e
}

// Holder says which process has the state in a directory open; nil if none has. It
// keeps nobody from opening it.
func Holder(dir string) (*LockedError, error) {
	f, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("see who has the state %s open: %w", dir, err)
	}
	defer func() { _ = filelock.LetGo(f) }() // it was read only
	switch err := filelock.TryShared(f); {
	case errors.Is(err, filelock.ErrHeld):
		return holder(dir, f), nil
	case err != nil:
		return nil, fmt.Errorf("see who has the state %s open: %w", dir, err)
	}
	return nil, nil
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

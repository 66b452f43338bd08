// Package filelock locks open files by flock(2), against everybody else who opens the
// same file, in this process or another. Such a lock is advisory: it keeps out only
// those who ask for it, too. It goes with the process at the latest.
//
// All functions are safe for concurrent use. Whoever removes a file that is locked lets
// the next one lock another file of that name beside its holder.
package filelock

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld says that somebody else has the lock.
var ErrHeld = errors.New("somebody else has the lock")

// Try takes the lock of a file for its holder alone, and does not wait: the error is
// ErrHeld if somebody else has it, shared or not. Any other one says why it cannot be
// told, such as that the file is closed, and does not name the file. The lock is kept
// until LetGo. A file that has the lock shared gives that up first, also when ErrHeld is
// returned.
func Try(f *os.File) error { return flock(f, unix.LOCK_EX|unix.LOCK_NB) }

// TryShared is Try for a lock that any number may have at once, while nobody has it
// alone.
func TryShared(f *os.File) error { return flock(f, unix.LOCK_SH|unix.LOCK_NB) }

// Wait is Try again and again, with a pause between, until the lock is taken. When ctx
// ends before, the error is its cause. Those who wait get their turns in no order.
func Wait(ctx context.Context, f *os.File, pause time.Duration) error {
	for {
		if err := Try(f); !errors.Is(err, ErrHeld) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// LetGo gives back the lock of a file, if it has one, and closes the file. To close it
// alone would not do: a program that this process is starting at that moment has the
// file, too, until it runs, and the lock with it.
func LetGo(f *os.File) error { return errors.Join(flock(f, unix.LOCK_UN), f.Close()) }

func flock(f *os.File, how int) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = c.Control(func(fd uintptr) {
		for {
			if failed = unix.Flock(int(fd), how); !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	switch {
	case err != nil:
		return err
	case errors.Is(failed, unix.EWOULDBLOCK):
		return ErrHeld
	}
	return failed
}

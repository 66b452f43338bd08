package machine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/pkg/filelock"
	"github.com/firedrill/firedrill/pkg/machine"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// heldBy takes what cannot be had.
func heldBy(t *testing.T, lock func() (*machine.Held, error)) *machine.HeldError {
	t.Helper()
	h, err := lock()
	held, ok := errors.AsType[*machine.HeldError](err)
	if !ok || h != nil || !errors.Is(err, filelock.ErrHeld) {
		t.Fatalf("%v, %v; want that it is held", h, err)
	}
	return held
}

// TestOneOfManyHasALock that is not there yet, and nobody goes without.
func TestOneOfManyHasALock(t *testing.T) {
	for range 50 {
		l := machine.Locks(t.TempDir())
		var had, held atomic.Int32
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				switch h, err := l.Take("pg/1", strconv.Itoa(i)); {
				case errors.As(err, new(*machine.HeldError)):
					held.Add(1)
				case err == nil:
					had.Add(1)
					t.Cleanup(func() { _ = h.Release() }) // in the end, so that all tried
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if had.Load() != 1 || held.Load() != 3 {
			t.Fatalf("%d have it, %d were told that it is held", had.Load(), held.Load())
		}
	}
}

// TestWhoHasItIsTold while it is held, and not afterwards.
func TestWhoHasItIsTold(t *testing.T) {
	l := machine.Locks(t.TempDir())
	h, err := l.Take("pg/1", "drill d-1 of me")
	must(t, err)
	e := heldBy(t, func() (*machine.Held, error) { return l.Take("pg/1", "another") })
	if want := "drill d-1 of me, process " + strconv.Itoa(os.Getpid()); e.By != want || e.PID != os.Getpid() || e.Since.IsZero() || e.Path != h.Path() {
		t.Errorf("held: %+v", e)
	}
	for _, word := range []string{h.Path(), "drill d-1 of me"} {
		if !strings.Contains(e.Error(), word) {
			t.Errorf("%q does not say %q", e, word)
		}
	}
	must(t, h.Release())
	if b, err := os.ReadFile(e.Path); err != nil || len(b) > 0 {
		t.Errorf("afterwards it says %q, %v", b, err)
	}
}

// TestWhatOthersWroteIsPrintable: anybody may have laid what a lock's file says.
func TestWhatOthersWroteIsPrintable(t *testing.T) {
	for said, want := range map[string]string{
		"drill d-1 of me, process 7\n":         "drill d-1 of me, process 7",
		"  \n":                                 "",
		"drill \x1b[2Jd-1\r of me\nand more\n": "drill [2Jd-1 of me",
		", process none":                       ", process none",
	} {
		l := machine.Locks(t.TempDir())
		h, err := l.Take("pg/1", "me")
		must(t, err)
		must(t, os.WriteFile(h.Path(), []byte(said), 0o600))
		if e := heldBy(t, func() (*machine.Held, error) { return l.Take("pg/1", "me") }); e.By != want || e.PID != 0 && e.PID != 7 {
			t.Errorf("%q becomes %+v, want %q", said, e, want)
		}
		must(t, h.Release())
	}
}

// TestLocksAreSharedByAll users: what another one has made is taken, too.
func TestLocksAreSharedByAll(t *testing.T) {
	l := machine.Locks(t.TempDir())
	umask := syscall.Umask(0o077)
	defer syscall.Umask(umask)
	h, err := l.Take("pg/1", "me")
	must(t, err)
	if info, err := os.Stat(h.Path()); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("another user cannot lock it: %v, %v", info.Mode(), err)
	}
	must(t, h.Release())
	must(t, os.Chmod(h.Path(), 0o444))
	h, err = l.Take("pg/1", "me")
	must(t, err)
	must(t, h.Release())
}

// TestOnlyPlainFilesAreLocked: whatever somebody laid there instead is left alone.
func TestOnlyPlainFilesAreLocked(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "other")
	must(t, os.WriteFile(secret, []byte("kept"), 0o600))
	for name, lay := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(secret, path) },
		"hard link": func(path string) error { return os.Link(secret, path) },
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"directory": func(path string) error { return os.Mkdir(path, 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			l := machine.Locks(t.TempDir())
			h, err := l.Take("pg/1", "me")
			must(t, err)
			must(t, errors.Join(h.Release(), os.Remove(h.Path()), lay(h.Path())))
			if h, err := l.Take("pg/1", "me"); err == nil || errors.As(err, new(*machine.HeldError)) {
				t.Errorf("locked %s, %v", h.Path(), err)
			}
			if b, err := os.ReadFile(secret); err != nil || string(b) != "kept" {
				t.Errorf("what it led to: %q, %v", b, err)
			}
		})
	}
}

// TestNoDirectoryLocksNothing.
func TestNoDirectoryLocksNothing(t *testing.T) {
	var l machine.Locks
	for range 2 {
		h, err := l.Take("pg/1", "me")
		must(t, err)
		if h.Path() != "" {
			t.Errorf("it locked %s", h.Path())
		}
		must(t, h.Release())
	}
	if _, err := machine.Locks(filepath.Join(t.TempDir(), "none")).Take("pg/1", "me"); err == nil {
		t.Error("a directory that is not there locks something")
	}
	if machine.Shared() == "" {
		t.Error("the firedrills of this machine agree on no directory")
	}
}

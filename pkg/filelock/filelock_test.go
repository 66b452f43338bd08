package filelock_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/filelock"
)

// open opens the file once more, as another process would.
func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // most are closed by then
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, filelock.ErrHeld) {
		t.Fatalf("%v, want %v", err, filelock.ErrHeld)
	}
}

func TestOneHasIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b := open(t, path), open(t, path)
	must(t, filelock.Try(a))
	must(t, filelock.Try(a)) // it has it
	refused(t, filelock.Try(b))
	refused(t, filelock.TryShared(b))
	must(t, filelock.LetGo(a))
	must(t, filelock.Try(b))
}

func TestManyShareIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b, c := open(t, path), open(t, path), open(t, path)
	must(t, filelock.TryShared(a))
	must(t, filelock.TryShared(b))
	refused(t, filelock.Try(c))
	must(t, filelock.LetGo(a))
	refused(t, filelock.Try(c))
	must(t, filelock.LetGo(b))
	must(t, filelock.Try(c))
}

func TestADirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	a, err := os.Open(dir)
	must(t, err)
	b, err := os.Open(dir)
	must(t, err)
	must(t, filelock.Try(a))
	refused(t, filelock.Try(b))
	must(t, filelock.LetGo(a))
	must(t, filelock.LetGo(b)) // it has none
}

func TestWaitGetsItsTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b := open(t, path), open(t, path)
	must(t, filelock.Try(a))
	got := make(chan error, 1)
	go func() { got <- filelock.Wait(t.Context(), b, time.Millisecond) }()
	select {
	case err := <-got:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	must(t, filelock.LetGo(a))
	must(t, <-got)
	refused(t, filelock.Try(open(t, path)))
}

func TestWaitEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b := open(t, path), open(t, path)
	must(t, filelock.Try(a))
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if err := filelock.Wait(ctx, b, time.Hour); !errors.Is(err, over) {
		t.Fatalf("%v, want %v", err, over)
	}
	must(t, filelock.LetGo(a))
	must(t, filelock.Wait(ctx, b, time.Hour)) // what is free needs no waiting
}

// TestLetGoWhileAProgramHasTheFile is what happens between fork and exec, for as long
// as it takes: another process has the open file, and so the lock.
func TestLetGoWhileAProgramHasTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	start := func(f *os.File) {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "cat")
		cmd.ExtraFiles = []*os.File{f}
		stdin, err := cmd.StdinPipe()
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() { must(t, errors.Join(stdin.Close(), cmd.Wait())) })
	}
	a := open(t, path)
	must(t, filelock.Try(a))
	start(a)
	must(t, filelock.LetGo(a))
	b := open(t, path)
	must(t, filelock.Try(b))
	// The test can fail: what is only closed stays locked.
	start(b)
	must(t, b.Close())
	refused(t, filelock.Try(open(t, path)))
}

func TestAClosedFileIsNotLocked(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "lock"))
	must(t, f.Close())
	for name, do := range map[string]func(*os.File) error{"Try": filelock.Try, "TryShared": filelock.TryShared, "LetGo": filelock.LetGo} {
		if err := do(f); err == nil || errors.Is(err, filelock.ErrHeld) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := filelock.Try(nil); err == nil {
		t.Error("no file is locked")
	}
}

package control

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/pkg/filelock"
)

// TestTheFencesLockIsGivenBack while a program is being started, which has the files of
// this process until it runs: the next one to act must not wait for that.
func TestTheFencesLockIsGivenBack(t *testing.T) {
	f := Fence{Dir: t.TempDir(), Name: "d", Epoch: 1}
	path := filepath.Join(f.Dir, "fence.lock")
	err := f.locked(t.Context(), func(fenceMemory) error {
		inherit(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := filelock.Try(lock); err != nil {
		t.Errorf("after the act: %v", err)
	}
	if err := filelock.LetGo(lock); err != nil {
		t.Error(err)
	}
}

// inherit has what this process has open under a path, until the test ends.
func inherit(t *testing.T, path string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range fds {
		// Of one that is closed meanwhile nothing is known any more.
		if at, err := os.Readlink(name); err != nil || at != path {
			continue
		}
		fd, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			t.Fatal(err)
		}
		child, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(child) })
		n++
	}
	if n == 0 {
		t.Errorf("nothing is open under %s", path)
	}
}

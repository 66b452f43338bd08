package tree_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/filelock"
	"github.com/firedrill/firedrill/services/mirror/tree"
)

// A program that is being started has the files of this process until it runs: the next
// copy must not wait for that.
func TestALockIsGivenBackWhileAProgramIsStarted(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	write(t, filepath.Join(from, "x"), "x")
	var once sync.Once
	e := tree.Engine{Workers: 1}.WithAfterRead(func(string) { once.Do(func() { inherit(t, to) }) })
	_, err := e.Copy(t.Context(), "job", from, to)
	must(t, err)
	d, err := os.Open(to)
	must(t, err)
	if err := filelock.Try(d); err != nil {
		t.Errorf("after the copy: %v", err)
	}
	must(t, filelock.LetGo(d))
}

// inherit has what this process has open under a path, until the test ends.
func inherit(t *testing.T, path string) {
	fds, err := filepath.Glob("/proc/self/fd/*")
	n := 0
	for _, name := range fds {
		// Of one that is closed meanwhile nothing is known any more.
		if at, err := os.Readlink(name); err != nil || at != path {
			continue
		}
		fd, aerr := strconv.Atoi(filepath.Base(name))
		child, derr := unix.Dup(fd)
		if err = errors.Join(err, aerr, derr); err == nil {
			t.Cleanup(func() { _ = unix.Close(child) })
			n++
		}
	}
	if err != nil || n == 0 {
		t.Errorf("%d files are open under %s: %v", n, path, err)
	}
}

package inherit_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/pkg/inherit"
)

// somebody is a user whose directories root writes into.
const somebody = 65534

// TestMain is also what is run as somebody: it makes a file in the directory that the
// environment names, and prints what is explained of the error.
func TestMain(m *testing.M) {
	if path := os.Getenv("INHERIT_TEST_WRITE"); path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil {
			err = f.Close()
		}
		fmt.Print(inherit.Explain(os.Getenv("INHERIT_TEST_DIR"), err))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// asSomebody writes to a path as that user, and gives what came of it.
func asSomebody(t *testing.T, dir, path string) string {
	t.Helper()
	self, err := os.Open(os.Args[0]) // its directory may be closed to others
	must(t, err)
	defer self.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = append(os.Environ(), "INHERIT_TEST_WRITE="+path, "INHERIT_TEST_DIR="+dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: somebody, Gid: somebody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// theirs is a directory that belongs to somebody, and that everybody may reach.
func theirs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can give files away: run the tests as root")
	}
	dir, err := os.MkdirTemp("", "firedrill-inherit-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chown(dir, somebody, somebody))
	return dir
}

func owner(t *testing.T, path string) uint32 {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Lstat(path, &st))
	return st.Uid
}

func TestWhatRootMakesBelongsToWhomTheDirectoryDoes(t *testing.T) {
	dir := theirs(t)
	deep := filepath.Join(dir, "a", "b")
	var parents []string
	must(t, inherit.MkdirAll(deep, 0o700, func(up string) error { parents = append(parents, up); return nil }))
	must(t, inherit.MkdirAll(deep, 0o700, nil))
	if len(parents) != 2 || parents[0] != dir || parents[1] != filepath.Dir(deep) {
		t.Errorf("parents %q", parents)
	}
	f, err := os.CreateTemp(deep, "x")
	must(t, err)
	defer f.Close()
	inherit.File(f, deep)
	for _, path := range []string{filepath.Dir(deep), deep, f.Name()} {
		if got := owner(t, path); got != somebody {
			t.Errorf("%s belongs to %d", path, got)
		}
	}
	if err := inherit.Strange(deep); err != nil {
		t.Error(err)
	}
	if got := asSomebody(t, deep, f.Name()); got != "<nil>" {
		t.Errorf("its owner: %s", got)
	}
	must(t, f.Chown(0, 0))
	if err := inherit.Strange(deep); err == nil || !strings.Contains(err.Error(), f.Name()+" belongs to root") || !strings.Contains(err.Error(), "chown -h 65534:65534 "+f.Name()) {
		t.Errorf("of what root kept: %v", err)
	}
	own := t.TempDir() // root's
	if err := inherit.Strange(own); err != nil {
		t.Errorf("of root's own: %v", err)
	}
}

// TestWhoMayNotIsToldWhoseItIs, and the command that mends it: never one that gives away
// what is not firedrill's.
func TestWhoMayNotIsToldWhoseItIs(t *testing.T) {
	dir := theirs(t)
	state := filepath.Join(dir, "state")
	must(t, os.Mkdir(state, 0o700))
	must(t, os.Chown(state, somebody, somebody))
	file := filepath.Join(state, "lock")
	must(t, os.WriteFile(file, nil, 0o600))
	roots := filepath.Join(dir, "roots")
	must(t, os.MkdirAll(filepath.Join(roots, "in"), 0o700))
	system := filepath.Join(theirs(t), "system")
	must(t, os.MkdirAll(filepath.Join(system, "closed"), 0o755))
	must(t, os.Chmod(filepath.Join(system, "closed"), 0o700))
	for name, c := range map[string]struct{ dir, path, want, not string }{
		"a file":                 {state, file, file + " belongs to root (uid 0), and this process is nobody (uid 65534): run it as that user, or sudo chown -R 65534:65534 " + state, ""},
		"the directory":          {roots, filepath.Join(roots, "x"), "sudo chown -R 65534:65534 " + roots, ""},
		"one above, in theirs":   {filepath.Join(roots, "in"), filepath.Join(roots, "in", "x"), "sudo chown -R 65534:65534 " + roots, ""},
		"none, below root's":     {filepath.Join(system, "new"), filepath.Join(system, "new"), "sudo install -d -m 700 -o 65534 -g 65534 " + filepath.Join(system, "new"), "chown"},
		"one above, in a system": {filepath.Join(system, "closed", "in"), filepath.Join(system, "closed", "in", "x"), "or name another directory", "chown"},
	} {
		if got := asSomebody(t, c.dir, c.path); !strings.Contains(got, c.want) || c.not != "" && strings.Contains(got, c.not) {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, err := range []error{nil, errors.New("x"), &os.PathError{Op: "open", Path: file, Err: syscall.EACCES}} {
		if got := inherit.Explain(state, err); got != err {
			t.Errorf("to root, of %v: %v", err, got)
		}
	}
}

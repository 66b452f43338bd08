package diskfill_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/diskfill"
)

const token = "firedrill-0123456789abcdef"

func fill(t *testing.T) diskfill.Fill {
	t.Helper()
	h, err := control.New(control.Config{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return diskfill.Fill{Host: h, Token: token, Path: dir, Allowed: []string{dir}, Keep: []string{dir, filepath.Join(dir, "not/yet")}}
}

func TestABoundedFileComesAndGoes(t *testing.T) {
	f := fill(t)
	f.Bytes = 1 << 20
	size, err := f.Size(t.Context())
	if err != nil || size != 1<<20 {
		t.Fatalf("%d, %v", size, err)
	}
	p, err := f.Write(t.Context(), control.Fence{}, size)
	if st, serr := os.Stat(f.File()); err != nil || serr != nil || !p.Proven || st.Size() != 1<<20 {
		t.Fatalf("%+v, %v, %v", p, err, serr)
	}
	for _, was := range []bool{true, false} {
		if got, err := diskfill.Remove(t.Context(), f.Host, token, f.File()); err != nil || got != was {
			t.Errorf("removed %t, %v", got, err)
		}
	}
}

func TestWhatCouldHurtIsRefused(t *testing.T) {
	for name, change := range map[string]func(*diskfill.Fill){
		"the data's file system to its end": func(f *diskfill.Fill) {},
		"more than the default":             func(f *diskfill.Fill) { f.Bytes = diskfill.DefaultMax + 1 },
		"more than asked for at most":       func(f *diskfill.Fill) { f.Bytes, f.Max = 2, 1 },
		"no directory":                      func(f *diskfill.Fill) { f.Bytes, f.Path = 1, f.Path+"/none" },
		"more than there is":                func(f *diskfill.Fill) { f.Bytes, f.Max = 1<<61, 1<<62 },
	} {
		f := fill(t)
		change(&f)
		if size, err := f.Size(t.Context()); err == nil {
			t.Errorf("%s: %d bytes", name, size)
		}
	}
	// The system's file system is bounded by the file's size, whatever is to be left.
	f := fill(t)
	f.Path, f.Leave = "/", 1
	if size, err := f.Size(t.Context()); err == nil {
		t.Errorf("the system's file system but for a byte: %d bytes", size)
	}
	f = fill(t)
	f.Path += "x"
	if err := f.Check(); !errors.As(err, new(*target.FieldError)) {
		t.Errorf("a directory that is not set aside: %v", err)
	}
	if _, err := diskfill.Remove(t.Context(), f.Host, token, "/etc/passwd"); err == nil {
		t.Error("another file is removed")
	}
}

// TestTheDatasFileSystemIsFilledButForWhatIsLeft needs one that is not that of /.
func TestTheDatasFileSystemIsFilledButForWhatIsLeft(t *testing.T) {
	f := fill(t)
	const whole, leave = 16 << 20, 1 << 20
	if err := syscall.Mount("tmpfs", f.Path, "tmpfs", 0, "size="+strconv.Itoa(whole)); err != nil {
		t.Fatalf("a file system of its own: %v: may this user mount? run the tests as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(f.Path, 0); err != nil {
			t.Error(err)
		}
	})
	if size, err := f.Size(t.Context()); err == nil {
		t.Errorf("to its end: %d bytes", size)
	}
	f.Leave = leave - 1
	if size, err := f.Size(t.Context()); err == nil {
		t.Errorf("to next to its end: %d bytes", size)
	}
	f.Leave = leave
	size, err := f.Size(t.Context())
	if err != nil || size > whole-leave || size < whole-2*leave {
		t.Fatalf("%d, %v", size, err)
	}
	// What others write by then is not taken from what is to be left.
	if err := os.WriteFile(filepath.Join(f.Path, "others"), make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := f.Write(t.Context(), control.Fence{}, size); err != nil || !p.Proven {
		t.Errorf("%+v, %v", p, err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.Path, &st); err != nil || int64(st.Bavail)*st.Bsize < leave {
		t.Errorf("%d bytes are left, %v", int64(st.Bavail)*st.Bsize, err)
	}
}

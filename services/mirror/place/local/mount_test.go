package local

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

// mount gives a directory a small file system of its own.
func mount(t testing.TB, dir string) {
	t.Helper()
	mountSized(t, dir, "4m")
}

func mountSized(t testing.TB, dir, size string) {
	t.Helper()
	must(t, os.Mkdir(dir, 0o755))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("a file system of its own: %v: may this user mount? run the tests as root", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

func TestMountedBelowIsWritten(t *testing.T) {
	dir := t.TempDir()
	mount(t, filepath.Join(dir, "m"))
	p := open(t, dir, Options{})
	for _, path := range []string{"f", "m/f", "m/d/f"} {
		e := put(t, p, file(path, "x"))
		if got := all(t, p)[path]; got.Change != e.Change {
			t.Errorf("%q was written as %+v and is listed as %+v", path, e.Change, got.Change)
		}
	}
	if len(p.fs.mounted) != 1 {
		t.Errorf("%d other file systems would be synced", len(p.fs.mounted))
	}
	must(t, p.Finish(t.Context()))
}

func TestMountedBelowIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	mount(t, filepath.Join(dir, "m"))
	must(t, os.WriteFile(filepath.Join(dir, "m", "theirs"), []byte("x"), 0o644))
	p := open(t, dir, Options{OneFileSystem: true})
	for _, path := range []string{"m/f", "m/d/f"} {
		_, err := p.Put(t.Context(), file(path, "x"))
		wants(t, "Put of "+path, err, unix.EXDEV)
	}
	got := all(t, p)
	if len(got) != 1 || got["m"].Kind != entry.Dir {
		t.Errorf("it lists %v", got)
	}
	e, ok, err := p.Look(t.Context(), got["m"])
	if err != nil || !ok || e.Change != got["m"].Change {
		t.Errorf("Look at what is mounted on: %+v, %t, %v", e, ok, err)
	}
	wants(t, "Remove of what is mounted on", p.Remove(t.Context(), []entry.Entry{got["m"]})[0], unix.EBUSY)
	if got := readFile(t, dir, "m", "theirs"); got != "x" {
		t.Errorf("what is mounted there holds %q", got)
	}
}

func TestMountedAndFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	mount(t, dir)
	p := open(t, dir, Options{})
	have := put(t, p, file("f", "old"))
	// Many small ones fill it, so that the content and not the reservation fails.
	content := string(make([]byte, preallocated-1))
	var err error
	for _, path := range []string{"1", "2", "3", "4", "5"} {
		if _, err = p.Put(t.Context(), file(path, content)); err != nil {
			break
		}
	}
	wants(t, "Put", err, unix.ENOSPC)
	w := file("f", content)
	w.Have = have
	_, err = p.Put(t.Context(), w)
	wants(t, "Put over a file", err, unix.ENOSPC)
	if got := readFile(t, dir, "f"); got != "old" {
		t.Errorf("it holds %q", got)
	}
	if left := litter(t, dir); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

func TestMountedReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	mount(t, dir)
	p := open(t, dir, Options{})
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err := p.Put(t.Context(), file("f", "x"))
	wants(t, "Put", err, unix.EROFS)
	_, err = Open(t.Context(), dir, Options{})
	wants(t, "Open for writing", err, unix.EROFS)
	for range open(t, dir, Options{ReadOnly: true}).Entries(t.Context(), place.ListOptions{}) {
		t.Error("it is empty")
	}
}

package scan_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/scan"
	"golang.org/x/sys/unix"
)

// touches are what may happen to d/f, a file of three bytes, after it was walked.
var touches = map[string]func(path string) error{
	"written, size and time kept": func(path string) error {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte("new"), 0o600); err != nil {
			return err
		}
		return os.Chtimes(path, time.Time{}, time.Unix(st.Mtim.Unix()))
	},
	"longer": func(path string) error { return os.WriteFile(path, []byte("longer"), 0o600) },
	"removed": func(path string) error {
		return os.Remove(path)
	},
	"mode": func(path string) error { return os.Chmod(path, 0o640) },
	"another file": func(path string) error {
		return errors.Join(os.WriteFile(path+"2", []byte("old"), 0o600), os.Rename(path+"2", path))
	},
	"a pipe": func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) },
	"a link to itself elsewhere": func(path string) error {
		return errors.Join(os.Rename(path, path+"2"), os.Symlink(filepath.Base(path)+"2", path))
	},
	"a directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	"its directory is a link to itself elsewhere": func(path string) error {
		d := filepath.Dir(path)
		return errors.Join(os.Rename(d, d+"2"), os.Symlink("d2", d))
	},
	"its directory is a file": func(path string) error {
		d := filepath.Dir(path)
		return errors.Join(os.RemoveAll(d), os.WriteFile(d, nil, 0o600))
	},
}

func fileAndRoot(t *testing.T) (*os.Root, entry.Entry, string) {
	dir := t.TempDir()
	path := filepath.Join(dir, "d/f")
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	must(t, os.WriteFile(path, []byte("old"), 0o600))
	// The clock of a file system ticks every few milliseconds: without a time of
	// long ago, what is written at once might not show.
	must(t, os.Chtimes(path, time.Time{}, time.Unix(1700000000, 5)))
	root := openRoot(t, dir)
	e := find(t, walkAll(t, root, scan.Options{}), "d/f")
	waitForTick(t, path, e)
	return root, e, path
}

// waitForTick returns when a change would get another ctime than e has.
func waitForTick(t *testing.T, path string, e entry.Entry) {
	t.Helper()
	probe := path + ".probe"
	must(t, os.WriteFile(probe, nil, 0o600))
	for mode := os.FileMode(0o600); ; mode ^= 0o040 {
		must(t, os.Chmod(probe, mode))
		var st unix.Stat_t
		must(t, unix.Stat(probe, &st))
		if st.Ctim.Nano() > e.Change.CTime {
			break
		}
	}
	must(t, os.Remove(probe))
}

func TestAnUntouchedFileOpensAndHasNotChanged(t *testing.T) {
	root, e, _ := fileAndRoot(t)
	f, err := scan.Open(root, e)
	must(t, err)
	text, err := io.ReadAll(f)
	if err != nil || string(text) != "old" {
		t.Errorf("read %q, %v", text, err)
	}
	must(t, f.Close())
	if changed, err := scan.Changed(root, e); changed || err != nil {
		t.Errorf("Changed: %t, %v", changed, err)
	}
}

func TestWhatWasTouchedNeitherOpensNorPassesForUnchanged(t *testing.T) {
	for name, touch := range touches {
		t.Run(name, func(t *testing.T) {
			root, e, path := fileAndRoot(t)
			must(t, touch(path))
			if changed, err := scan.Changed(root, e); !changed || err != nil {
				t.Errorf("Changed: %t, %v", changed, err)
			}
			f, err := scan.Open(root, e)
			if err == nil {
				_ = f.Close()
			}
			se, ok := errors.AsType[*scan.Error](err)
			if !ok || se.Path != "d/f" || !errors.Is(err, scan.ErrChanged) && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

func TestEveryKindIsLookedAtAgain(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "l")))
	must(t, unix.Mkfifo(filepath.Join(dir, "p"), 0o600))
	root := openRoot(t, dir)
	all := walkAll(t, root, scan.Options{})
	if len(all) != 4 {
		t.Fatalf("%d entries", len(all))
	}
	for _, e := range all {
		if changed, err := scan.Changed(root, e); changed || err != nil {
			t.Errorf("%q: %t, %v", e.Path, changed, err)
		}
		if f, err := scan.Open(root, e); !errors.Is(err, scan.ErrKind) {
			t.Errorf("%q opens as %v, %v", e.Path, f, err)
		}
	}
	waitForTick(t, filepath.Join(dir, "p"), find(t, all, "p"))
	for _, name := range []string{"d", "l", "p"} {
		must(t, os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+"2")))
		must(t, os.Rename(filepath.Join(dir, name+"2"), filepath.Join(dir, name)))
	}
	for _, e := range all {
		if changed, err := scan.Changed(root, e); !changed || err != nil {
			t.Errorf("%q: %t, %v", e.Path, changed, err)
		}
	}
}

func TestNoPathLeavesTheRoot(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "r"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
	e := find(t, walkAll(t, openRoot(t, dir), scan.Options{}), "f")
	root := openRoot(t, filepath.Join(dir, "r"))
	for _, path := range []string{"../f", "/" + dir + "/f", "x/../../f", "f\x00", ".."} {
		e.Path = path
		if f, err := scan.Open(root, e); err == nil {
			t.Errorf("%q opens as %s", path, f.Name())
		}
	}
}

// Both ways to a descriptor must agree, since either may be the one in use.
func TestBothWaysOfOpeningAPathAgree(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "a/b/f"), nil, 0o600))
	must(t, os.Symlink("b", filepath.Join(dir, "a/l")))
	must(t, os.Symlink("f", filepath.Join(dir, "a/b/lf")))
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	defer func() { _ = unix.Close(at) }()
	for path, opens := range map[string]bool{
		"a": true, "a/b": true, "a/b/f": true, "a/b/lf": true, "a/l": true,
		"a/l/f": false, "a/b/f/g": false, "a/x": false, "a/../../a": false, "../a": false, "/a": false,
	} {
		for name, open := range map[string]func(int, string) (int, error){"openat2": scan.OpenPath, "steps": scan.OpenSteps} {
			fd, err := open(at, path)
			if (err == nil) != opens {
				t.Errorf("%s of %q: %v", name, path, err)
			}
			if err == nil {
				must(t, unix.Close(fd))
			}
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	must(b, os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o700))
	must(b, os.WriteFile(filepath.Join(dir, "a/b/c/f"), nil, 0o600))
	root := openRoot(b, dir)
	e := find(b, walkAll(b, root, scan.Options{}), "a/b/c/f")
	b.Run("Open", func(b *testing.B) {
		for b.Loop() {
			f, err := scan.Open(root, e)
			must(b, err)
			must(b, f.Close())
		}
	})
	b.Run("Changed", func(b *testing.B) {
		for b.Loop() {
			_, err := scan.Changed(root, e)
			must(b, err)
		}
	})
	b.Run("os.Root.Open", func(b *testing.B) {
		for b.Loop() {
			f, err := root.Open(e.Path)
			must(b, err)
			must(b, f.Close())
		}
	})
}

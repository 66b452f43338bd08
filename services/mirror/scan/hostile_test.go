package scan_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/scan"
	"golang.org/x/sys/unix"
)

// changing makes a tree in which something moves while it is walked: the walk has
// read all names, and looked at no more than the first window of them.
func changing(t *testing.T) (dir string, late func(i int) string) {
	dir = t.TempDir()
	for i := range 2 * scan.Window {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%06d", i)), []byte("x"), 0o600))
	}
	return dir, func(i int) string { return fmt.Sprintf("%06d", scan.Window+i) }
}

func TestWhatVanishesIsLeftOut(t *testing.T) {
	dir, late := changing(t)
	must(t, os.Remove(filepath.Join(dir, late(9))))
	must(t, os.Mkdir(filepath.Join(dir, late(9)), 0o700))
	var got []string
	for e, err := range scan.Walk(t.Context(), openRoot(t, dir), scan.Options{}) {
		if err != nil {
			t.Fatalf("%q: %v", e.Path, err)
		}
		if e.Path == "" {
			must(t, os.Remove(filepath.Join(dir, late(5))))
			must(t, os.Remove(filepath.Join(dir, late(9))))
		}
		got = append(got, e.Path)
	}
	if len(got) != 2*scan.Window-1 || slices.Contains(got, late(5)) || slices.Contains(got, late(9)) {
		t.Errorf("%d entries", len(got))
	}
}

func TestWhatIsReplacedIsAnErrorOfItsOwn(t *testing.T) {
	dir, late := changing(t)
	must(t, os.Remove(filepath.Join(dir, late(7))))
	must(t, os.Mkdir(filepath.Join(dir, late(7)), 0o700))
	var failed, walked []string
	for e, err := range scan.Walk(t.Context(), openRoot(t, dir), scan.Options{}) {
		if e.Path == "" {
			must(t, os.Remove(filepath.Join(dir, late(5))))
			must(t, os.Mkdir(filepath.Join(dir, late(5)), 0o700))
			must(t, os.Remove(filepath.Join(dir, late(7))))
			must(t, os.Symlink("/", filepath.Join(dir, late(7))))
		}
		walked = append(walked, e.Path)
		if err == nil {
			continue
		}
		if se, ok := errors.AsType[*scan.Error](err); !ok || se.Path != e.Path || !errors.Is(err, scan.ErrChanged) {
			t.Errorf("%q: %v", e.Path, err)
		}
		failed = append(failed, e.Path)
	}
	if want := []string{late(5), late(7)}; !slices.Equal(failed, want) {
		t.Errorf("errors for %q, want %q", failed, want)
	}
	if !slices.IsSorted(walked) || len(walked) != 1+2*scan.Window {
		t.Errorf("the walk did not go on in order: %d entries", len(walked))
	}
}

// swap exchanges a directory and a link to the outside until the test ends.
func swap(t *testing.T, dir, link string) (swaps *atomic.Int64, stop func()) {
	swaps = &atomic.Int64{}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				t.Errorf("swap: %v", err)
				return
			}
			swaps.Add(1)
		}
	})
	return swaps, func() { close(done); wg.Wait() }
}

func TestAWalkStaysBelowItsRootWhenDirectoriesBecomeLinks(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(outside, "deep"), 0o700))
	must(t, os.WriteFile(filepath.Join(outside, "deep/secret"), []byte("outside"), 0o600))
	must(t, os.WriteFile(filepath.Join(outside, "file"), []byte("outside"), 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "sub/deep"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "sub/file"), []byte("inside!"), 0o600))
	must(t, os.Symlink(outside, filepath.Join(dir, "sub2")))
	root := openRoot(t, dir)
	inside := find(t, walkAll(t, root, scan.Options{}), "sub/file")

	swaps, stop := swap(t, filepath.Join(dir, "sub"), filepath.Join(dir, "sub2"))
	defer stop()
	entered, refused := 0, 0
	for i := 0; i < 2000 || (entered == 0 || refused == 0) && i < 1_000_000; i++ {
		for e, err := range scan.Walk(t.Context(), root, scan.Options{}) {
			switch {
			case err != nil && !errors.Is(err, scan.ErrChanged):
				t.Fatalf("%q: %v", e.Path, err)
			case err != nil:
				refused++
			case strings.HasSuffix(e.Path, "secret"):
				t.Fatalf("the walk left its root: %q", e.Path)
			case strings.HasSuffix(e.Path, "/file"):
				if e.Change.Inode != inside.Change.Inode {
					t.Fatalf("the walk left its root: %+v", e)
				}
				entered++
			}
		}
		opensOnlyInside(t, root, inside)
	}
	if entered == 0 || refused == 0 || swaps.Load() < 100 {
		t.Errorf("no race: %d swaps, the directory entered %d times and refused %d times", swaps.Load(), entered, refused)
	}
}

// opensOnlyInside opens a file whose directory may be a link to another such file.
func opensOnlyInside(t *testing.T, root *os.Root, e entry.Entry) {
	t.Helper()
	f, err := scan.Open(root, e)
	if err != nil {
		if !errors.Is(err, scan.ErrChanged) && !errors.Is(err, unix.ENOENT) {
			t.Fatalf("open: %v", err)
		}
		return
	}
	defer func() { _ = f.Close() }()
	text := make([]byte, 7)
	if _, err := f.Read(text); err != nil || string(text) != "inside!" {
		t.Fatalf("read %q, %v", text, err)
	}
}

// TestErrorsOfSomeEntriesDoNotEndAWalk runs itself as nobody where it runs as
// root, whom no permission stops.
func TestErrorsOfSomeEntriesDoNotEndAWalk(t *testing.T) {
	const env = "FIREDRILL_SCAN_CLOSED"
	if dir := os.Getenv(env); dir != "" {
		walkClosed(t, dir)
		return
	}
	dir := t.TempDir()
	for _, name := range []string{"a", "closed/in", "listable/in", "z"} {
		must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	must(t, os.Chmod(filepath.Join(dir, "closed"), 0))
	must(t, os.Chmod(filepath.Join(dir, "listable"), 0o444))
	t.Cleanup(func() {
		for _, name := range []string{"closed", "listable"} {
			_ = os.Chmod(filepath.Join(dir, name), 0o700)
		}
	})
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), env+"="+dir)
	if os.Geteuid() == 0 {
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		must(t, os.Chmod(dir, 0o755))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func walkClosed(t *testing.T, dir string) {
	if os.Geteuid() == 0 {
		t.Fatal("no permission stops root")
	}
	var got []string
	for e, err := range scan.Walk(t.Context(), openRoot(t, dir), scan.Options{}) {
		line := fmt.Sprintf("%s %s", e.Kind, e.Path)
		if err != nil {
			se, ok := errors.AsType[*scan.Error](err)
			if !ok || se.Path != e.Path || !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "give the mirror the right") {
				t.Errorf("%q: %v", e.Path, err)
			}
			line += " failed"
		}
		got = append(got, line)
	}
	want := []string{"dir ", "file a", "dir closed failed", "dir listable", "file listable/in failed", "file z"}
	if !slices.Equal(got, want) {
		t.Errorf("walked %q, want %q", got, want)
	}
}

func TestDeepTreesAreWalkedWithFewDescriptors(t *testing.T) {
	const levels = 1000
	dir := t.TempDir()
	parent, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	for range levels { // Together far longer than the kernel takes as one path.
		must(t, unix.Mkdirat(parent, "a-long-name", 0o700))
		fd, err := unix.Openat(parent, "a-long-name", unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(parent))
		parent = fd
	}
	fd, err := unix.Openat(parent, "bottom", unix.O_CREAT|unix.O_WRONLY, 0o600)
	must(t, err)
	must(t, unix.Close(fd))
	must(t, unix.Close(parent))

	root := openRoot(t, dir)
	before, most, n := openFiles(t), 0, 0
	var last entry.Entry
	for e, err := range scan.Walk(t.Context(), root, scan.Options{}) {
		must(t, err)
		if n++; n%100 == 0 {
			most = max(most, openFiles(t))
		}
		last = e
	}
	if n != levels+2 || !strings.HasSuffix(last.Path, "/bottom") {
		t.Errorf("%d entries, the last %.40q", n, last.Path)
	}
	if most > before+10 {
		t.Errorf("%d descriptors for a path without siblings", most-before)
	}
	f, err := scan.Open(root, last)
	must(t, err)
	must(t, f.Close())
	if changed, err := scan.Changed(root, last); changed || err != nil {
		t.Errorf("Changed: %t, %v", changed, err)
	}
}

func TestMemoryDoesNotGrowWithTheTree(t *testing.T) {
	dir := t.TempDir()
	if shm, err := os.MkdirTemp("/dev/shm", "scan"); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(shm) })
		dir = shm
	}
	const files = 200_000
	makeWide(t, dir, files, 500)
	root := openRoot(t, dir)
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	before, most, n := inUse(), uint64(0), 0
	for _, err := range scan.Walk(t.Context(), root, scan.Options{}) {
		must(t, err)
		if n++; n%10_000 == 0 {
			most = max(most, inUse())
		}
	}
	if n < files {
		t.Fatalf("%d entries", n)
	}
	// All entries would take over 50 MB.
	const bound = 8 << 20
	t.Logf("%d bytes of heap while walking", int64(most)-int64(before))
	if most > before+bound {
		t.Errorf("the walk needs %d bytes, more than %d", most-before, bound)
	}
}

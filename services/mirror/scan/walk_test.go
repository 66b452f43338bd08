package scan_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/scan"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// walkAll walks without expecting an error.
func walkAll(t testing.TB, root *os.Root, o scan.Options) []entry.Entry {
	t.Helper()
	var all []entry.Entry
	for e, err := range scan.Walk(t.Context(), root, o) {
		if err != nil {
			t.Fatalf("%q: %v", e.Path, err)
		}
		all = append(all, e)
	}
	return all
}

func pathsOf(all []entry.Entry) []string {
	paths := make([]string, len(all))
	for i, e := range all {
		paths[i] = e.Path
	}
	return paths
}

func find(t testing.TB, all []entry.Entry, path string) entry.Entry {
	t.Helper()
	i := slices.IndexFunc(all, func(e entry.Entry) bool { return e.Path == path })
	if i < 0 {
		t.Fatalf("the walk does not have %q", path)
	}
	return all[i]
}

// names generates what a file may be called, close together so that the order is
// put to the test.
func names() *rapid.Generator[string] {
	pieces := []string{"a", "b", "-", ".", "!", "0", "%", "%0A", "%{", "}", " ", "\n", "\\", "\xff", "é", "__XLDIR__", "\x01", "~"}
	return rapid.Map(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 4), func(s []string) string { return strings.Join(s, "") }).
		Filter(func(s string) bool { return s != "." && s != ".." })
}

// grow makes a random tree.
func grow(t *rapid.T, dir string, depth int) {
	for _, name := range rapid.SliceOfNDistinct(names(), 0, 6, rapid.ID).Draw(t, "names") {
		path := filepath.Join(dir, name)
		mode := rapid.Uint32Max(0o7777).Draw(t, "mode")
		var err error
		switch kind := rapid.IntRange(0, 7).Draw(t, "kind"); {
		case kind < 3 && depth > 0:
			if err = os.Mkdir(path, 0o700); err == nil {
				grow(t, path, depth-1)
			}
		case kind == 4:
			target := string(rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 300).Draw(t, "target"))
			err = os.Symlink(target, path)
		case kind == 5:
			err = unix.Mkfifo(path, mode)
		case kind == 6:
			err = unix.Mknod(path, unix.S_IFSOCK|mode, 0)
		case kind == 7 && os.Geteuid() == 0:
			err = unix.Mknod(path, unix.S_IFCHR|mode, int(unix.Mkdev(240, 17)))
		default:
			if err = os.WriteFile(path, make([]byte, rapid.IntRange(0, 9000).Draw(t, "size")), 0o600); err == nil {
				err = unix.Chmod(path, mode|0o400)
			}
		}
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
	}
}

// slowWalk is what a walk should give, by the standard library.
func slowWalk(t *rapid.T, dir string) []entry.Entry {
	var all []entry.Entry
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("no inode")
		}
		e := entry.Entry{
			Path: strings.TrimPrefix(strings.TrimPrefix(path, dir), "/"),
			Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MTime: fi.ModTime().UnixNano(),
			Change: entry.Change{Inode: st.Ino, CTime: st.Ctim.Nano()},
		}
		switch fi.Mode().Type() {
		case 0:
			e.Size = fi.Size()
		case fs.ModeDir:
			e.Kind = entry.Dir
		case fs.ModeSymlink:
			e.Kind = entry.Symlink
			e.Target, err = os.Readlink(path)
			e.Size = int64(len(e.Target))
		case fs.ModeNamedPipe:
			e.Kind = entry.Fifo
		case fs.ModeSocket:
			e.Kind = entry.Socket
		case fs.ModeDevice | fs.ModeCharDevice:
			e.Kind, e.Device = entry.CharDevice, st.Rdev
		}
		all = append(all, e)
		return err
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	slices.SortFunc(all, func(a, b entry.Entry) int { return entry.Compare(a.Key(), b.Key()) })
	return all
}

func TestAWalkIsWhatTheStandardLibraryFindsSorted(t *testing.T) {
	base := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(base, "tree")
		must(t, err)
		defer func() { _ = os.RemoveAll(dir) }()
		grow(rt, dir, 3)
		want := slowWalk(rt, dir)
		root, err := os.OpenRoot(dir)
		must(t, err)
		defer func() { _ = root.Close() }()
		got := walkAll(t, root, scan.Options{})
		for i := range got {
			if got[i].Change.FS == (entry.FSID{}) {
				rt.Fatalf("no identity of the file system of %q", got[i].Path)
			}
			got[i].Change.FS = entry.FSID{}
		}
		if !reflect.DeepEqual(got, want) {
			rt.Fatalf("walked\n%+v\nwant\n%+v", got, want)
		}
	})
}

func TestEveryByteMayBeInAName(t *testing.T) {
	dir := t.TempDir()
	want := []string{""}
	for c := 1; c < 256; c++ {
		for _, name := range []string{string([]byte{byte(c)}), string([]byte{'x', byte(c), 'y'})} {
			if c == '/' || name == "." {
				continue
			}
			must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
			want = append(want, name)
		}
	}
	got := pathsOf(walkAll(t, openRoot(t, dir), scan.Options{}))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("walked %q, want %q", got, want)
	}
}

func TestAWideDirectoryIsWholeAndInOrder(t *testing.T) {
	dir := t.TempDir()
	const files = 5*scan.Window + 7
	for i := range files {
		name := filepath.Join(dir, fmt.Sprintf("%x", i*2654435761))
		if i%10 == 0 {
			must(t, os.MkdirAll(filepath.Join(name, "inner"), 0o700))
		} else {
			must(t, os.WriteFile(name, nil, 0o600))
		}
	}
	all := walkAll(t, openRoot(t, dir), scan.Options{})
	if want := 1 + files + (files+9)/10; len(all) != want {
		t.Errorf("walked %d entries, not %d", len(all), want)
	}
	if !slices.IsSortedFunc(all, func(a, b entry.Entry) int { return entry.Compare(a.Key(), b.Key()) }) {
		t.Error("not in the order of keys")
	}
}

func TestTheFilterKeepsAWalkOut(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "out/in"), 0o700))
	must(t, os.MkdirAll(filepath.Join(dir, "keep"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "keep/a.tmp"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "keep/b"), nil, 0o600))
	got := pathsOf(walkAll(t, openRoot(t, dir), scan.Options{Filter: func(path string, kind entry.Kind) bool {
		if strings.HasPrefix(path, "out/") {
			t.Errorf("the filter was asked about %q in a directory that it rejected", path)
		}
		return (path != "out" || kind != entry.Dir) && !strings.HasSuffix(path, ".tmp")
	}}))
	if want := []string{"", "keep", "keep/b"}; !slices.Equal(got, want) {
		t.Errorf("walked %q, want %q", got, want)
	}
}

func TestOneFileSystemEndsAtMountPoints(t *testing.T) {
	root := openRoot(t, "/")
	only := func(path string, _ entry.Kind) bool { return path == "proc" || path == "proc/version" }
	there := walkAll(t, root, scan.Options{Filter: only})
	if want := []string{"", "proc", "proc/version"}; !slices.Equal(pathsOf(there), want) {
		t.Fatalf("walked %q, want %q", pathsOf(there), want)
	}
	if find(t, there, "").Change.FS == find(t, there, "proc").Change.FS {
		t.Error("two file systems have one identity")
	}
	here := walkAll(t, root, scan.Options{Filter: only, OneFileSystem: true})
	if want := []string{"", "proc"}; !slices.Equal(pathsOf(here), want) {
		t.Errorf("walked %q, want %q", pathsOf(here), want)
	}
}

func TestTheCallerMayNameTheFileSystem(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o700))
	id := entry.FSID{1, 2, 3}
	for _, e := range walkAll(t, openRoot(t, dir), scan.Options{FS: id}) {
		if e.Change.FS != id {
			t.Errorf("%q lies in %x", e.Path, e.Change.FS)
		}
	}
}

func TestXattrsAreRead(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "f\n"), nil, 0o600))
	must(t, os.Symlink("f\n", filepath.Join(dir, "l")))
	for _, name := range []string{"d", "f\n"} {
		err := unix.Setxattr(filepath.Join(dir, name), "user.firedrill", []byte("of "+name+"\x00"), 0)
		must(t, err)
		must(t, unix.Setxattr(filepath.Join(dir, name), "user.empty", nil, 0))
	}
	all := walkAll(t, openRoot(t, dir), scan.Options{Xattrs: true})
	for _, name := range []string{"d", "f\n"} {
		want := map[string][]byte{"user.firedrill": []byte("of " + name + "\x00"), "user.empty": {}}
		if got := find(t, all, name).Xattrs; !reflect.DeepEqual(got, want) {
			t.Errorf("%q has %q, not %q", name, got, want)
		}
	}
	if got := find(t, all, "l").Xattrs; got != nil {
		t.Errorf("the link has %q", got)
	}
}

func TestAContextEndsAWalk(t *testing.T) {
	dir := t.TempDir()
	makeWide(t, dir, 100, 10)
	root := openRoot(t, dir)
	cause := errors.New("enough")
	for _, after := range []int{1, 5, 50} {
		ctx, cancel := context.WithCancelCause(t.Context())
		n, last := 0, error(nil)
		for _, err := range scan.Walk(ctx, root, scan.Options{}) {
			if last != nil {
				t.Fatal("the walk went on after its last error")
			}
			if last = err; err == nil {
				n++
			}
			if n == after {
				cancel(cause)
			}
		}
		cancel(cause)
		if !errors.Is(last, cause) || n != after {
			t.Errorf("cancelled after %d: %d entries, then %v", after, n, last)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for e, err := range scan.Walk(ctx, root, scan.Options{}) {
		if !errors.Is(err, cause) {
			t.Errorf("a walk that was never to begin gives %q, %v", e.Path, err)
		}
	}
}

func TestACallerMayStopAnywhere(t *testing.T) {
	dir := t.TempDir()
	makeWide(t, dir, 200, 10)
	root := openRoot(t, dir)
	before := openFiles(t)
	for stop := range 222 {
		n := 0
		for range scan.Walk(t.Context(), root, scan.Options{}) {
			if n++; n > stop {
				break
			}
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files were open before and %d after", before, after)
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

func TestAClosedRootIsAnError(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	must(t, root.Close())
	n := 0
	for e, err := range scan.Walk(t.Context(), root, scan.Options{}) {
		n++
		if se, ok := errors.AsType[*scan.Error](err); !ok || se.Path != "" || e.Path != "" {
			t.Errorf("got %+v, %v", e, err)
		}
	}
	if n != 1 {
		t.Errorf("%d entries", n)
	}
}

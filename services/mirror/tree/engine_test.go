package tree_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oracle describes a tree in the plainest way there is.
func oracle(t require, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%v mtime=%d uid=%d gid=%d", fi.Mode(), fi.ModTime().UnixNano(), st.Uid, st.Gid)
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", b)
		case fi.Mode()&fs.ModeSymlink != 0:
			l, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + l
		}
		out[rel] = line
		return nil
	})
	if err != nil {
		t.Fatalf("oracle: %v", err)
	}
	return out
}

type require interface {
	Helper()
	Fatalf(string, ...any)
}

func sameTree(t require, from, to string) {
	t.Helper()
	a, b := oracle(t, from), oracle(t, to)
	for p, want := range a {
		if got := b[p]; got != want {
			t.Fatalf("%q:\n got %s\nwant %s", p, got, want)
		}
	}
	for p := range b {
		if _, ok := a[p]; !ok {
			t.Fatalf("%q is in the copy only", p)
		}
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// plant makes a random tree and returns how many entries it has.
func plant(t *rapid.T, root string) int {
	names := rapid.SampledFrom([]string{"a", "b", "B", "x y", "ü", "-rf", "*", "bad\xff", "new\nline", ".hidden", ".firedrill-copy-x"})
	n := rapid.IntRange(1, 12).Draw(t, "entries")
	made := 0
	var dirs []string
	for range n {
		dir := root
		if len(dirs) > 0 && rapid.Bool().Draw(t, "nested") {
			dir = rapid.SampledFrom(dirs).Draw(t, "dir")
		}
		p := filepath.Join(dir, names.Draw(t, "name"))
		if _, err := os.Lstat(p); err == nil {
			continue
		}
		made++
		switch rapid.SampledFrom([]string{"file", "file", "dir", "link", "hard"}).Draw(t, "kind") {
		case "dir":
			must(t, os.Mkdir(p, 0o755))
			dirs = append(dirs, p)
		case "link":
			must(t, os.Symlink(rapid.SampledFrom([]string{"a", "../b", "/etc/hostname", "nowhere", "bad\xfe"}).Draw(t, "target"), p))
		case "hard":
			if err := os.Link(filepath.Join(root, "a"), p); err != nil {
				must(t, os.WriteFile(p, nil, 0o600))
			}
		default:
			size := rapid.SampledFrom([]int{0, 1, 4095, 70_000, 1<<20 + 3}).Draw(t, "size")
			must(t, os.WriteFile(p, []byte(strings.Repeat("0123456789abcdef!", size/17+1)[:size]), 0o644))
			must(t, os.Chmod(p, rapid.SampledFrom([]fs.FileMode{0o600, 0o644, 0o755, 0o400, 0o711, 0o644 | fs.ModeSetuid, 0o2755}).Draw(t, "mode")))
		}
	}
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		must(t, err)
		ts := unix.NsecToTimespec(rapid.Int64Range(1, 2e18).Draw(t, "mtime"))
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
	return made
}

func must(t require, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

func TestCopyMatchesTheOracle(t *testing.T) {
	base := t.TempDir()
	var round atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		dir := filepath.Join(base, fmt.Sprint(round.Add(1)))
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to", "deep")
		must(t, os.MkdirAll(from, 0o755))
		plant(t, from)
		res, err := tree.Engine{Workers: rapid.IntRange(1, 4).Draw(t, "workers")}.Copy(context.Background(), "job", from, to)
		must(t, err)
		sameTree(t, from, to)
		checkResult(t, from, res)
		// A second run changes nothing, and proves the same.
		again, err := tree.Engine{}.Copy(context.Background(), "job", from, to)
		must(t, err)
		if again != res {
			t.Fatalf("the second run found %+v, the first %+v", again, res)
		}
		sameTree(t, from, to)
		must(t, os.RemoveAll(dir))
	})
}

func checkResult(t require, from string, res tree.Result) {
	t.Helper()
	entries, root, err := tree.ReadManifest(res.Manifest)
	must(t, err)
	if root != res.Root || res.Verified != tree.Level4 {
		t.Fatalf("manifest root %s, result %+v", root, res)
	}
	want := oracle(t, from)
	if len(entries) != len(want) {
		t.Fatalf("the manifest has %d entries, the source %d", len(entries), len(want))
	}
	var files, bytes int64
	for i, e := range entries {
		name := e.Path
		if len(e.Raw) > 0 {
			name = string(e.Raw)
		}
		if _, ok := want[name]; !ok {
			t.Fatalf("the manifest's %q is not in the source", name)
		}
		if i > 0 && entries[i-1].Path > e.Path && len(e.Raw)+len(entries[i-1].Raw) == 0 {
			t.Fatalf("the manifest is not sorted at %q", e.Path)
		}
		if e.Type == tree.TypeFile {
			files, bytes = files+1, bytes+e.Size
		}
	}
	if files != res.Files || bytes != res.Bytes {
		t.Fatalf("the manifest has %d files of %d bytes, the result says %d of %d", files, bytes, res.Files, res.Bytes)
	}
}

func TestRefusals(t *testing.T) {
	full, empty, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "f")
	write(t, filepath.Join(full, "sub", "x"), "x")
	write(t, file, "x")
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(full, link))
	special := t.TempDir()
	must(t, syscall.Mkfifo(filepath.Join(special, "pipe"), 0o600))
	for name, c := range map[string]struct {
		from, to string
		want     error
	}{
		"missing source":           {filepath.Join(full, "none"), t.TempDir(), tree.ErrNoSource},
		"file as source":           {file, t.TempDir(), tree.ErrNoSource},
		"empty source":             {empty, t.TempDir(), tree.ErrEmptySource},
		"target inside source":     {full, filepath.Join(full, "copy"), tree.ErrOverlap},
		"target is source":         {full, full, tree.ErrOverlap},
		"source inside target":     {filepath.Join(full, "sub"), full, tree.ErrOverlap},
		"target through a link":    {full, filepath.Join(link, "a", "b"), tree.ErrOverlap},
		"source through a link":    {link, filepath.Join(full, "copy"), tree.ErrOverlap},
		"a pipe in the source":     {special, t.TempDir(), tree.ErrSpecial},
		"foreign files in the way": {full, full + "-old", tree.ErrNotEmpty},
	} {
		t.Run(name, func(t *testing.T) {
			if c.want == tree.ErrNotEmpty {
				write(t, filepath.Join(c.to, "older"), "older")
				defer func() { _ = os.RemoveAll(c.to) }()
			}
			_, err := tree.Engine{}.Copy(t.Context(), "job", c.from, c.to)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(full, "copy")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("a refused copy left something in its source")
	}
}

func TestSocketsAreListedAndNotCopied(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	write(t, filepath.Join(from, "x"), "x")
	l, err := net.Listen("unix", filepath.Join(from, "sock"))
	must(t, err)
	defer func() { _ = l.Close() }()
	res, err := tree.Engine{}.Copy(t.Context(), "job", from, to)
	must(t, err)
	entries, _, err := tree.ReadManifest(res.Manifest)
	must(t, err)
	if len(entries) != 3 || entries[1].Path != "sock" || entries[1].Type != tree.TypeSocket {
		t.Fatalf("manifest: %+v", entries)
	}
	if _, err := os.Lstat(filepath.Join(to, "sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("the socket was copied")
	}
}

// A file that is changed between being read and being looked at again is read
// again; the copy is never a mixture.
func TestChangeWhileReading(t *testing.T) {
	changes := map[string]func(t *testing.T, dir string){
		"grows":    func(t *testing.T, d string) { write(t, filepath.Join(d, "x"), "longer than before") },
		"in place": func(t *testing.T, d string) { write(t, filepath.Join(d, "x"), "second") },
		"kept mtime": func(t *testing.T, d string) {
			fi, err := os.Stat(filepath.Join(d, "x"))
			must(t, err)
			write(t, filepath.Join(d, "x"), "SECOND")
			must(t, os.Chtimes(filepath.Join(d, "x"), fi.ModTime(), fi.ModTime()))
		},
		"replaced": func(t *testing.T, d string) {
			write(t, filepath.Join(d, "y"), "second")
			must(t, os.Rename(filepath.Join(d, "y"), filepath.Join(d, "x")))
		},
		"vanishes": func(t *testing.T, d string) { must(t, os.Remove(filepath.Join(d, "x"))) },
		"to dir": func(t *testing.T, d string) {
			must(t, os.Remove(filepath.Join(d, "x")))
			write(t, filepath.Join(d, "x", "below"), "below")
		},
		"to link": func(t *testing.T, d string) {
			must(t, os.Remove(filepath.Join(d, "x")))
			must(t, os.Symlink("/etc", filepath.Join(d, "x")))
		},
		"other file appears": func(t *testing.T, d string) { write(t, filepath.Join(d, "sub", "new"), "new") },
		"other dir vanishes": func(t *testing.T, d string) { must(t, os.RemoveAll(filepath.Join(d, "sub"))) },
		"dir to file": func(t *testing.T, d string) {
			must(t, os.RemoveAll(filepath.Join(d, "sub")))
			write(t, filepath.Join(d, "sub"), "a file now")
		},
		"mode": func(t *testing.T, d string) { must(t, os.Chmod(filepath.Join(d, "x"), 0o640)) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
			write(t, filepath.Join(from, "x"), "first!")
			write(t, filepath.Join(from, "sub", "z"), "z")
			write(t, filepath.Join(from, "sub", "deep", "z"), "z")
			var once sync.Once
			e := tree.Engine{Workers: 1}.WithAfterRead(func(p string) {
				if p == "x" {
					once.Do(func() { change(t, from) })
				}
			})
			res, err := e.Copy(t.Context(), "job", from, to)
			must(t, err)
			sameTree(t, from, to)
			checkResult(t, from, res)
		})
	}
}

func TestEndlessChangesAreReported(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	write(t, filepath.Join(from, "x"), "0")
	var n int
	e := tree.Engine{Passes: 3}.WithAfterRead(func(string) { n++; write(t, filepath.Join(from, "x"), fmt.Sprint(n)) })
	_, err := e.Copy(t.Context(), "job", from, to)
	var pe *tree.PathsError
	if !errors.Is(err, tree.ErrChanging) || !errors.As(err, &pe) || len(pe.Paths) != 1 || pe.Paths[0] != "x" {
		t.Fatalf("got %v, want ErrChanging about x", err)
	}
	if n != 3 {
		t.Fatalf("%d passes, want 3", n)
	}
	leftovers(t, to)
}

// Random writers work on the tree while it is copied. Either the copy is refused
// or every file is some version as a whole; once they stop, it is the last one.
func TestCopyUnderWriters(t *testing.T) {
	from, base := t.TempDir(), t.TempDir()
	const files, size = 8, 300_000
	version := func(i, v int) { // in place, so that a torn read is possible
		write(t, filepath.Join(from, fmt.Sprint(i)), strings.Repeat(fmt.Sprintf("%08d", v), size/8))
	}
	for i := range files {
		version(i, 0)
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for v := 1; ; v++ {
			select {
			case <-quit:
				return
			case <-time.After(3 * time.Millisecond):
				version(v%files, v)
			}
		}
	})
	whole := func(to string) {
		for i := range files {
			b, err := os.ReadFile(filepath.Join(to, fmt.Sprint(i)))
			must(t, err)
			if s := string(b); len(s) != size || s != strings.Repeat(s[:8], size/8) {
				t.Fatalf("file %d of the copy is a mixture of versions", i)
			}
		}
	}
	for round := range 3 {
		to := filepath.Join(base, fmt.Sprint(round))
		_, err := tree.Engine{}.Copy(t.Context(), "job", from, to)
		if err == nil {
			whole(to)
		} else if !errors.Is(err, tree.ErrChanging) {
			t.Fatal(err)
		}
		leftovers(t, to)
	}
	close(quit)
	wg.Wait()
	to := filepath.Join(base, "last")
	_, err := tree.Engine{}.Copy(t.Context(), "job", from, to)
	must(t, err)
	whole(to)
	sameTree(t, from, to)
}

// leftovers fails if a run that ended left unfinished files.
func leftovers(t *testing.T, to string) {
	t.Helper()
	for p := range oracle(t, to) {
		if strings.Contains(p, ".firedrill-copy-") {
			t.Fatalf("unfinished file %s was left", p)
		}
	}
}

func TestCancelledCopyLeavesNothingHalf(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	for i := range 50 {
		write(t, filepath.Join(from, fmt.Sprint(i)), strings.Repeat("x", 100_000))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var n atomic.Int64
	e := tree.Engine{Workers: 4}.WithAfterRead(func(string) {
		if n.Add(1) == 10 {
			cancel()
		}
	})
	if _, err := e.Copy(ctx, "job", from, to); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the cancellation", err)
	}
	leftovers(t, to)
	// What a killed run would leave is swept by the next one.
	write(t, filepath.Join(to, ".firedrill-copy-ABC.tmp"), "half")
	_, err := tree.Engine{}.Copy(t.Context(), "job", from, to)
	must(t, err)
	sameTree(t, from, to)
}

// Two runs into one place wait for each other.
func TestRunsIntoOnePlace(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	for i := range 20 {
		write(t, filepath.Join(from, fmt.Sprint(i)), strings.Repeat("x", 50_000))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := (tree.Engine{}).Copy(t.Context(), "job", from, to); err != nil {
				t.Errorf("a run beside others: %v", err)
			}
		})
	}
	wg.Wait()
	sameTree(t, from, to)
}

// What lies in the destination is replaced by nobody but the job that put it there.
func TestADestinationInUse(t *testing.T) {
	from := t.TempDir()
	for i := range 20 {
		write(t, filepath.Join(from, fmt.Sprint(i)), strings.Repeat("x", 50_000))
	}
	to := filepath.Join(t.TempDir(), "to")
	write(t, filepath.Join(to, "7"), "older")
	before := oracle(t, to)
	_, err := tree.Engine{}.Copy(t.Context(), "job", from, to)
	if !errors.Is(err, tree.ErrNotEmpty) || !strings.Contains(err.Error(), to+": copy to a new or an empty directory") {
		t.Fatalf("somebody's files: %v", err)
	}
	if after := oracle(t, to); len(after) != 2 || after["7"] != before["7"] {
		t.Fatalf("somebody's files were touched: %v", after)
	}
	must(t, os.RemoveAll(to))

	ctx, cancel := context.WithCancel(t.Context())
	var n atomic.Int64
	interrupted := tree.Engine{Workers: 2}.WithAfterRead(func(string) {
		if n.Add(1) == 10 {
			cancel()
		}
	})
	if _, err := interrupted.Copy(ctx, "job", from, to); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the cancellation", err)
	}
	_, err = tree.Engine{}.Copy(t.Context(), "another", from, to)
	if !errors.Is(err, tree.ErrNotEmpty) || !strings.Contains(err.Error(), to+` holds the copy of "job"`) {
		t.Fatalf("another job's copy: %v", err)
	}
	_, err = tree.Engine{}.Copy(t.Context(), "job", from, to)
	must(t, err)
	sameTree(t, from, to)

	// A place that was cleared is anybody's.
	must(t, os.RemoveAll(to))
	_, err = tree.Engine{}.Copy(t.Context(), "another", from, to)
	must(t, err)
	if _, err := (tree.Engine{}).Copy(t.Context(), "job", from, to); !errors.Is(err, tree.ErrNotEmpty) {
		t.Fatalf("after another job took it: %v", err)
	}
}

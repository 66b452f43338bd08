package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"golang.org/x/sys/unix"
)

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	for _, path := range []string{"missing", "file"} {
		_, err := Open(t.Context(), filepath.Join(dir, path), Options{})
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%q: %v is no *Error", path, err)
		}
	}
	if p := open(t, dir, Options{}); p.String() != dir {
		t.Errorf("it is called %q", p)
	}
	if p := open(t, dir, Options{Name: "file:data"}); p.String() != "file:data" {
		t.Errorf("it is called %q", p)
	}
}

func TestIdentityTellsDirectoriesApart(t *testing.T) {
	one, other := t.TempDir(), t.TempDir()
	first := open(t, one, Options{}).Traits().Identity
	if again := open(t, one, Options{ReadOnly: true}).Traits().Identity; again != first || first == "" {
		t.Errorf("one directory is %q and %q", first, again)
	}
	if got := open(t, other, Options{}).Traits().Identity; got == first {
		t.Errorf("two directories are %q", got)
	}
	chosen := open(t, one, Options{FS: entry.FSID{0xab}})
	if got := chosen.Traits().Identity; !strings.HasPrefix(got, "ab00") {
		t.Errorf("the chosen identity became %q", got)
	}
	// What is written belongs to the same file system as what is walked.
	if e := put(t, chosen, file("f", "x")); e.Change.FS != (entry.FSID{0xab}) || all(t, chosen)["f"].Change != e.Change {
		t.Errorf("it was written as %+v and is listed as %+v", e.Change, all(t, chosen)["f"].Change)
	}
}

func TestPathsLongerThanTheKernelTakes(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{})
	below := strings.TrimSuffix(strings.Repeat(strings.Repeat("n", 200)+"/", 40), "/") // 8,039 bytes
	d, err := p.MakeDir(t.Context(), entry.Entry{Path: below, Kind: entry.Dir, Mode: 0o550, MTime: 5, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	must(t, err)
	f := put(t, p, file(below+"/f", "content"))
	w := file(below+"/f", "other")
	w.Have = f
	f = put(t, p, w)
	f, err = p.SetAttrs(t.Context(), f, f)
	must(t, err)
	must(t, p.Finish(t.Context()))
	got := all(t, p)
	if got[below].Mode != 0o550 || got[below].MTime != 5 || got[below+"/f"].Change != f.Change {
		t.Errorf("it lists %+v and %+v", got[below], got[below+"/f"])
	}
	c, err := p.Open(t.Context(), f, 0, -1)
	must(t, err)
	raw, err := io.ReadAll(c)
	must(t, errors.Join(err, c.Unchanged(), c.Close()))
	if string(raw) != "other" {
		t.Errorf("it holds %q", raw)
	}
	for _, err := range p.Remove(t.Context(), []entry.Entry{f, d}) {
		must(t, err)
	}
	if got := all(t, p); len(got) != 39 {
		t.Errorf("%d directories are left", len(got))
	}
}

// A file must not run as someone else than it does at the source.
func TestSetuidOfAnOwnerWhoCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{NoOwner: true})
	if p.Traits().Lists&plan.AttrOwner != 0 {
		t.Error("it says that it keeps owners")
	}
	for _, mode := range []uint32{0o4755, 0o2755} {
		w := file("f", "x")
		w.Entry.Mode = mode
		w.Entry.UID, w.Entry.GID = w.Entry.UID+1, w.Entry.GID+1
		wants(t, "Holds", p.Traits().Holds(w.Entry), ErrPrivilege)
		_, err := p.Put(t.Context(), w)
		wants(t, "Put", err, ErrPrivilege)
		w.Entry.Mode = 0o755
		have := put(t, p, w)
		w.Entry.Mode = mode
		_, err = p.SetAttrs(t.Context(), w.Entry, have)
		wants(t, "SetAttrs", err, ErrPrivilege)
		must(t, os.Remove(filepath.Join(dir, "f")))
	}
	p.rights.mknod = false
	w := place.Write{Entry: entry.Entry{Path: "dev", Kind: entry.CharDevice, Device: 1 << 8}}
	wants(t, "Holds of a device", p.Traits().Holds(w.Entry), ErrPrivilege)
	_, err := p.Put(t.Context(), w)
	wants(t, "Put of a device", err, ErrPrivilege)
}

func TestWhatCannotBeHeld(t *testing.T) {
	p := open(t, t.TempDir(), Options{})
	for _, e := range []entry.Entry{
		{}, {Path: ".."}, {Path: "a/../b"}, {Path: "/a"}, {Path: "a/"}, {Path: "a//b"}, {Path: "a\x00b"}, {Path: strings.Repeat("n", 256)},
		{Path: strings.Repeat("n", 256) + "/f"}, {Path: tempPrefix + strings.Repeat("A", tempRandom)},
		{Path: "l", Kind: entry.Symlink}, {Path: "l", Kind: entry.Symlink, Target: strings.Repeat("t", 4096)}, {Path: "l", Kind: entry.Symlink, Target: "a\x00"},
		{Path: "k", Kind: 99},
	} {
		_, err := p.Put(t.Context(), place.Write{Entry: e, Open: source("")})
		for _, err := range []error{p.Traits().Holds(e), err} {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("%+v: got %v", e, err)
			} else if strings.ContainsAny(err.Error(), "\x00\n") {
				t.Errorf("the error reaches a terminal as %q", err)
			}
		}
	}
	if got := all(t, p); len(got) > 0 {
		t.Errorf("it holds %v", got)
	}
}

// A disk that is too small is found before the content is read.
func TestNoRoom(t *testing.T) {
	dir := t.TempDir()
	var fs unix.Statfs_t
	must(t, unix.Statfs(dir, &fs))
	p := open(t, dir, Options{})
	w := file("d/huge", "")
	w.Entry.Size = int64(fs.Blocks)*fs.Bsize + 1<<30
	read := false
	w.Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(&walking{Reader: strings.NewReader(""), walk: func() { read = true }}), nil
	}
	_, err := p.Put(t.Context(), w)
	wants(t, "Put", err, unix.ENOSPC)
	if read || err == nil || !strings.Contains(err.Error(), "free space") {
		t.Errorf("read: %t, and it says: %v", read, err)
	}
	if left := litter(t, dir); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

func TestAReaderThatGivesNothing(t *testing.T) {
	p := open(t, t.TempDir(), Options{})
	w := file("f", "x")
	w.Open = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(idle{}), nil }
	_, err := p.Put(t.Context(), w)
	wants(t, "Put", err, io.ErrNoProgress)
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// What the write's hashes say is passed on; an object's ETag is not the file's.
func TestHashesArePassedOn(t *testing.T) {
	p := open(t, t.TempDir(), Options{})
	w := file("f", "x")
	w.Entry.Sum = entry.Sum{Has: entry.HasBLAKE3 | entry.HasCRC32C | entry.HasETag | entry.HasPartSize, BLAKE3: [32]byte{1}, CRC32C: 2, ETag: "e", PartSize: 3}
	e := put(t, p, w)
	if want := (entry.Sum{Has: entry.HasBLAKE3 | entry.HasCRC32C, BLAKE3: [32]byte{1}, CRC32C: 2}); e.Sum != want {
		t.Errorf("got %+v", e.Sum)
	}
	set, err := p.SetAttrs(t.Context(), e, e)
	must(t, err)
	if set.Sum != e.Sum {
		t.Errorf("SetAttrs gave %+v", set.Sum)
	}
}

// Directories that not even their owner may enter come last, and the later of two
// notes counts.
func TestDirectoriesThatCloseThemselves(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{})
	want := map[string]uint32{"a": 0, "a/b": 0o600, "a/b/c": 0o500, "a/d": 0o400, "e": 0o711, "f": 0}
	for _, path := range slices.Sorted(maps.Keys(want)) {
		for _, mode := range []uint32{0o711 &^ want[path], want[path]} {
			_, err := p.MakeDir(t.Context(), entry.Entry{Path: path, Kind: entry.Dir, Mode: mode, MTime: 7, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
			must(t, err)
		}
	}
	put(t, p, file("a/b/c/f", "x"))
	must(t, p.Finish(t.Context()))
	t.Cleanup(func() {
		for _, path := range slices.Sorted(maps.Keys(want)) {
			must(t, os.Chmod(filepath.Join(dir, path), 0o700))
		}
	})
	for _, path := range slices.Sorted(maps.Keys(want)) {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, path), &st))
		if st.Mode&0o7777 != want[path] || st.Mtim.Nano() != 7 {
			t.Errorf("%q has the mode %o and the time %d", path, st.Mode&0o7777, st.Mtim.Nano())
		}
		must(t, os.Chmod(filepath.Join(dir, path), 0o700))
	}
}

func TestNotesCostNoMemory(t *testing.T) {
	const many = 200_000
	var ns notes
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range many {
		must(t, ns.add(note{path: fmt.Sprintf("some/longer/path/of/a/directory/%d", i), inode: uint64(i), mtime: -int64(i), mode: 0o555, hasMTime: i%2 == 0, hasMode: i%3 == 0}))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("%d notes hold %d bytes", many, grown)
	}
	i := 0
	must(t, ns.take(func(n note) error {
		if want := (note{fmt.Sprintf("some/longer/path/of/a/directory/%d", i), uint64(i), -int64(i), 0o555, i%2 == 0, i%3 == 0}); n != want {
			t.Fatalf("note %d became %+v", i, n)
		}
		i++
		return nil
	}))
	if i != many {
		t.Errorf("%d of %d came back", i, many)
	}
}

// What is noted twice is applied once, and a second run begins anew.
func TestFinishOfSecondRun(t *testing.T) {
	p := open(t, t.TempDir(), Options{})
	d := entry.Entry{Path: "d", Kind: entry.Dir, Mode: 0o755, MTime: 7}
	for run := range 3 {
		d.MTime++
		_, err := p.MakeDir(t.Context(), d)
		must(t, err)
		put(t, p, file(fmt.Sprint("d/", run), "x"))
		must(t, p.Finish(t.Context()))
		if got := all(t, p)["d"].MTime; got != d.MTime {
			t.Errorf("in run %d the time is %d", run, got)
		}
	}
}

// A new node is not always its maker's: in some directories it has their group.
func TestOwnersOfWhatIsNew(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{})
	if !p.rights.chown {
		t.Fatal("this process may not set owners: run the tests as root")
	}
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	const group = 12345
	must(t, os.Chown(filepath.Join(dir, "d"), -1, group))
	must(t, os.Chmod(filepath.Join(dir, "d"), os.ModeSetgid|0o755))
	me := uint32(os.Geteuid())
	for _, owner := range [][2]uint32{{me, uint32(os.Getegid())}, {me, group}, {me, group + 1}, {me + 1, group}} {
		for _, kind := range []entry.Kind{entry.File, entry.Symlink, entry.Fifo} {
			w := file(fmt.Sprintf("d/%d-%s", owner, kind), "content")
			w.Entry.Kind, w.Entry.UID, w.Entry.GID = kind, owner[0], owner[1]
			if kind == entry.Symlink {
				w.Entry.Target = "x"
			}
			e := put(t, p, w)
			var st unix.Stat_t
			must(t, unix.Lstat(filepath.Join(dir, w.Entry.Path), &st))
			if is, said := [2]uint32{st.Uid, st.Gid}, [2]uint32{e.UID, e.GID}; is != owner || said != owner {
				t.Errorf("%s is of %d and is said to be of %d", w.Entry.Path, is, said)
			}
		}
	}
}

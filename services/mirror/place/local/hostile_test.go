package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

// Whoever may write into the tree must not lead the mirror out of it.
func TestLinksLeadNowhere(t *testing.T) {
	for name, below := range map[string]string{
		"short paths": "", "paths that are too long for openat2": strings.Repeat(strings.Repeat("n", 250)+"/", 17),
	} {
		t.Run(name, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			p := open(t, dir, Options{})
			must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
			precious := put(t, p, file("d/precious", "mine"))
			dirs := []entry.Entry{all(t, p)["d"], {Path: "d/sub", Kind: entry.Dir}}
			must(t, os.Rename(filepath.Join(dir, "d"), filepath.Join(outside, "d")))
			must(t, os.Mkdir(filepath.Join(outside, "d", "sub"), 0o755))
			must(t, os.Symlink(filepath.Join(outside, "d"), filepath.Join(dir, "d")))
			before := tree(t, outside)

			_, err := p.Put(t.Context(), file("d/"+below+"new", "x"))
			wants(t, "Put", err, place.ErrChanged)
			w := file("d/precious", "theirs")
			w.Have = precious
			_, err = p.Put(t.Context(), w)
			wants(t, "Put", err, place.ErrChanged)
			_, err = p.MakeDir(t.Context(), entry.Entry{Path: "d/" + below + "new", Kind: entry.Dir, Mode: 0o755})
			wants(t, "MakeDir", err, place.ErrChanged)
			_, err = p.MakeDir(t.Context(), entry.Entry{Path: "d", Kind: entry.Dir, Mode: 0o700})
			wants(t, "MakeDir of the link", err, place.ErrChanged)
			_, err = p.SetAttrs(t.Context(), w.Entry, precious)
			wants(t, "SetAttrs", err, place.ErrChanged)
			for i, err := range p.Remove(t.Context(), append(dirs, precious)) {
				wants(t, fmt.Sprint("Remove ", i), err, place.ErrChanged)
			}
			_, err = p.Open(t.Context(), precious, 0, -1)
			wants(t, "Open", err, place.ErrChanged)
			if e, ok, err := p.Look(t.Context(), precious); ok || err != nil {
				t.Errorf("Look found %+v, %v", e, err)
			}
			must(t, p.Finish(t.Context()))
			if after := tree(t, outside); !maps.Equal(before, after) {
				t.Errorf("outside there was %v and is %v", before, after)
			}
		})
	}
}

// tree is what stat and reading tell of everything below a directory.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		got[path] = fmt.Sprint(fi.Mode(), fi.ModTime(), fi.Size())
		if fi.Mode().IsRegular() {
			got[path] += readFile(t, path)
		}
		return nil
	}))
	return got
}

// A directory that became a link after it was made must not pass its times on.
func TestFinishFollowsNoLink(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	p := open(t, dir, Options{})
	for _, path := range []string{"link", "other", "gone", "open/below"} {
		_, err := p.MakeDir(t.Context(), entry.Entry{Path: path, Kind: entry.Dir, Mode: 0o500, MTime: 1})
		must(t, err)
	}
	before := tree(t, outside)
	for _, path := range []string{"link", "other", "gone"} {
		must(t, os.Rename(filepath.Join(dir, path), filepath.Join(outside, path)))
		must(t, os.Remove(filepath.Join(outside, path)))
	}
	must(t, os.Symlink(outside, filepath.Join(dir, "link")))
	must(t, os.WriteFile(filepath.Join(dir, "other"), nil, 0o644))
	before[outside] = tree(t, outside)[outside]
	must(t, p.Finish(t.Context()))
	if after := tree(t, outside); !maps.Equal(before, after) {
		t.Errorf("outside there was %v and is %v", before, after)
	}
	if e := all(t, p)["open/below"]; e.Mode != 0o500 || e.MTime != 1 {
		t.Errorf("the directory that is still there became %+v", e)
	}
}

// Whichever comes first, what another program put there at the last moment stays.
func TestNobodysFileIsLost(t *testing.T) {
	for name, act := range map[string]func(*Place, entry.Entry) error{
		"Put": func(p *Place, have entry.Entry) error {
			w := file("f", "mine")
			w.Have = have
			_, err := p.Put(t.Context(), w)
			return err
		},
		"Remove": func(p *Place, have entry.Entry) error { return p.Remove(t.Context(), []entry.Entry{have})[0] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := open(t, dir, Options{})
			theirs := filepath.Join(dir, "theirs")
			done := 0
			for round := range 3000 {
				have, ok, err := p.Look(t.Context(), entry.Entry{Path: "f"})
				must(t, err)
				if !ok {
					have = put(t, p, file("f", "seen"))
				}
				content := fmt.Sprint("theirs ", round)
				must(t, os.WriteFile(theirs, []byte(content), 0o644))
				var both sync.WaitGroup
				both.Go(func() {
					if err := os.Rename(theirs, filepath.Join(dir, "f")); err != nil {
						t.Error(err)
					}
				})
				err = act(p, have)
				both.Wait()
				if err == nil {
					done++
				} else {
					wants(t, "act", err, place.ErrChanged)
				}
				if got := readFile(t, dir, "f"); got != content {
					t.Fatalf("in round %d the file was lost and %q is there", round, got)
				}
			}
			if left := litter(t, dir); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
			t.Logf("%d of 3000 were first", done)
		})
	}
}

func TestADirectoryIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{})
	put(t, p, file("d/f", "x"))
	f := put(t, p, file("f", "x"))
	d := all(t, p)["d"]
	w := file("d", "file")
	_, err := p.Put(t.Context(), w)
	wants(t, "Put over a directory", err, place.ErrChanged)
	w.Have = d
	_, err = p.Put(t.Context(), w)
	wants(t, "Put over a directory that was seen", err, place.ErrChanged)
	_, err = p.MakeDir(t.Context(), entry.Entry{Path: "f", Kind: entry.Dir, Mode: 0o755})
	wants(t, "MakeDir over a file", err, place.ErrChanged)
	_, err = p.Put(t.Context(), file("f/below", "x"))
	wants(t, "Put below a file", err, place.ErrChanged)
	w.Entry.Kind = entry.Dir
	_, err = p.Put(t.Context(), w)
	wants(t, "Put of a directory", err, errors.ErrUnsupported)
	must(t, os.Remove(filepath.Join(dir, "f")))
	must(t, os.Mkdir(filepath.Join(dir, "f"), 0o755))
	wants(t, "Remove of a file that is a directory", p.Remove(t.Context(), []entry.Entry{f})[0], place.ErrChanged)
	if got := slices.Sorted(maps.Keys(all(t, p))); !slices.Equal(got, []string{"d", "d/f", "f"}) {
		t.Errorf("it holds %q", got)
	}
}

func TestWhatCrashedRunsLeftIsSwept(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{})
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	left := []string{filepath.Join(dir, writer{}.newTemp()), filepath.Join(dir, "d", writer{}.newTemp())}
	theirs := tempPrefix + "notes"
	must(t, os.WriteFile(left[0], []byte("torn"), 0o600))
	must(t, os.Symlink("x", left[1]))
	must(t, os.WriteFile(filepath.Join(dir, theirs), []byte("theirs"), 0o600))
	holds := func(p *Place, want ...string) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(all(t, p))); !slices.Equal(got, want) {
			t.Errorf("it lists %q", got)
		}
	}
	holds(p, theirs, "d")
	ro := open(t, dir, Options{ReadOnly: true})
	ro.stale = 0
	holds(ro, theirs, "d")
	if got := litter(t, dir); len(got) != 2 {
		t.Fatalf("what is new, or in a place for reading, was swept: %q is left", got)
	}
	must(t, p.Finish(t.Context()))
	if got := litter(t, dir); len(got) != 2 {
		t.Fatalf("what is new was swept: %q is left", got)
	}
	holds(p, theirs, "d")
	p.stale = 0
	must(t, p.Finish(t.Context())) // It has grown old while the run went on.
	if got := litter(t, dir); len(got) != 0 {
		t.Fatalf("the end of a run left %q", got)
	}
	must(t, os.WriteFile(left[0], []byte("torn"), 0o600))
	must(t, os.Symlink("x", left[1]))
	holding, err := os.Open(left[0])
	must(t, err)
	must(t, unix.Flock(int(holding.Fd()), unix.LOCK_EX))
	holds(p, theirs, "d")
	if got := litter(t, dir); !slices.Equal(got, left[:1]) {
		t.Errorf("while someone writes %q is left", got)
	}
	must(t, holding.Close())
	holds(p, theirs, "d")
	if got := litter(t, dir); len(got) != 0 {
		t.Errorf("%q is left", got)
	}
	_, err = p.Put(t.Context(), file("x/"+writer{}.newTemp(), "x"))
	wants(t, "Put under such a name", err, entry.ErrName)
}

// What somebody else named like a temporary file is not written over, listed or removed, and
// told of.
func TestWhatOnlyLooksTemporaryStays(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{Owner: "me"})
	p.stale = 0
	theirs := "d/" + tempPrefix + "PRECIOUSPRECIOUSPRECIOUS22"
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, theirs), []byte("precious"), 0o600))
	var told []string
	var have entry.Entry
	for e, err := range p.Entries(t.Context(), place.ListOptions{LeftOut: func(path string) { told = append(told, path) }}) {
		if have = e; err != nil || e.Path != "d" {
			t.Errorf("it lists %q, %v", e.Path, err)
		}
	}
	if !slices.Equal(told, []string{theirs}) {
		t.Errorf("it tells of %q", told)
	}
	told = nil
	for range p.Entries(t.Context(), place.ListOptions{LeftOut: func(path string) { told = append(told, path) }, Filter: func(path string, _ entry.Kind) bool { return path != theirs }}) {
	}
	if len(told) > 0 {
		t.Errorf("it tells of what is filtered: %q", told)
	}
	wants(t, "Remove what it is in", p.Remove(t.Context(), []entry.Entry{have})[0], place.ErrNotEmpty)
	must(t, p.Finish(t.Context()))
	_, err := p.Put(t.Context(), file(theirs, "x"))
	wants(t, "Put over it", err, entry.ErrName)
	if raw, err := os.ReadFile(filepath.Join(dir, theirs)); err != nil || string(raw) != "precious" {
		t.Errorf("it holds %q, %v", raw, err)
	}
	// What an older version of the same owner left, in the same boot, is known all the same.
	torn := filepath.Join(dir, tempPrefix+p.writer.owner+strings.Repeat("A", tempRandom-ownerSize))
	must(t, os.WriteFile(torn, []byte("torn"), 0o600))
	all(t, p)
	if _, err := os.Lstat(torn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what it left itself is there: %v", err)
	}
}

// Whoever owns a place knows of what it left when it was killed a moment ago that nobody
// goes on with it. Of what others write nobody knows that.
func TestAnOwnerSweepsWhatItLeftAtOnce(t *testing.T) {
	dir := t.TempDir()
	killed, other := open(t, dir, Options{Owner: "me"}), open(t, dir, Options{Owner: "you"})
	p := open(t, dir, Options{Owner: "me"})
	torn := []string{filepath.Join(dir, killed.writer.newTemp()), filepath.Join(dir, killed.writer.newTemp())}
	kept := []string{filepath.Join(dir, other.writer.newTemp()), filepath.Join(dir, writer{}.newTemp()), filepath.Join(dir, p.writer.newTemp())}
	for _, path := range slices.Concat(torn[:1], kept) {
		must(t, os.WriteFile(path, []byte("torn"), 0o600))
	}
	must(t, os.Symlink("x", torn[1]))
	all(t, open(t, dir, Options{}))
	if got := litter(t, dir); len(got) != 5 {
		t.Fatalf("who owns nothing swept: %q is left", got)
	}
	all(t, p)
	slices.Sort(kept)
	if got := litter(t, dir); !slices.Equal(got, kept) {
		t.Errorf("%q is left, want %q", got, kept)
	}
	// Should it go on all the same, it is seen to be at work.
	must(t, os.WriteFile(torn[0], []byte("torn"), 0o600))
	holding, err := os.Open(torn[0])
	must(t, err)
	must(t, unix.Flock(int(holding.Fd()), unix.LOCK_EX))
	all(t, p)
	if got := litter(t, dir); len(got) != 4 {
		t.Errorf("while it writes %q is left", got)
	}
	must(t, holding.Close())
}

// A directory in which nothing is listed can be removed.
func TestLeftoversKeepNoDirectory(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{})
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	have := all(t, p)["d"]
	must(t, os.WriteFile(filepath.Join(dir, "d", writer{}.newTemp()), []byte("torn"), 0o600))
	wants(t, "someone is at work in it", p.Remove(t.Context(), []entry.Entry{have})[0], place.ErrNotEmpty)
	p.stale = 0
	must(t, os.WriteFile(filepath.Join(dir, "d", "theirs"), nil, 0o600))
	wants(t, "something else is in it", p.Remove(t.Context(), []entry.Entry{have})[0], place.ErrNotEmpty)
	must(t, os.Remove(filepath.Join(dir, "d", "theirs")))
	must(t, p.Remove(t.Context(), []entry.Entry{have})[0])
	if len(all(t, p)) > 0 {
		t.Error("it is still there")
	}
}

// What is being written is not swept by a walk in the same process.
func TestSweepingLeavesWritersAlone(t *testing.T) {
	p := open(t, t.TempDir(), Options{})
	p.stale = 0
	w := file("f", "content")
	w.Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(&walking{Reader: strings.NewReader("content"), walk: func() { all(t, p) }}), nil
	}
	put(t, p, w)
}

type walking struct {
	io.Reader
	walk func()
}

func (w *walking) Read(b []byte) (int, error) {
	w.walk()
	return w.Reader.Read(b)
}

// Who finds out at the end that a name was taken has copied in vain.
func TestWhatIsLargeIsNotCopiedInVain(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{})
	seen := put(t, p, file("f", "theirs"))
	gone := seen
	gone.Path = "gone"
	for name, have := range map[string]entry.Entry{"f": {}, "gone": gone} {
		w := file(name, "")
		w.Have, w.Entry.Size = have, preallocated
		w.Open = func(context.Context) (io.ReadCloser, error) {
			t.Errorf("the source of %q was opened", name)
			return nil, io.ErrUnexpectedEOF
		}
		_, err := p.Put(t.Context(), w)
		wants(t, "Put of "+name, err, place.ErrChanged)
	}
	if got := readFile(t, dir, "f"); got != "theirs" {
		t.Errorf("it holds %q", got)
	}
}

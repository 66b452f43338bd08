package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// Nobody leads what is put aside, brought back or pruned out of the root.
func TestATrashThatIsALinkIsNotFollowed(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	p := open(t, dir, Options{})
	bin := place.Bin{Of: "m", Run: "r", At: time.Unix(1_700_000_000, 0)}
	must(t, errors.Join(
		os.Mkdir(filepath.Join(outside, bin.String()), 0o755), os.WriteFile(filepath.Join(outside, bin.String(), "precious"), nil, 0o644),
		os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644), os.Symlink(outside, filepath.Join(dir, place.Trash)),
	))
	e, _, err := p.Look(t.Context(), entry.Entry{Path: "f"})
	must(t, err)
	all := func(what string) {
		t.Helper()
		if err := p.PutAside(t.Context(), bin, []entry.Entry{e})[0]; !errors.Is(err, place.ErrChanged) {
			t.Errorf("%s: PutAside: %v", what, err)
		}
		for k, err := range p.Kept(t.Context(), place.KeptOptions{}) {
			if err == nil {
				t.Errorf("%s: it keeps %q", what, k.Entry.Path)
			}
		}
		if _, err := p.Restore(t.Context(), place.Kept{Bin: bin, Entry: entry.Entry{Path: "precious"}}); err == nil {
			t.Errorf("%s: it was restored", what)
		}
		if n, err := p.Prune(t.Context(), "m", time.Now()); err == nil || n != 0 {
			t.Errorf("%s: pruned %d", what, n)
		}
		for _, path := range []string{filepath.Join(outside, bin.String(), "precious"), filepath.Join(dir, "f")} {
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	all("the trash")
	must(t, errors.Join(os.Remove(filepath.Join(dir, place.Trash)), os.Mkdir(filepath.Join(dir, place.Trash), 0o700),
		os.Symlink(filepath.Join(outside, bin.String()), filepath.Join(dir, place.Trash, bin.String()))))
	all("a bin")
	// Within a bin a link is removed, and not what it leads to.
	must(t, errors.Join(os.Remove(filepath.Join(dir, place.Trash, bin.String())), os.Mkdir(filepath.Join(dir, place.Trash, bin.String()), 0o700),
		os.Symlink(outside, filepath.Join(dir, place.Trash, bin.String(), "link"))))
	if n, err := p.Prune(t.Context(), "m", time.Now()); err != nil || n != 1 {
		t.Errorf("pruned %d, %v", n, err)
	}
	if _, err := os.Lstat(filepath.Join(outside, bin.String(), "precious")); err != nil {
		t.Error(err)
	}
}

// Directories keep in the trash who may look into them, and what is in one that lets nobody
// in is pruned all the same.
func TestDirectoriesInTheTrashAreLikeTheirs(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{})
	at := time.Unix(1_600_000_000, 5)
	must(t, errors.Join(os.MkdirAll(filepath.Join(dir, "a/b"), 0o755), os.WriteFile(filepath.Join(dir, "a/b/f"), []byte("x"), 0o600),
		os.Chmod(filepath.Join(dir, "a/b"), 0o500), os.Chmod(filepath.Join(dir, "a"), 0o710|os.ModeSetgid), os.Chtimes(filepath.Join(dir, "a/b"), at, at)))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "a/b"), 0o700) })
	look := func(path string, kind entry.Kind) entry.Entry {
		e, there, err := p.Look(t.Context(), entry.Entry{Path: path, Kind: kind})
		if must(t, err); !there {
			t.Fatalf("%q is not there", path)
		}
		return e
	}
	bin := place.Bin{Of: "m", Run: "r", At: time.Unix(1_700_000_000, 0)}
	for _, err := range p.PutAside(t.Context(), bin, []entry.Entry{look("a/b/f", entry.File), look("a/b", entry.Dir)}) {
		must(t, err)
	}
	must(t, p.Finish(t.Context()))
	in := filepath.Join(dir, place.Trash, bin.String())
	for path, want := range map[string]os.FileMode{"": 0o700, "a": 0o710 | os.ModeSetgid, "a/b": 0o500, "a/b/f": 0o600} {
		if st, err := os.Stat(filepath.Join(in, path)); err != nil || st.Mode()&^os.ModeDir != want {
			t.Errorf("%q has the mode %v, not %v, %v", path, st.Mode(), want, err)
		}
	}
	if st, err := os.Stat(filepath.Join(in, "a/b")); err != nil || !st.ModTime().Equal(at) {
		t.Errorf("it has the time %v, %v", st.ModTime(), err)
	}
	if n, err := p.Prune(t.Context(), "m", time.Now()); err != nil || n != 1 {
		t.Errorf("pruned %d, %v", n, err)
	}
	if _, err := os.Lstat(in); !os.IsNotExist(err) {
		t.Error("it is still there")
	}
}

// Paths may be longer than any one call takes.
func TestDeepPathsArePutAside(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{})
	path := strings.TrimSuffix(strings.Repeat(strings.Repeat("n", 200)+"/", 30), "/")
	e, err := p.Put(t.Context(), place.Write{Entry: entry.Entry{Path: path, Kind: entry.Symlink, Target: "x"}})
	must(t, err)
	bin := place.Bin{Of: "m", Run: "r", At: time.Unix(1_700_000_000, 0)}
	must(t, p.PutAside(t.Context(), bin, []entry.Entry{e})[0])
	n := 0
	for k, err := range p.Kept(t.Context(), place.KeptOptions{Under: []string{path}}) {
		must(t, err)
		_, err = p.Restore(t.Context(), k)
		must(t, err)
		n++
	}
	if _, there, err := p.Look(t.Context(), e); !there || err != nil || n != 1 {
		t.Errorf("back: %t, of %d, %v", there, n, err)
	}
	must(t, p.PutAside(t.Context(), bin, []entry.Entry{func() entry.Entry { e, _, _ := p.Look(t.Context(), e); return e }()})[0])
	if n, err := p.Prune(t.Context(), "m", time.Now()); err != nil || n != 1 {
		t.Errorf("pruned %d, %v", n, err)
	}
}

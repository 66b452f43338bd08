package local

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
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

// bind shows what lies elsewhere, on the very same file system, at a path as well.
func bind(t *testing.T, from, to string) {
	t.Helper()
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s: %v: may this user mount? run the tests as root", to, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) }) // a test may have done it
}

// What is mounted below the root, also from the same file system, is not moved, and that is
// said; nothing of it is lost, and nothing listed as kept.
func TestWhatIsMountedIsNotPutAside(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	p := open(t, dir, Options{})
	in := func(path string) string { return filepath.Join(dir, path) }
	must(t, errors.Join(os.WriteFile(filepath.Join(outside, "f"), []byte("theirs"), 0o644), os.MkdirAll(in("d/m"), 0o755),
		os.WriteFile(in("d/file"), []byte("hidden"), 0o644), os.WriteFile(in("d/mine"), []byte("mine"), 0o644)))
	bind(t, outside, in("d/m"))
	bind(t, filepath.Join(outside, "f"), in("d/file"))
	all := all(t, p)
	bin := place.Bin{Of: "m", Run: "r", At: time.Unix(1_700_000_000, 0)}
	errs := p.PutAside(t.Context(), bin, []entry.Entry{all["d/m/f"], all["d/m"], all["d/file"], all["d/mine"], all["d"]})
	for i, want := range []error{errAcross, unix.EBUSY, unix.EBUSY, nil, place.ErrNotEmpty} {
		if !errors.Is(errs[i], want) {
			t.Errorf("%d: %v, want %v", i, errs[i], want)
		}
	}
	for _, path := range []string{in("d/m/f"), in("d/file"), filepath.Join(outside, "f")} {
		if got, err := os.ReadFile(path); err != nil || string(got) != "theirs" {
			t.Errorf("%s holds %q, %v", path, got, err)
		}
	}
	var kept []string
	for k, err := range p.Kept(t.Context(), place.KeptOptions{}) {
		must(t, err)
		kept = append(kept, k.Entry.Path)
	}
	if !slices.Equal(kept, []string{"d/mine"}) {
		t.Errorf("it keeps %q", kept)
	}
}

// What would have to leave its file system to come back stays in the trash, and it is said
// before it is tried.
func TestWhatWouldComeBackIntoAMount(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	p := open(t, dir, Options{})
	in := filepath.Join(dir, "d")
	must(t, errors.Join(os.MkdirAll(in, 0o755), os.WriteFile(filepath.Join(in, "f"), []byte("mine"), 0o644)))
	bin := place.Bin{Of: "m", Run: "r", At: time.Unix(1_700_000_000, 0)}
	must(t, p.PutAside(t.Context(), bin, []entry.Entry{all(t, p)["d/f"]})[0])
	k := place.Kept{Bin: bin, Entry: entry.Entry{Path: "d/f"}}
	must(t, p.Free(t.Context(), k))
	bind(t, outside, in)
	wants(t, "Free", p.Free(t.Context(), k), errAcross)
	must(t, p.Free(t.Context(), place.Kept{Entry: k.Entry})) // which is written there
	_, err := p.Restore(t.Context(), k)
	wants(t, "Restore", err, errAcross)
	must(t, unix.Unmount(in, unix.MNT_DETACH))
	must(t, p.Free(t.Context(), k))
	_, err = p.Restore(t.Context(), k)
	must(t, err)
	if got, err := os.ReadFile(filepath.Join(in, "f")); err != nil || string(got) != "mine" {
		t.Errorf("it holds %q, %v", got, err)
	}
}

// What somebody has mounted in the trash, also from the same file system, is not pruned.
func TestWhatIsMountedInTheTrashIsNotPruned(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	p := open(t, dir, Options{})
	bin := place.Bin{Of: "m", Run: "r", At: time.Unix(1_700_000_000, 0)}
	in := filepath.Join(dir, place.Trash, bin.String(), "m")
	must(t, errors.Join(os.MkdirAll(in, 0o755), os.WriteFile(filepath.Join(outside, "f"), []byte("theirs"), 0o644)))
	bind(t, outside, in)
	n, err := p.Prune(t.Context(), "m", time.Now())
	if wants(t, "Prune", err, unix.EXDEV); n != 0 {
		t.Errorf("pruned %d", n)
	}
	if got, err := os.ReadFile(filepath.Join(outside, "f")); err != nil || string(got) != "theirs" {
		t.Errorf("it holds %q, %v", got, err)
	}
}

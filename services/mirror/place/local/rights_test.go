package local

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"golang.org/x/sys/unix"
)

// held lists what the place holds, and gives one entry.
func held(t *testing.T, p *Place, path string) entry.Entry {
	t.Helper()
	e, ok := all(t, p)[path]
	if !ok {
		t.Fatalf("there is no %q", path)
	}
	return e
}

// Of what others are at work on nothing is touched but what was asked for.
func TestRightsAreAllThatIsSet(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"d/f", "d/g", "d/runs"} {
		must(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	must(t, os.Symlink("f", filepath.Join(dir, "d/link")))
	must(t, os.Chmod(filepath.Join(dir, "d/runs"), os.ModeSetuid|0o755))
	must(t, unix.Setxattr(filepath.Join(dir, "d/f"), "user.theirs", []byte("v"), 0))
	p := open(t, dir, Options{ReadOnly: true, Rights: true, Xattrs: true})
	was := all(t, p)
	for path, want := range map[string]entry.Entry{
		"d/f":    {Mode: 0o4751, UID: 12, GID: 34},
		"d/g":    {Mode: 0o640, UID: was["d/g"].UID, GID: was["d/g"].GID},
		"d/runs": {Mode: 0o4755, UID: 12, GID: 34}, // which a change of owner takes from it
		"d":      {Mode: 0o2750, UID: 12, GID: 34},
		"d/link": {UID: 12, GID: 34},
	} {
		want.MTime, want.Xattrs = 5, nil // which nobody asked for
		got, err := p.SetRights(t.Context(), want, was[path])
		must(t, err)
		now := held(t, p, path)
		if path != "d/link" && now.Mode != want.Mode || now.UID != want.UID || now.GID != want.GID || now.MTime != was[path].MTime || len(now.Xattrs) != len(was[path].Xattrs) {
			t.Errorf("%s became %+v", path, now)
		}
		if got.Mode != now.Mode || got.UID != now.UID || got.GID != now.GID || got.Change != now.Change {
			t.Errorf("%s: it says %+v, and is %+v", path, got, now)
		}
	}
	_, err := p.Put(t.Context(), file("new", "x"))
	wants(t, "Put", err, place.ErrReadOnly)
	_, err = open(t, dir, Options{ReadOnly: true}).SetRights(t.Context(), was["d/g"], was["d/g"])
	wants(t, "SetRights of a place for reading", err, place.ErrReadOnly)
}

// What is not as it was seen is left alone, and a link leads nowhere.
func TestRightsOfWhatWasTouched(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	for _, path := range []string{filepath.Join(dir, "f"), filepath.Join(dir, "gone"), filepath.Join(dir, "d/f"), filepath.Join(other, "f")} {
		must(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	p := open(t, dir, Options{})
	was := all(t, p)
	must(t, os.Chtimes(filepath.Join(dir, "f"), time.Time{}, time.Unix(1, 0)))
	must(t, os.Remove(filepath.Join(dir, "gone")))
	must(t, os.RemoveAll(filepath.Join(dir, "d")))
	must(t, os.Symlink(other, filepath.Join(dir, "d")))
	for _, path := range []string{"f", "gone", "d", "d/f"} {
		want := was[path]
		want.Mode = 0o666
		_, err := p.SetRights(t.Context(), want, was[path])
		wants(t, "SetRights of "+path, err, place.ErrChanged)
	}
	for _, path := range []string{filepath.Join(dir, "f"), filepath.Join(other, "f")} {
		if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}

// What is mounted below is set as it is listed: not, where one file system is asked for.
func TestRightsStayOnOneFileSystem(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "m")
	mount(t, below)
	must(t, os.WriteFile(filepath.Join(below, "f"), nil, 0o600))
	e := held(t, open(t, dir, Options{}), "m/f")
	want := e
	want.Mode = 0o640
	_, err := open(t, dir, Options{OneFileSystem: true}).SetRights(t.Context(), want, e)
	wants(t, "SetRights", err, unix.EXDEV)
	must(t, unix.Mount("", below, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = Open(t.Context(), below, Options{ReadOnly: true, Rights: true})
	wants(t, "Open of what cannot be written to", err, unix.EROFS)
}

// A directory that shuts its owner out gets that mode when all in it is done.
func TestRightsThatShutADirectory(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "d/e"), 0o755))
	p := open(t, dir, Options{})
	was := all(t, p)
	for _, path := range []string{"d", "d/e"} {
		want := was[path]
		want.Mode = 0o2050
		got, err := p.SetRights(t.Context(), want, was[path])
		must(t, err)
		if now := held(t, p, path); got.Mode != 0o2050 || now.Mode != 0o2750 {
			t.Errorf("%s: it says %o, and is %o before the end", path, got.Mode, now.Mode)
		}
	}
	must(t, p.Finish(t.Context()))
	for _, path := range []string{"d", "d/e"} {
		if now := held(t, p, path); now.Mode != 0o2050 || now.MTime != was[path].MTime {
			t.Errorf("%s is %+v", path, now)
		}
	}
}

// Who does not own a file, or is not in its group, is told, and not only by another mode.
func TestRightsThatAreNotTaken(t *testing.T) {
	dir := t.TempDir()
	for name, owner := range map[string]int{"theirs": 12, "mine": 65534} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		must(t, os.Chown(filepath.Join(dir, name), owner, 12345))
	}
	p := open(t, dir, Options{})
	p.rights = rights{uid: 65534, groups: p.rights.groups} // as is so of the thread in a moment
	was := all(t, p)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, unix.Setfsuid(65534))
	defer func() { must(t, unix.Setfsuid(0)) }()
	for _, c := range []struct {
		path string
		mode uint32
		gid  uint32
		err  error
	}{
		{"mine", 0o640, 12345, nil}, {"theirs", 0o640, 12345, unix.EPERM}, {"mine", 0o2640, 12345, ErrPrivilege}, {"mine", 0o640, 54321, unix.EPERM},
	} {
		want := was[c.path]
		want.Mode, want.GID = c.mode, c.gid
		may := p.MaySetRights(want, was[c.path])
		got, err := p.SetRights(t.Context(), want, was[c.path])
		if c.err != nil {
			wants(t, "SetRights", err, c.err)
			wants(t, "MaySetRights", may, c.err)
			if may != nil && may.Error() != err.Error() {
				t.Errorf("before it says %v, and then %v", may, err)
			}
			if c.err == ErrPrivilege && !strings.Contains(err.Error(), "has the mode 0640, not 2640: this user is not in the group 12345") {
				t.Errorf("it says %v", err)
			}
			if now, _, err := p.Look(t.Context(), was[c.path]); err == nil {
				was[c.path] = now
			}
			continue
		}
		must(t, errors.Join(may, err))
		was[c.path] = got
	}
}

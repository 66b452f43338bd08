package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// What others may have made up is not made where it lends rights, by no way of writing, and
// the rest is.
func TestUnprivilegedPlacesLendNoRights(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, Options{Unprivileged: true, Xattrs: true})
	xattr := func(name string) map[string][]byte { return map[string][]byte{name: []byte("x")} }
	for _, e := range []entry.Entry{
		{Kind: entry.CharDevice, Device: 259, Mode: 0o666}, {Kind: entry.BlockDevice, Device: 7 << 8, Mode: 0o600},
		{Mode: 0o4755}, {Mode: 0o2755}, {Mode: 0o6000},
		{Mode: 0o644, Xattrs: xattr("security.capability")}, {Mode: 0o644, Xattrs: xattr("trusted.x")}, {Kind: entry.Fifo, Xattrs: xattr("trusted.x")},
		{Kind: entry.Dir, Mode: 0o755, Xattrs: xattr("trusted.overlay.opaque")},
	} {
		e.Path = "e"
		name := fmt.Sprintf("%v %o %v", e.Kind, e.Mode, e.Xattrs)
		err := p.Traits().Holds(e)
		wants(t, name, err, ErrLends)
		if text := err.Error(); !strings.Contains(text, "--privileged") || !strings.Contains(text, "privileged: true") {
			t.Errorf("%s: nothing says what to do: %v", name, err)
		}
		had := e
		had.Mode, had.Xattrs = 0o700, nil
		if e.Kind == entry.Dir {
			_, err := p.MakeDir(t.Context(), e)
			wants(t, "make "+name, err, ErrLends)
		} else {
			_, err = p.Put(t.Context(), place.Write{Entry: e, Open: source("")})
			wants(t, "put "+name, err, ErrLends)
		}
		if got := all(t, p); len(got) > 0 {
			t.Errorf("%s has left %v", name, got)
		}
		if e.Kind != entry.File {
			continue
		}
		have := put(t, p, place.Write{Entry: had, Open: source("")})
		_, err = p.SetAttrs(t.Context(), e, have)
		wants(t, "dress "+name, err, ErrLends)
		if st, err := os.Lstat(filepath.Join(dir, "e")); err != nil || st.Mode() != 0o700 {
			t.Errorf("%s: it has become %v, %v", name, st.Mode(), err)
		}
		must(t, os.Remove(filepath.Join(dir, "e")))
	}
	for _, e := range []entry.Entry{
		{Mode: 0o1777, UID: 12345}, {Kind: entry.Dir, Mode: 0o3775}, {Kind: entry.Fifo, Mode: 0o666}, {Kind: entry.Symlink, Target: "/etc/shadow", Mode: 0o6777},
		{Mode: 0o644, Xattrs: xattr("user.security.x")},
	} {
		e.Path = "e"
		must(t, p.Traits().Holds(e))
	}
	// Who keeps no extended attributes gets none.
	p = open(t, t.TempDir(), Options{Unprivileged: true})
	must(t, errors.Join(p.Traits().Holds(entry.Entry{Path: "e", Mode: 0o644, Xattrs: xattr("security.capability")})))
}

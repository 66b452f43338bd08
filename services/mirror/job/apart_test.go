package job

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
)

// bind mounts a directory at another place, too.
func bind(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.MkdirAll(to, 0o755))
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("a bind mount: %v: may this user mount? run the tests as root", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(to, unix.MNT_DETACH)) })
}

// TestPlacesWithinEachOtherByMounts: nothing is made where that is refused.
func TestPlacesWithinEachOtherByMounts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b") // which the table of mounts has with \040
	at := func(path string) string { return filepath.Join(dir, path) }
	for _, path := range []string{"g/sub/deep", "g/fs", "beside", "other", "gg"} {
		must(t, os.MkdirAll(at(path), 0o755))
	}
	must(t, os.WriteFile(at("g/f"), []byte("x"), 0o644))
	must(t, unix.Mount("tmpfs", at("g/fs"), "tmpfs", 0, "size=4m"))
	t.Cleanup(func() { must(t, unix.Unmount(at("g/fs"), unix.MNT_DETACH)) })
	must(t, os.MkdirAll(at("g/fs/in"), 0o755))
	for from, to := range map[string]string{"g": "whole", "g/sub": "part", "g/fs/in": "inner", "gg": "like"} {
		bind(t, at(from), at(to))
	}
	if !below(at("whole/x"), at("g")) || !below(at("g/sub/none/x"), at("whole/sub")) || below(at("g"), at("whole/sub")) || below(at("gg"), at("g")) {
		t.Error("the way up leads elsewhere")
	}
	for _, c := range []struct {
		from, to string
		nested   bool
		change   func(*drill.Mirror)
	}{
		{"g", "whole/x", true, nil},
		{"g", "whole", true, nil},
		{"g", "whole/sub", true, nil},
		{"whole/sub", "g", true, nil},
		{"g/sub/deep", "whole/sub", true, nil},
		{"g", "part/x", true, nil},
		{"part/deep", "g", true, nil},
		{"whole", "part/x/y", true, nil},
		{"g", "inner/x", true, nil},
		{"g", "inner/x", false, func(m *drill.Mirror) { m.OneFileSystem = true }},
		{"g", "inner/x", false, func(m *drill.Mirror) { m.Filter = []string{"- /fs/"} }},
		{"g", "like/x", false, nil},
		{"g", "other/x", false, nil},
		{"g/sub", "whole/beside", false, nil},
		{"part", "whole/subs", false, nil},
	} {
		e := newEnv(t)
		m := drill.Mirror{Name: "m", From: "dir:" + at(c.from), To: "dir:" + at(c.to)}
		if c.change != nil {
			c.change(&m)
		}
		j, err := e.OpenRun(t.Context(), m, false)
		if err == nil {
			must(t, j.Close(t.Context()))
		}
		if refused := errors.Is(err, ErrSpec) && strings.Contains(err.Error(), "lie within each other"); refused != c.nested || !refused && err != nil {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
		if _, err := os.Lstat(at("g/x")); err == nil {
			t.Errorf("%s to %s: a directory was made in the source", c.from, c.to)
		}
	}
}

// TestBucketsWithinEachOtherByTheirStores: two stores of one server are one.
func TestBucketsWithinEachOtherByTheirStores(t *testing.T) {
	e := withStore(t, newEnv(t))
	s := e.Stores[0]
	s.Name, s.Endpoint = "same", strings.ToUpper(s.Endpoint[:4])+s.Endpoint[4:]+"/"
	e.Stores = append(e.Stores, s)
	b := server.Bucket(t, false).Bucket
	_, err := e.OpenRun(t.Context(), drill.Mirror{Name: "m", From: "s3:lab/" + b, To: "s3:same/" + b + "/x"}, false)
	if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), "lie within each other") {
		t.Errorf("got %v", err)
	}
}

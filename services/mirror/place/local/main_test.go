package local

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/placetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string, o Options) *Place {
	t.Helper()
	p, err := Open(t.Context(), dir, o)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

// under is a place and a world around it that uses the directory as programs do.
func under(t *testing.T, o Options) (placetest.Under, *Place) {
	dir := t.TempDir()
	p := open(t, dir, o)
	return placetest.Under{
		Place: p,
		WriteBehind: func(path, content string) {
			path = filepath.Join(dir, path)
			err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path+"~", []byte(content), 0o644), os.Rename(path+"~", path))
			if err != nil {
				t.Error(err)
			}
		},
		RemoveBehind: func(path string) {
			if err := os.Remove(filepath.Join(dir, path)); err != nil {
				t.Error(err)
			}
		},
		ReadOnly: func() place.Place {
			o.ReadOnly = true
			return open(t, dir, o)
		},
		Litter: func() []string { return litter(t, dir) },
	}, p
}

// litter is what has a temporary name.
func litter(t testing.TB, dir string) []string {
	t.Helper()
	var left []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if isTemp(d.Name()) {
			left = append(left, path)
		}
		return err
	}))
	return left
}

func TestContract(t *testing.T) {
	for name, o := range map[string]Options{"plain": {}, "extended attributes": {Xattrs: true}, "without owners": {NoOwner: true}, "one file system": {OneFileSystem: true}} {
		t.Run(name, func(t *testing.T) {
			placetest.Run(t, func(t *testing.T) placetest.Under {
				u, _ := under(t, o)
				return u
			})
		})
	}
}

func TestContractWhereRenameHasNoFlags(t *testing.T) {
	placetest.Run(t, func(t *testing.T) placetest.Under {
		u, p := under(t, Options{})
		p.plain = true
		return u
	})
}

const asNobody = "FIREDRILL_LOCAL_AS_NOBODY"

// Whoever may do everything does not notice what a user may not.
func TestAsUnprivilegedUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return // All tests run as such a user then.
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "firedrill-local-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chown(dir, nobody, nobody))
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^(TestContract|TestNobody|TestThePlace|TestDirectories|TestSetuid|TestPaths)", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir, asNobody+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNobody") {
		t.Errorf("as the user %d: %v\n%s", nobody, err, out)
	}
}

func TestNobody(t *testing.T) {
	if os.Getenv(asNobody) != "" && os.Geteuid() == 0 {
		t.Error("the process is still root")
	}
}

// file is a write with the attributes that the process can keep.
func file(path, content string) place.Write {
	return place.Write{
		Entry: entry.Entry{Path: path, Size: int64(len(content)), Mode: 0o644, MTime: 1_000_000_000_000_000_001, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())},
		Open:  source(content),
	}
}

func source(content string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
}

func put(t testing.TB, p *Place, w place.Write) entry.Entry {
	t.Helper()
	e, err := p.Put(t.Context(), w)
	must(t, err)
	return e
}

func readFile(t testing.TB, parts ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(parts...))
	must(t, err)
	return string(raw)
}

func all(t testing.TB, p *Place) map[string]entry.Entry {
	t.Helper()
	got := map[string]entry.Entry{}
	for e, err := range p.Entries(t.Context(), place.ListOptions{}) {
		if err != nil {
			t.Fatalf("%q: %v", e.Path, err)
		}
		got[e.Path] = e
	}
	return got
}

func wants(t testing.TB, what string, err error, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

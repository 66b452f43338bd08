package job

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/place"
)

var errKilled = errors.New("killed")

// killing is a pool whose process is killed when it has done its first item.
type killing struct{ engine.Local }

func (k killing) Do(ctx context.Context, it engine.Item) ([]engine.Done, error) {
	_, err := k.Local.Do(ctx, it)
	return nil, errors.Join(err, errKilled)
}

// hidden are the files of a directory that no run copies.
func hidden(t *testing.T, dir string) (paths []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), ".firedrill-mirror.") {
			paths = append(paths, path)
		}
		return err
	}))
	return paths
}

// A user's file that is only named as if a killed run had left it stays, and each run says that
// it is left out.
func TestWhatOnlyLooksTemporaryIsReported(t *testing.T) {
	w := between(t, drill.MirrorTwoWay, true)
	name := ".firedrill-mirror.PRECIOUSPRECIOUSPRECIOUS22"
	w.write("d/"+name, "precious")
	w.write("d/file", "content")
	must(t, os.Chtimes(filepath.Join(w.from, "d", name), time.Unix(1, 0), time.Unix(1, 0)))
	for range 2 {
		res := w.sync(SyncOptions{})
		if len(res.Unholdable) != 1 || res.Unholdable[0].Key != "d/"+name || !errors.Is(res.Unholdable[0].Err, place.ErrTemporary) {
			t.Errorf("it reports %+v", res.Unholdable)
		}
		if got := hidden(t, w.from); len(got) != 1 {
			t.Errorf("%q is left", got)
		}
	}
	w.mirror.Filter = []string{"- " + name}
	w.whole()
}

// However soon the next run is made: nobody but it can be at work on what its own process
// was writing. A worker of another process may be.
func TestTheRunAfterOneThatWasKilledSweepsWhatThatLeft(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	w.write("file", "content")
	// killed gives the name of what was being written.
	killed := func(elsewhere bool) (name string) {
		t.Helper()
		j := w.open(true)
		worker := j.Worker()
		if elsewhere {
			other, done, err := w.env.OpenWorker(t.Context(), w.mirror)
			must(t, err)
			defer func() { must(t, done(t.Context())) }()
			worker = other
		}
		worker.Read = func(int) { name = hidden(t, w.to)[0] }
		_, err := j.Sync(t.Context(), SyncOptions{Pool: killing{engine.Local{Worker: worker}}})
		if !errors.Is(err, errKilled) || name == "" {
			t.Fatalf("it ended with %v, %q was being written", err, name)
		}
		must(t, errors.Join(j.Close(t.Context()), os.Remove(filepath.Join(w.to, "file"))))
		return name
	}
	theirs := killed(true)
	all := []string{theirs, killed(false), killed(false)}
	for _, path := range all {
		must(t, os.WriteFile(path, []byte("torn"), 0o600))
	}
	w.whole()
	if got := hidden(t, w.to); !slices.Equal(got, []string{theirs}) {
		t.Errorf("of %q %q is left", all, got)
	}
}

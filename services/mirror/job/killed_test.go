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

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
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

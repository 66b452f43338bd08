// Package foldtest reads the histories of real drills that tests are made on.
package foldtest

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// Recording is a real drill's history as a release of firedrill exported it. It is
// never made anew: what was once recorded has to stay readable.
type Recording struct {
	// Name says what became of the drill, Dir is the recording's folder.
	Name, Dir string
	Raws      [][]byte
	Ring      event.Keyring
}

// Recordings reads testdata/recorded of the package fold, whose relative path is of;
// tests/e2e says how one is made.
func Recordings(t *testing.T, of string) []Recording {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(of, "testdata", "recorded", "*"))
	if err != nil || len(dirs) < 3 {
		t.Fatalf("recorded histories: %q, %v", dirs, err)
	}
	var out []Recording
	for _, dir := range dirs {
		out = append(out, read(t, dir))
	}
	return out
}

func read(t *testing.T, dir string) Recording {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "events.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := Recording{Name: filepath.Base(dir), Dir: dir}
	if r.Raws, err = fold.Import(z); err != nil {
		t.Fatal(err)
	}
	if r.Ring, err = keys.ReadKeyring(filepath.Join(dir, keys.KeyringFile)); err != nil {
		t.Fatal(err)
	}
	return r
}

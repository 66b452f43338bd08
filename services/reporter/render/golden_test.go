package render_test

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
	"github.com/firedrill/firedrill/services/reporter/render"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func folded(t *testing.T, name string) fold.Report {
	t.Helper()
	_, ring := synthetic.Keys()
	r, err := fold.Fold(synthetic.Variants()[name].History(), ring)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestGolden pins every format of every kind of drill, byte for byte.
func TestGolden(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(synthetic.Variants())) {
		t.Run(name, func(t *testing.T) {
			files, err := render.All(folded(t, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range slices.Sorted(maps.Keys(files)) {
				compare(t, filepath.Join("testdata", name, f), files[f])
			}
		})
	}
}

func compare(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what was rendered (%d bytes, want %d); look at the change and run go test ./render -update", path, len(got), len(want))
	}
}

package mirror

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whoever looks whether something was lost must be able to see it.
func TestTheOracleSeesWhatIsDifferent(t *testing.T) {
	when := time.Unix(1_700_000_000, 5)
	tree := func() (dir string) {
		dir = t.TempDir()
		for _, name := range []string{"a", "d/b"} {
			path := filepath.Join(dir, name)
			err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(name), 0o640), os.Chtimes(path, when, when))
			if err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for what, spoil := range map[string]func(dir string) error{
		"content":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "a"), []byte("b"), 0o640) },
		"missing":   func(dir string) error { return os.Remove(filepath.Join(dir, "d/b")) },
		"extra":     func(dir string) error { return os.WriteFile(filepath.Join(dir, "d/c"), nil, 0o640) },
		"mode":      func(dir string) error { return os.Chmod(filepath.Join(dir, "a"), 0o600) },
		"directory": func(dir string) error { return os.Chmod(filepath.Join(dir, "d"), 0o700) },
		"time":      func(dir string) error { return os.Chtimes(filepath.Join(dir, "a"), when, when.Add(1)) },
	} {
		one, other := tree(), tree()
		if err := compareDir(t.Context(), one, other); err != nil {
			t.Errorf("%s: before: %v", what, err)
		}
		if err := spoil(other); err != nil {
			t.Fatal(err)
		}
		if err := compareDir(t.Context(), one, other); !errors.Is(err, ErrDifferent) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestWhatWasWrittenTwiceIsCounted(t *testing.T) {
	expected := map[string]int{"a": 1, "b": 2, "c": 1}
	written := map[string]int{"a": 1, "b": 3, "c": 1, "d/": 5}
	if got := surplus(written, expected); len(got) != 1 || got["b"] != 1 {
		t.Errorf("surplus %v", got)
	}
	if key, ok := missing(written, expected); ok {
		t.Errorf("%s is missing", key)
	}
	written["c"] = 0
	if key, ok := missing(written, expected); !ok || key != "c" {
		t.Errorf("missing: %q, %v", key, ok)
	}
}

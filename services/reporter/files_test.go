package reporter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteReplacesWhole(t *testing.T) {
	s := &service{Config: Config{OutDir: filepath.Join(t.TempDir(), "out")}}
	for _, text := range []string{"a first, longer text", "a second"} {
		if err := s.write("x-1", map[string][]byte{"report.md": []byte(text)}); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(s.OutDir, "x-1", "report.md")
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("written %q, %v; want %q", got, err, text)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
}

// TestWriteLeavesNothingBehind: a file that cannot be put in place does not stay
// beside it, and the error says what to do.
func TestWriteLeavesNothingBehind(t *testing.T) {
	s := &service{Config: Config{OutDir: t.TempDir()}}
	inTheWay := filepath.Join(s.OutDir, "x-1", "report.md")
	if err := os.MkdirAll(inTheWay, 0o755); err != nil {
		t.Fatal(err)
	}
	err := s.write("x-1", map[string][]byte{"report.md": []byte("text")})
	if err == nil || !strings.Contains(err.Error(), "check the output directory") {
		t.Fatalf("writing over a folder: %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(inTheWay))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := s.write("../x", map[string][]byte{"report.md": nil}); err == nil {
		t.Error("a drill's id led out of the directory")
	}
}

package contract

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
)

// The drills that are shipped ready to run must be drills.
func TestReadyDrillsParse(t *testing.T) {
	files, err := filepath.Glob("../../deploy/drills/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("ready drills: %v %v", files, err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := drill.Parse(raw); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

package contract

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
)

// The drills that are shipped ready to run must be drills.
func TestReadyDrillsParse(t *testing.T) {
	raw, err := os.ReadFile("../../deploy/drills/inventory.yaml")
	if err != nil {
		t.Fatal(err)
	}
	inv, err := drill.ParseInventory(raw)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../deploy/drills/*-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("ready drills: %v %v", files, err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		d, err := drill.Parse(raw)
		if err == nil {
			_, err = inv.Resolve(d)
		}
		if err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

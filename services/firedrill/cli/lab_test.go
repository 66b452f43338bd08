package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/lab"
)

// TestLabDrillsKeepEvidenceWhereTheLabDoes, not in the lab's directory, which goes
// with it.
func TestLabDrillsKeepEvidenceWhereTheLabDoes(t *testing.T) {
	dir := t.TempDir()
	rec := lab.Record{Dir: dir, Evidence: "/srv/evidence", Nodes: []lab.Node{{Name: "a", DataDir: dir + "/a/data"}}, Config: json.RawMessage("{}")}
	if _, err := writeLabDrill(rec, "d", time.Second, lab.PostgresOptions{}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "inventory.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	inv, err := drill.ParseInventory(raw)
	if err != nil || strings.Join(inv.Spec.KeepTo, " ") != "dir:/srv/evidence" {
		t.Errorf("keepTo: %v, %v", inv.Spec.KeepTo, err)
	}
	for _, file := range []string{"drill.yaml", "request.yaml"} {
		raw, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		d, err := drill.Parse(raw)
		if err != nil || d.Spec.Phases[0].Keep[0].To != "dir:/srv/evidence/{drill}/old-wal" {
			t.Errorf("%s: %+v, %v", file, d.Spec.Phases, err)
		}
	}
}

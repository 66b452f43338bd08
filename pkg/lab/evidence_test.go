package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEvidenceOutlivesTheLab: reports name what drills kept, also when the lab is
// gone.
func TestEvidenceOutlivesTheLab(t *testing.T) {
	dir, evidence := filepath.Join(t.TempDir(), "lab"), filepath.Join(t.TempDir(), "deep", "evidence")
	ctx := within(t, 2*time.Minute)
	o := UpOptions{Postgres: PostgresOptions{Rows: 10, Evidence: evidence}, RelayCommand: []string{os.Args[0], playRelay}}
	r, err := Up(ctx, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = Down(within(t, time.Minute), dir) }) // below, unless the test ends before
	if r.Evidence != evidence || !strings.Contains(string(r.Config), `"evidenceDir": "`+evidence+`"`) {
		t.Errorf("evidence is kept in %q, and the driver's configuration is %s", r.Evidence, r.Config)
	}
	a, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.run(ctx, "/", "touch", filepath.Join(evidence, "found")); err != nil {
		t.Fatalf("the servers' account cannot write there: %v", err)
	}
	if err := Down(ctx, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lab is not removed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(evidence, "found")); err != nil {
		t.Errorf("the evidence is gone: %v", err)
	}
	if _, err := Up(ctx, dir, o); err == nil || !strings.Contains(err.Error(), "evidence: directory "+evidence+" is not empty") {
		t.Errorf("a second lab with the same evidence: %v", err)
	}
}

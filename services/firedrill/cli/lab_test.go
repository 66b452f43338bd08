package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
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

// TestLabDownIsRefusedWhileADrillNeedsIt, whoever conducts it or left it.
func TestLabDownIsRefusedWhileADrillNeedsIt(t *testing.T) {
	running := t.TempDir()
	server, b := openStore(t, running, "")
	t.Cleanup(server.Shutdown)
	t.Cleanup(b.Close)
	for name, c := range map[string]struct{ stateDir, want string }{
		"of a firedrill that is up":  {serve(t), "drill " + somebodysDrill + " is not at its end"},
		"left before its end":        {leave(t), "drill " + somebodysDrill + " is not at its end"},
		"of one that starts or ends": {running, "just starting or ending"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			record := filepath.Join(dir, lab.RecordFile)
			if err := os.WriteFile(record, fmt.Appendf(nil, `{"dir":%q}`, dir), 0o600); err != nil {
				t.Fatal(err)
			}
			code, out, errs := invoke(t, "", "--state-dir", c.stateDir, "lab", "down", "--dir", dir)
			if _, err := os.Stat(record); err != nil || code != run.BadArguments || !strings.Contains(errs, c.want) || !strings.Contains(errs, "--force") {
				t.Errorf("exit %d, %s%s (%v)", code, out, errs, err)
			}
		})
	}
}

// TestOneRunAtATime: a second one says what it waits for, if that is a run, and else
// who has the store.
func TestOneRunAtATime(t *testing.T) {
	dir := t.TempDir()
	server, b := openStore(t, dir, "")
	t.Cleanup(server.Shutdown)
	t.Cleanup(b.Close)
	inventory := write(t, "inventory.yaml", orders(`["true"]`))
	file := write(t, "drill.yaml", strings.NewReplacer("Failover", "failover", "fault: kil}", "fault: kill}", "node: c", "node: b").Replace(promoteC))
	code, out, errs := invoke(t, "", "--state-dir", dir, "run", "--inventory", inventory, file)
	if code != run.Crash || strings.Contains(errs, "firedrill run") || !strings.Contains(errs, "process "+strconv.Itoa(os.Getpid())+" has it") {
		t.Errorf("nobody knows whose: exit %d, %s%s", code, out, errs)
	}
	record(t, dir, allinone.Record{PID: os.Getpid(), NATSURL: "nats://127.0.0.1:1", Seed: "SU"})
	a := &app{stateDir: dir, logLevel: "error"}
	if err := a.refuseLeft(t.Context(), leftRequest()); !errors.Is(err, errOneRun) {
		t.Errorf("a run's: %v", err)
	}
}

// TestFilesWithoutAnEnd are refused, not read until there is no memory left.
func TestFilesWithoutAnEnd(t *testing.T) {
	code, out, errs := invoke(t, "", "validate", "/dev/zero")
	if code != run.BadArguments || !strings.Contains(errs, "/dev/zero: it has more than") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
}

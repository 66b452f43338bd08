package postgres_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

// TestParamsStayWithinTheConfiguration: a drill chooses among the places that the
// operator's configuration names, and cannot lead commands or requests elsewhere.
func TestParamsStayWithinTheConfiguration(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	inj := r.open(t).Injector
	below := filepath.Join(r.Dir, "scratch", "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fault string
		field string
		value string
		good  bool
	}{
		{postgres.FaultFillDisk, "path", below, true},
		{postgres.FaultFillDisk, "path", filepath.Join(r.Dir, "scratch"), true},
		{postgres.FaultFillDisk, "path", filepath.Join(r.Dir, "scratch2"), false},
		{postgres.FaultFillDisk, "path", r.Dir, false},
		{postgres.FaultFillDisk, "path", "/etc/cron.d", false},
		{postgres.FaultCutReplication, "relay", r.Nodes[0].ReplicationControl, true},
		{postgres.FaultCutReplication, "relay", "http://169.254.169.254/latest", false},
		{postgres.FaultCutReplication, "relay", r.ServiceControl, false},
	} {
		params := map[string]any{c.field: c.value}
		if c.field == "path" {
			params["bytes"] = 4096
		}
		_, err := inj.Plan(t.Context(), target.Operation{Drill: "d-1", Step: "s", Name: c.fault, Params: raw(t, params), Limit: time.Minute})
		var field *target.FieldError
		switch {
		case c.good && err != nil:
			t.Errorf("%s %s: %v", c.fault, c.value, err)
		case !c.good && (!errors.As(err, &field) || field.Field != "params."+c.field || field.Value != c.value || !strings.Contains(field.Fix, "the operator")):
			t.Errorf("%s %s: %v, want a refusal that names the field", c.fault, c.value, err)
		}
	}
}

// TestUndoWithAFullDisk: where who acts cannot be recorded any more, things are
// put back all the same, unless a newer conductor is known.
func TestUndoWithAFullDisk(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{ScratchDisk: true})
	a := r.Nodes[0]
	if a.ScratchDir == "" {
		t.Fatal("the lab has no scratch disk: may this user mount? run the tests as root")
	}
	r.config = r.edit(t, func(c map[string]any) {
		c["failback"].(map[string]any)["evidenceDir"] = filepath.Join(a.ScratchDir, "firedrill")
	})
	inj := r.open(t).Injector
	op := target.Operation{Drill: "d-1", Step: "s", Name: postgres.FaultFreeze, Limit: time.Minute, Fence: 2}
	plan, err := inj.Plan(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inj.Do(t.Context(), op, plan); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(a.ScratchDir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	_ = f.Close()
	older := op
	older.Fence = 1
	if _, err := inj.Undo(t.Context(), older, plan.Undo); err == nil || !strings.Contains(err.Error(), "a newer conductor, epoch 2") {
		t.Fatalf("an older conductor: %v", err)
	}
	if _, err := inj.Undo(t.Context(), op, plan.Undo); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
}

package postgres_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
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

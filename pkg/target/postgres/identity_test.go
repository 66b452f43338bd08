package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

func identify(t *testing.T, config json.RawMessage) (string, error) {
	t.Helper()
	tg, err := postgres.Driver{}.Open(t.Context(), target.Config{Name: "db", Raw: config, Clock: clock.System()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tg.Close() }()
	return tg.Identity.Identify(t.Context())
}

// unreachable makes a node's machine unreachable.
func unreachable(node int) func(c map[string]any) {
	return func(c map[string]any) {
		nodeOf(c, node)["control"] = map[string]any{"kind": "exec", "argv": []string{"sh", "-c", "echo no route to it >&2; exit 9", "--"}}
	}
}

func TestIdentity(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	var sysid string
	if err := r.query(t.Context(), "a", "SELECT system_identifier::text FROM pg_control_system()", &sysid); err != nil {
		t.Fatal(err)
	}
	want := "postgres/" + sysid
	nowhere := func(c map[string]any) { unreachable(0)(c); unreachable(1)(c) }
	closedPorts := func(c map[string]any) { nodeOf(c, 0)["port"], nodeOf(c, 1)["port"] = 1, 2 }
	for name, edit := range map[string]func(c map[string]any){
		"as configured": func(map[string]any) {}, "only over SQL": nowhere, "only by files": closedPorts,
	} {
		if got, err := identify(t, r.edit(t, edit)); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	got, err := identify(t, r.edit(t, func(c map[string]any) { nowhere(c); closedPorts(c) }))
	if err == nil || got != "" || !strings.Contains(err.Error(), "no route to it") {
		t.Errorf("nobody can be asked: %q, %v", got, err)
	}

	other := startRig(t, lab.PostgresOptions{})
	var otherID string
	if err := other.query(t.Context(), "a", "SELECT system_identifier::text FROM pg_control_system()", &otherID); err != nil {
		t.Fatal(err)
	}
	if otherID == sysid {
		t.Fatal("two labs have one system identifier")
	}
	mixed := func(c map[string]any) {
		n := nodeOf(c, 1)
		n["port"], n["dataDir"] = other.Nodes[1].Port, other.Nodes[1].DataDir
	}
	got, err = identify(t, r.edit(t, mixed))
	if !errors.Is(err, postgres.ErrFence) || got != "" {
		t.Fatalf("nodes of two clusters: %q, %v", got, err)
	}
	for _, part := range []string{sysid, otherID, "node a", "node b"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not name %s: %v", part, err)
		}
	}
	down := func(ctx context.Context) error { return r.down("a")(ctx) }
	do(t, r.open(t), postgres.FaultKill, nil)
	eventually(t, "a to be down", down)
	if got, err := identify(t, r.config); err != nil || got != want {
		t.Errorf("with the primary killed: %q, %v", got, err)
	}
}

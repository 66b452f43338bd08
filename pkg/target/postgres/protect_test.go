package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

// exec runs statements on a node, each by itself, past the driver.
func (r *rig) exec(t *testing.T, node string, statements ...string) {
	t.Helper()
	c, err := r.Connect(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	for _, sql := range statements {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %s: %v", node, sql, err)
		}
	}
}

// keepsake puts a file into a node's data directory, which no other copy has; the
// returned function reports whether the directory is still the same one.
func (r *rig) keepsake(t *testing.T, node string) func() error {
	t.Helper()
	n, _ := r.Node(node)
	path := filepath.Join(n.DataDir, "keepsake")
	if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	return func() error {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("the data directory of %s was written anew: %w", node, err)
		}
		return nil
	}
}

// ctl runs pg_ctl on a node, past the driver.
func (r *rig) ctl(t *testing.T, node, order string) {
	t.Helper()
	n, _ := r.Node(node)
	h, err := control.New(control.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Run(t.Context(), control.Command{
		User: r.OSUser, Script: `"$1/pg_ctl" "$2" -s -w -D "$3" -l "$4" >&2`, Args: []string{r.BinDir, order, n.DataDir, n.LogFile},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// alone is nil when a is the primary that clients reach, whatever b is.
func (r *rig) alone(ctx context.Context) error {
	var recovering bool
	if err := r.query(ctx, "a", "SELECT pg_is_in_recovery()", &recovering); err != nil || recovering {
		return fmt.Errorf("a: in recovery %v, %w", recovering, errors.Join(err))
	}
	c, err := r.service(ctx)
	if err != nil {
		return err
	}
	return c.Close(ctx)
}

const leftAlone = "node %s left alone: was down before the drill"

// TestUndoLeavesAloneWhatWasDown: the standby was out of service before, for a
// reason that firedrill does not know.
func TestUndoLeavesAloneWhatWasDown(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	r.exec(t, "b", "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
	eventually(t, "b not to follow", func(ctx context.Context) error {
		var n int
		if err := r.query(ctx, "a", "SELECT count(*) FROM pg_stat_replication", &n); err != nil || n > 0 {
			return fmt.Errorf("%d standbys, %w", n, errors.Join(err))
		}
		return nil
	})
	same := r.keepsake(t, "b")
	for _, state := range []string{"does not follow", "is stopped"} {
		if state == "is stopped" {
			r.ctl(t, "b", "stop")
		}
		for _, name := range []string{postgres.FaultKill, postgres.FaultStop, postgres.ActionFailback} {
			t.Run(state+" "+name, func(t *testing.T) {
				_, op, record := do(t, r.open(t), name, nil)
				if d := undone(t, r.open(t), op, record); !strings.Contains(d, fmt.Sprintf(leftAlone, "b")) {
					t.Errorf("not reported: %s", d)
				}
				eventually(t, "a to serve", r.alone)
				if err := same(); err != nil {
					t.Error(err)
				}
				if err := r.down("b")(t.Context()); (err == nil) != (state == "is stopped") {
					t.Errorf("b %s no more: %v", state, err)
				}
			})
		}
	}
	t.Run("a fault that could not be undone is refused", func(t *testing.T) {
		op := target.Operation{Drill: "test-1", Step: "x", Name: postgres.FaultKill, Params: raw(t, map[string]any{"node": "b"})}
		r.ctl(t, "b", "start")
		_, err := r.open(t).Injector.Plan(t.Context(), op)
		if err == nil || !strings.Contains(err.Error(), "no healthy member") || !strings.Contains(err.Error(), "mend it first") {
			t.Errorf("plan of a kill of a standby that does not follow: %v", err)
		}
	})
	t.Run("an older record means all nodes", func(t *testing.T) {
		r.exec(t, "b", "ALTER SYSTEM RESET primary_conninfo", "SELECT pg_reload_conf()")
		eventually(t, "home", r.healthy)
		_, op, record := do(t, r.open(t), postgres.FaultKill, nil)
		r.ctl(t, "b", "stop")
		undo(t, r.open(t), op, without(t, record, "before"))
		eventually(t, "home", r.healthy)
	})
}

// TestEachOperationKnowsWhatWasHealthy: the second operation is planned when the
// first one has killed the primary, by another process.
func TestEachOperationKnowsWhatWasHealthy(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	before := func(record json.RawMessage) string { return fmt.Sprint(field(t, record, "before")) }
	_, _, kill := do(t, r.open(t), postgres.FaultKill, nil)
	_, op, promote := do(t, r.open(t), postgres.ActionPromote, nil)
	_, _, redirect := do(t, r.open(t), postgres.ActionRedirect, nil)
	for name, record := range map[string]json.RawMessage{"kill": kill, "promote": promote, "redirect": redirect} {
		if got := before(record); got != "[a b]" {
			t.Errorf("%s: healthy before: %s, want [a b]", name, got)
		}
	}
	// Another drill of that moment finds a dead, and has no duty for it.
	p, err := r.open(t).Injector.Plan(t.Context(), target.Operation{Drill: "test-1", Step: "kill", Name: postgres.FaultKill})
	if err != nil || before(p.Undo) != "[b]" {
		t.Fatalf("another drill: %s, %v", before(p.Undo), err)
	}
	same := r.keepsake(t, "a")
	kill2 := target.Operation{Drill: "test-1", Step: "kill", Name: postgres.FaultKill}
	if _, err := r.open(t).Injector.Do(t.Context(), kill2, p); err != nil {
		t.Fatal(err)
	}
	d := undone(t, r.open(t), kill2, p.Undo)
	inOrder(t, d, fmt.Sprintf(leftAlone, "a"), "started node b")
	eventually(t, "b to be the primary that it was", func(ctx context.Context) error {
		var recovering bool
		if err := r.query(ctx, "b", "SELECT pg_is_in_recovery()", &recovering); err != nil || recovering {
			return fmt.Errorf("in recovery %v, %w", recovering, errors.Join(err))
		}
		return nil
	})
	if got := r.Service().State().Upstream; !strings.HasSuffix(got, fmt.Sprint(":", r.Nodes[1].Port)) {
		t.Errorf("clients are led to %s", got)
	}
	if err := errors.Join(same(), r.down("a")(t.Context())); err != nil {
		t.Errorf("the node that was down before was touched: %v", err)
	}
	// The first drill's own undo is for both.
	undo(t, r.open(t), op, promote)
	eventually(t, "home", r.healthy)
}

package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/pkg/target/targettest"
)

// blocked are configurations that validate takes, each with one mistake that no undo
// could do without.
func (r *rig) blocked(t *testing.T) []targettest.Bad {
	var out []targettest.Bad
	bad := func(name, field string, f func(c map[string]any)) {
		out = append(out, targettest.Bad{Name: name, Field: field, Config: r.edit(t, f)})
	}
	wrong := filepath.Join(t.TempDir(), "wrong-password")
	if err := os.WriteFile(wrong, []byte("not-the-password"), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := map[string]any{"file": wrong}
	under := func(key string) func(map[string]any) {
		return func(c map[string]any) { c[key].(map[string]any)["password"] = secret }
	}
	bad("programs of another version", "nodes[0].binDir", func(c map[string]any) { nodeOf(c, 0)["binDir"] = "/usr/lib/postgresql/14/bin" })
	bad("programs that the standby lacks", "nodes[1].binDir", func(c map[string]any) { nodeOf(c, 1)["binDir"] = "/usr/bin" })
	bad("nobody listens", "service", func(c map[string]any) { c["service"].(map[string]any)["port"] = 9 })
	bad("a password of the probes that is wrong", "password", func(c map[string]any) { c["password"] = secret })
	bad("a password of the admin that is wrong", "admin", under("admin"))
	bad("a password of the replication that is wrong", "replication", under("replication"))
	bad("evidence that cannot be kept", "failback.evidenceDir", func(c map[string]any) {
		c["failback"].(map[string]any)["evidenceDir"] = "/dev/null/evidence"
	})
	bad("a log that cannot be written", "nodes[1].logFile", func(c map[string]any) { nodeOf(c, 1)["logFile"] = "/proc/log" })
	if r.PgBouncer == nil {
		bad("an endpoint that does not answer", "endpoint.control", func(c map[string]any) { c["endpoint"].(map[string]any)["control"] = "http://127.0.0.1:9" })
	} else {
		bad("an endpoint's file that is not there", "endpoint.pgbouncer.ini", func(c map[string]any) {
			c["endpoint"].(map[string]any)["pgbouncer"].(map[string]any)["ini"] = "/nowhere/pgbouncer.ini"
		})
	}
	return out
}

// TestSurveyKnowsWhatRewindingNeeds: without it a rebuild would be a base backup, which
// may take hours, and nobody has asked for that.
func TestSurveyKnowsWhatRewindingNeeds(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	for _, n := range r.Nodes {
		if err := r.query(t.Context(), n.Name, "SELECT 1", new(int)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := r.Connect(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	for _, sql := range []string{"ALTER SYSTEM SET full_page_writes = off", "SELECT pg_reload_conf()"} {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	tg := r.open(t)
	survey := func(name, params string) error {
		_, err := tg.Injector.Survey(t.Context(), []target.Operation{{Drill: "test-0", Step: "s", Name: name, Params: []byte(params)}})
		return err
	}
	for params, wants := range map[string]string{`{"method":"rewind"}`: `failback.method: "rewind": pg_rewind needs full_page_writes = on, and node a has it off`, `{"method":"basebackup"}`: ""} {
		err := survey(postgres.ActionFailback, params)
		if wants == "" && err != nil || wants != "" && (err == nil || !strings.Contains(err.Error(), wants)) {
			t.Errorf("failback %s: %v, want %q", params, err, wants)
		}
	}
	if err := survey(postgres.FaultRefuse, `{}`); err != nil {
		t.Errorf("a fault that no rebuild undoes: %v", err)
	}
}

// TestSurveySaysAllAtOnce: each field with its value and what to do.
func TestSurveySaysAllAtOnce(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	config := r.edit(t, func(c map[string]any) {
		nodeOf(c, 0)["binDir"], nodeOf(c, 1)["binDir"] = "/usr/lib/postgresql/14/bin", "/usr/lib/postgresql/14/bin"
		c["service"].(map[string]any)["port"] = 9
	})
	tg, err := postgres.Driver{}.Open(t.Context(), target.Config{Name: "db", Raw: config, Clock: clock.System()})
	if err != nil {
		t.Fatal(err)
	}
	defer tg.Close()
	_, err = tg.Injector.Survey(t.Context(), []target.Operation{{Name: postgres.FaultKill}})
	if err == nil {
		t.Fatal("nothing is in the way")
	}
	for _, want := range []string{
		`nodes[0].binDir: "/usr/lib/postgresql/14/bin": pg_controldata, pg_ctl, postgres, pg_basebackup, pg_rewind cannot be run there on node a as `,
		`nodes[1].binDir: `, `service: "127.0.0.1:9": it does not answer the probes' role app: `,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n"); n != 2 {
		t.Errorf("%d lines, want 3:\n%v", n+1, err)
	}
}

// TestNoUndoCanDoWithoutItsPrograms: it says that no other try can do better, and what
// is described rightly is undone.
func TestNoUndoCanDoWithoutItsPrograms(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	tg := r.open(t)
	_, op, record := do(t, tg, postgres.FaultKill, nil)
	wrong, err := postgres.Driver{}.Open(t.Context(), target.Config{Name: "db", Clock: clock.System(), Raw: r.edit(t, func(c map[string]any) {
		nodeOf(c, 0)["binDir"] = "/nowhere"
	})})
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if _, err := wrong.Injector.Undo(t.Context(), op, record); err == nil || !target.IsPermanent(err) || !strings.Contains(err.Error(), "/nowhere/pg_controldata") {
		t.Errorf("without the programs: %v", err)
	}
	undo(t, tg, op, record)
	eventually(t, "home", r.healthy)
}

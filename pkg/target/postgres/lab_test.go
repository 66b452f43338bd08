package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

// rig is a lab with what the tests ask of it.
type rig struct {
	*lab.Postgres
	config json.RawMessage
	// scratches are directories in which no fault may leave anything.
	scratches []string
	// synchronous is true when commits on a wait for b at home.
	synchronous bool
}

func startRig(t *testing.T, o lab.PostgresOptions) *rig {
	t.Helper()
	if o.Rows == 0 {
		o.Rows = 2000
	}
	p, err := lab.StartPostgres(t.Context(), o)
	if err != nil {
		t.Fatalf("start the lab: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range p.Nodes {
				log, _ := os.ReadFile(n.LogFile)
				t.Logf("log of node %s:\n%s", n.Name, log[max(0, len(log)-6000):])
			}
		}
		if err := p.Stop(); err != nil {
			t.Errorf("stop the lab: %v", err)
		}
	})
	r := &rig{Postgres: p, config: p.Config()}
	for _, n := range p.Nodes {
		if n.ScratchDir != "" {
			r.scratches = append(r.scratches, n.ScratchDir)
		}
	}
	return r
}

// edit changes the configuration.
func (r *rig) edit(t *testing.T, f func(c map[string]any)) json.RawMessage {
	t.Helper()
	var c map[string]any
	if err := json.Unmarshal(r.config, &c); err != nil {
		t.Fatal(err)
	}
	f(c)
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// nodeOf is a node in an edited configuration.
func nodeOf(c map[string]any, i int) map[string]any { return c["nodes"].([]any)[i].(map[string]any) }

// elsewhere makes the nodes be reached through a command that, as ssh does,
// joins its arguments and lets a shell split them.
func elsewhere(c map[string]any) {
	for i := range c["nodes"].([]any) {
		nodeOf(c, i)["control"] = map[string]any{"kind": "exec", "argv": []string{"sh", "-c", `exec sh -c "$*"`, "--"}}
	}
}

func (r *rig) open(t *testing.T) *target.Target {
	t.Helper()
	tg, err := postgres.Driver{}.Open(t.Context(), target.Config{Name: "db", Raw: r.config, Clock: clock.System()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tg.Close(); err != nil {
			t.Error(err)
		}
	})
	return tg
}

func (r *rig) secrets(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, f := range []string{r.Secrets.App, r.Secrets.Admin, r.Secrets.Replicator} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.TrimSpace(string(b)))
	}
	return out
}

// query asks a node for one row, past the driver.
func (r *rig) query(ctx context.Context, node, sql string, into ...any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := r.Connect(ctx, node)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	return c.QueryRow(ctx, sql).Scan(into...)
}

// service opens a client's connection through the endpoint of the configuration.
func (r *rig) service(ctx context.Context) (*pgx.Conn, error) {
	if r.PgBouncer == nil {
		return r.ConnectService(ctx)
	}
	password, err := os.ReadFile(r.Secrets.App)
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=app dbname=app sslmode=disable default_query_exec_mode=exec", r.PgBouncer.Host, r.PgBouncer.Port))
	if err != nil {
		return nil, err
	}
	c.Password = strings.TrimSpace(string(password))
	return pgx.ConnectConfig(ctx, c)
}

// healthy says what is missing for home: a the primary behind the endpoint, b
// streaming from it.
func (r *rig) healthy(ctx context.Context) error {
	var recovering bool
	var streaming int
	if err := r.query(ctx, "a", "SELECT pg_is_in_recovery(), (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming')", &recovering, &streaming); err != nil {
		return fmt.Errorf("a: %w", err)
	}
	if recovering || streaming != 1 {
		return fmt.Errorf("a: in recovery %v, %d standbys", recovering, streaming)
	}
	if err := r.query(ctx, "b", "SELECT pg_is_in_recovery()", &recovering); err != nil || !recovering {
		return fmt.Errorf("b: in recovery %v, %w", recovering, errors.Join(err))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := r.service(ctx)
	if err != nil {
		return fmt.Errorf("service: %w", err)
	}
	defer c.Close(ctx)
	var port int
	if err := c.QueryRow(ctx, "SELECT inet_server_port()").Scan(&port); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	if port != r.Nodes[0].Port {
		return fmt.Errorf("the service is served by port %d", port)
	}
	for _, n := range r.Nodes {
		hba, err := os.ReadFile(filepath.Join(n.DataDir, "pg_hba.conf"))
		if err != nil || strings.Contains(string(hba), "firedrill") {
			return fmt.Errorf("pg_hba.conf of %s: %v\n%s", n.Name, err, hba)
		}
	}
	for _, dir := range r.scratches {
		if left, err := filepath.Glob(dir + "/.firedrill*"); err != nil || len(left) > 0 {
			return fmt.Errorf("left in %s: %v %w", dir, left, errors.Join(err))
		}
	}
	return nil
}

// snapshot is what a plan must leave as it is.
func (r *rig) snapshot(ctx context.Context) (string, error) {
	var out []string
	for _, n := range r.Nodes {
		for _, f := range []string{"postmaster.pid", "pg_hba.conf", "postgresql.conf", "postgresql.auto.conf"} {
			b, err := os.ReadFile(filepath.Join(n.DataDir, f))
			if err != nil {
				return "", err
			}
			if f == "postmaster.pid" {
				b = []byte(strings.Join(strings.Split(string(b), "\n")[:3], " "))
			}
			out = append(out, n.Name+" "+f+": "+string(b))
		}
		entries, err := os.ReadDir(n.DataDir)
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			out = append(out, n.Name+" has "+e.Name())
		}
	}
	evidence, err := filepath.Glob(filepath.Join(r.Dir, "evidence", "*"))
	if err != nil {
		return "", err
	}
	up := r.Service().State()
	out = append(out, fmt.Sprint(evidence), up.Upstream, strconv.Itoa(up.Switches), string(up.Mode))
	return strings.Join(out, "\n"), nil
}

// stopped reports whether every process of a node is in state T.
func (r *rig) stopped(node string) error {
	n, _ := r.Node(node)
	pid, err := os.ReadFile(filepath.Join(n.DataDir, "postmaster.pid"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(pid), "\n")
	stat, err := os.ReadFile("/proc/" + first + "/stat")
	if err != nil {
		return err
	}
	if state := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[0]; state != "T" {
		return fmt.Errorf("the postmaster is in state %s", state)
	}
	return nil
}

// down returns nil when a node takes no connection.
func (r *rig) down(node string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		c, err := r.Connect(ctx, node)
		if err == nil {
			_ = c.Close(ctx)
			return errors.New("it answers")
		}
		return nil
	}
}

func (r *rig) timeline(t *testing.T, node string) int {
	t.Helper()
	var name string
	if err := r.query(t.Context(), node, "SELECT pg_walfile_name(pg_current_wal_lsn())", &name); err != nil {
		t.Fatal(err)
	}
	tl, err := strconv.ParseInt(name[:8], 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int(tl)
}

func eventually(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited for %s: %v", what, err)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func raw(t *testing.T, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// plan and do one operation; the returned record undoes it.
func do(t *testing.T, tg *target.Target, name string, params any) (target.Effect, target.Operation, json.RawMessage) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	op := target.Operation{Drill: "test-0", Step: name, Name: name, Limit: time.Minute}
	if params != nil {
		op.Params = raw(t, params)
	}
	p, err := tg.Injector.Plan(ctx, op)
	if err != nil {
		t.Fatalf("plan %s: %v", name, err)
	}
	e, err := tg.Injector.Do(ctx, op, p)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !e.Proof.Proven {
		t.Errorf("%s is not proven: %+v", name, e.Proof)
	}
	t.Logf("%s took %v: %v", name, time.Duration(e.Ended.Mono-e.Began.Mono), sorted(e.Details))
	return e, op, p.Undo
}

func undo(t *testing.T, tg *target.Target, op target.Operation, record json.RawMessage) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	began := time.Now()
	d, err := tg.Injector.Undo(ctx, op, record)
	t.Logf("undo of %s took %v: %s", op.Name, time.Since(began), sorted(d))
	if err != nil {
		t.Fatalf("undo of %s: %v", op.Name, err)
	}
}

func sorted(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, "\n  "+k+" "+v)
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

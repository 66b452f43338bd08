package lab

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// startLab starts a lab that is stopped, and looked after, when the test ends.
func startLab(t *testing.T, o PostgresOptions) *Postgres {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "lab")
	}
	p, err := StartPostgres(within(t, 2*time.Minute), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if left := serversUnder(p.Dir); len(left) > 0 {
			t.Errorf("processes %v are left", left)
		}
		if _, err := os.Stat(p.Dir); !o.Keep && err == nil {
			t.Errorf("directory %s is left", p.Dir)
		}
		if m, err := os.ReadFile("/proc/mounts"); err != nil || strings.Contains(string(m), p.Dir) {
			t.Errorf("a mount is left (%v)", err)
		}
	})
	return p
}

func count(t *testing.T, ctx context.Context, p *Postgres, node, query string) int {
	t.Helper()
	c, err := p.Connect(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	var n int
	if err := c.QueryRow(ctx, query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPostgresStreamsAndIsMeasurable(t *testing.T) {
	p := startLab(t, PostgresOptions{Synchronous: true, Rows: 2500, ScratchDisk: true, PgBouncer: true})
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx := within(t, time.Minute)

	app, err := p.ConnectService(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close(ctx)
	var rows, port int
	if err := app.QueryRow(ctx, `SELECT count(*), inet_server_port() FROM accounts`).Scan(&rows, &port); err != nil {
		t.Fatal(err)
	}
	if a, _ := p.Node("a"); rows != 2500 || port != a.Port {
		t.Fatalf("%d rows on port %d", rows, port)
	}
	if _, err := app.Exec(ctx, `CREATE TABLE t AS SELECT 1 AS n`); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{
		`SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND application_name = 'b'`: 1,
		`SELECT count(*) FROM pg_settings WHERE name = 'wal_log_hints' AND setting = 'on'`:              1,
		`SELECT count(*) FROM pg_settings WHERE name = 'data_checksums' AND setting = 'on'`:             1,
		`SELECT count(*) FROM pg_tablespace WHERE spcname = 'scratch'`:                                  scratches(p),
		// A probe's connection costs its process little, and no role is without a password.
		`SELECT count(*) FROM pg_authid WHERE rolcanlogin AND rolpassword LIKE 'SCRAM-SHA-256$64:%'`: 3,
		`SELECT count(*) FROM pg_authid WHERE rolcanlogin`:                                           3,
	} {
		if got := count(t, ctx, p, "a", name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	for _, user := range []string{p.User, p.Admin, "replicator"} {
		if c, err := p.connect(ctx, p.Nodes[0].Port, user, p.Secrets.PassFile, "postgres"); err == nil {
			_ = c.Close(ctx)
			t.Errorf("%s is let in with a wrong password", user)
		}
	}
	if got := count(t, ctx, p, "b", `SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'`); got != 1 {
		t.Errorf("b does not stream")
	}
}

func scratches(p *Postgres) int {
	if p.Nodes[0].ScratchDir == "" {
		return 0
	}
	return 1
}

func TestPostgresConfigHoldsNoSecret(t *testing.T) {
	p := startLab(t, PostgresOptions{Rows: 10})
	record, err := json.Marshal(p.Record)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{p.Secrets.App, p.Secrets.Admin, p.Secrets.Replicator} {
		st, err := os.Stat(f)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v, %v", f, st.Mode(), err)
		}
		secret, err := os.ReadFile(f)
		if err != nil || len(secret) < 32 {
			t.Fatalf("%s: %d bytes, %v", f, len(secret), err)
		}
		if strings.Contains(string(record), string(secret)) {
			t.Errorf("the record holds the secret of %s", f)
		}
	}
	var c struct {
		Nodes    []struct{ Name, Role, DataDir string }
		Endpoint struct{ Kind, Control string }
	}
	if err := json.Unmarshal(p.Config(), &c); err != nil || len(c.Nodes) != 2 || c.Nodes[1].Role != Standby || c.Endpoint.Kind != "relay" {
		t.Fatalf("%+v, %v", c, err)
	}
}

// TestStopWhateverState freezes the primary with all its processes, kills the
// standby's postmaster, and stops.
func TestStopWhateverState(t *testing.T) {
	p := startLab(t, PostgresOptions{Rows: 10})
	for _, pid := range serversUnder(p.Nodes[0].DataDir) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(p.Nodes[1].DataDir, "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := json.Unmarshal([]byte(strings.SplitN(string(raw), "\n", 2)[0]), &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ids := sharedMemory(p.Dir)
	if len(ids) != 2 {
		t.Fatalf("shared memory %v, want a segment for each node", ids)
	}
	for range 2 {
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if segmentExists(id) {
			t.Errorf("shared memory segment %d is left", id)
		}
	}
}

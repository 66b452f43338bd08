package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/pkg/target/targettest"
)

func (r *rig) harness(t *testing.T) targettest.Harness {
	h := targettest.Harness{
		Driver: postgres.Driver{}, Config: r.config, Secrets: r.secrets(t), Healthy: r.healthy, Snapshot: r.snapshot, Blocked: r.blocked(t),
		Aliases: []json.RawMessage{r.edit(t, renamed), r.edit(t, elsewhere)},
		Write:   postgres.ProbeWrite, Read: postgres.ProbeRead, Hang: postgres.FaultFreeze,
		ReadParams: func(of string) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"of":%q}`, of)) },
		Duplicate: func(ctx context.Context, ledger string, seq int64) error {
			c, err := r.service(ctx)
			if err != nil {
				return err
			}
			defer c.Close(ctx)
			_, err = c.Exec(ctx, "INSERT INTO firedrill_canary (ledger, seq) VALUES ($1, $2)", ledger, seq)
			return err
		},
		Checks: []targettest.Check{
			{Name: postgres.CheckTimeline, Params: json.RawMessage(`{"advance":0}`)},
			{Name: postgres.CheckTables},
			{Name: postgres.CheckTables, Params: json.RawMessage(`{"tables":["accounts","public.history"],"strict":"text"}`)},
			{Name: postgres.CheckTables, Params: json.RawMessage(`{"mode":"replicas"}`)},
			{Name: postgres.CheckAmcheck, Params: json.RawMessage(`{"heapallindexed":true}`)},
			{Name: postgres.CheckReplication},
			{Name: postgres.CheckHome},
		},
	}
	return h
}

// renamed lists the same nodes in another order, under other names, with the
// other one at home as the primary, and a client that connects elsewhere.
func renamed(c map[string]any) {
	nodes := c["nodes"].([]any)
	slices.Reverse(nodes)
	for i, name := range []string{"west", "east"} {
		n := nodeOf(c, i)
		n["name"], n["host"] = name, "localhost"
		n["role"] = map[any]any{"primary": "standby", "standby": "primary"}[n["role"]]
	}
	c["service"].(map[string]any)["host"] = "localhost"
}

func (r *rig) processFaults() []targettest.Fault {
	return []targettest.Fault{
		{Name: postgres.FaultKill, Outage: true, Broken: r.down("a")},
		{Name: postgres.FaultFreeze, Outage: true, DeadMan: true, Broken: func(context.Context) error { return r.stopped("a") }},
	}
}

func TestContractOnThisMachine(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{Synchronous: true, ScratchDisk: true})
	h := r.harness(t)
	h.Bad = badConfigs(t, r)
	a := r.Nodes[0]
	if a.ScratchDir == "" {
		t.Fatal("the lab has no scratch disk: may this user mount? run the tests as root")
	}
	bounded := filepath.Join(r.Dir, "scratch", "bounded")
	r.scratches = append(r.scratches, bounded)
	if err := os.Mkdir(bounded, 0o755); err != nil {
		t.Fatal(err)
	}
	h.Faults = append(r.processFaults(),
		targettest.Fault{Name: postgres.FaultStop, Outage: true, Broken: r.down("a")},
		targettest.Fault{Name: postgres.FaultRefuse, Outage: true, DeadMan: true, Broken: r.refused},
		targettest.Fault{Name: postgres.FaultFillDisk, DeadMan: true, Broken: r.diskFull, Params: raw(t, map[string]any{"path": a.ScratchDir})},
		targettest.Fault{Name: postgres.FaultFillDisk, DeadMan: true, Params: raw(t, map[string]any{"path": bounded, "bytes": 1 << 20}), Broken: func(context.Context) error {
			files, err := filepath.Glob(bounded + "/.firedrill*.fill")
			if err != nil || len(files) != 1 {
				return fmt.Errorf("files %v, %w", files, errors.Join(err))
			}
			if st, err := os.Stat(files[0]); err != nil || st.Size() != 1<<20 {
				return fmt.Errorf("%v, %w", st, errors.Join(err))
			}
			return nil
		}},
		targettest.Fault{Name: postgres.FaultCutReplication, Outage: true, DeadMan: true, Broken: r.cut},
		targettest.Fault{Name: postgres.FaultCutReplication, Outage: true, DeadMan: true, Params: raw(t, map[string]any{"relay": a.ReplicationControl}), Broken: func(context.Context) error {
			if !r.ReplicationLink("a").State().Paused {
				return errors.New("the relay is not paused")
			}
			return nil
		}},
	)
	targettest.Run(t, h)
}

func TestContractElsewhereBehindPgBouncer(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{PgBouncer: true})
	r.config = r.edit(t, elsewhere)
	h := r.harness(t)
	h.Faults = append(r.processFaults(), targettest.Fault{Name: postgres.FaultRefuse, Outage: true, DeadMan: true, Broken: r.refusedDirectly})
	targettest.Run(t, h)
}

// TestLaterClaimMakesTheTable: where the first claim never got to it, the first attempts
// that get through do, side by side, and each canary is stored once.
func TestLaterClaimMakesTheTable(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	tg := r.open(t)
	for _, kind := range []string{postgres.ProbeWrite, postgres.ProbeRead} {
		if err := r.asClient(t.Context(), "DROP TABLE IF EXISTS firedrill_canary"); err != nil {
			t.Fatal(err)
		}
		spec := target.ProbeSpec{Drill: "late-0", Probe: kind, Name: "w", Lane: target.LanePooled, Epoch: 2}
		if kind == postgres.ProbeRead {
			spec.Params = raw(t, map[string]any{"of": "w"})
		}
		p, err := tg.Observer.OpenProbe(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for seq := range int64(20) {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if o := p.Attempt(ctx, seq+1); o.Result != target.OK {
					t.Errorf("%s %d: %c %v", kind, seq+1, o.Result, o.Err)
				}
			})
		}
		wg.Wait()
		if kind == postgres.ProbeWrite {
			h, err := tg.Observer.ReadLedger(t.Context(), spec, 20)
			if err != nil || h.Present.Len() != 20 || len(h.Duplicates) != 0 {
				t.Errorf("the ledger holds %v, duplicates %v, %v", h.Present, h.Duplicates, err)
			}
		}
		// A table that goes later is the service's loss, not this lane's to hide.
		if err := r.asClient(t.Context(), "DROP TABLE firedrill_canary"); err != nil {
			t.Fatal(err)
		}
		if o := p.Attempt(t.Context(), 21); o.Result != target.Failed {
			t.Errorf("%s without its table: %c %v", kind, o.Result, o.Err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// asClient runs a statement as a client.
func (r *rig) asClient(ctx context.Context, sql string) error {
	c, err := r.service(ctx)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, sql)
	return err
}

// refused: clients are turned away, the admin is not.
func (r *rig) refused(ctx context.Context) error {
	c, err := r.ConnectService(ctx)
	if err == nil {
		_ = c.Close(ctx)
		return errors.New("a client was let in")
	}
	return r.refusedDirectly(ctx)
}

func (r *rig) refusedDirectly(ctx context.Context) error {
	var clients int
	if err := r.query(ctx, "a", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'", &clients); err != nil {
		return fmt.Errorf("the admin: %w", err)
	}
	if clients > 0 {
		return fmt.Errorf("%d sessions of clients are left", clients)
	}
	return nil
}

func (r *rig) diskFull(ctx context.Context) error {
	c, err := r.Connect(ctx, "a")
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, "CREATE TEMP TABLE filler TABLESPACE scratch AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
	if err == nil {
		return errors.New("a table could be written to the full disk")
	}
	return nil
}

func (r *rig) cut(ctx context.Context) error {
	var n int
	if err := r.query(ctx, "a", "SELECT count(*) FROM pg_stat_replication", &n); err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("%d standbys are connected", n)
	}
	return nil
}

// badConfigs break one field each.
func badConfigs(t *testing.T, r *rig) []targettest.Bad {
	var out []targettest.Bad
	bad := func(field string, f func(c map[string]any)) {
		out = append(out, targettest.Bad{Name: fmt.Sprintf("%s %d", field, len(out)), Field: field, Config: r.edit(t, f)})
	}
	set := func(keys ...any) func(map[string]any) {
		return func(c map[string]any) {
			at := c
			for _, k := range keys[:len(keys)-2] {
				at = at[k.(string)].(map[string]any)
			}
			at[keys[len(keys)-2].(string)] = keys[len(keys)-1]
		}
	}
	node := func(i int, key string, value any) func(map[string]any) {
		return func(c map[string]any) { nodeOf(c, i)[key] = value }
	}
	bad("database", set("database", ""))
	bad("database", set("database", 7))
	bad("user", set("user", ""))
	bad("password", set("password", "hunter2"))
	bad("password", set("password", map[string]any{"env": "A", "file": "/b"}))
	bad("password.vault", set("password", map[string]any{"vault": "A"}))
	bad("sslMode", set("sslMode", "prefer"))
	bad("admin.user", set("admin", "user", ""))
	bad("service.host", set("service", "host", "a,b"))
	bad("service.port", set("service", "port", 70000))
	bad("service.port", set("service", "port", -1))
	bad("service.port", set("service", "port", "5432"))
	bad("endpoint.kind", set("endpoint", "kind", "dns"))
	bad("endpoint.control", set("endpoint", "control", "127.0.0.1:80"))
	bad("endpoint.pgbouncer.ini", set("endpoint", map[string]any{"kind": "pgbouncer"}))
	bad("endpoint.exec.argv", set("endpoint", map[string]any{"kind": "exec"}))
	bad("endpoint.exec.place.argv", set("endpoint", map[string]any{"kind": "exec", "exec": map[string]any{"argv": []string{"true"}, "place": map[string]any{"kind": "exec"}}}))
	bad("nodes", set("nodes", []any{}))
	bad("nodes", set("nodes", map[string]any{}))
	bad("nodes[1].name", node(1, "name", "a"))
	bad("nodes[0].name", node(0, "name", "no spaces"))
	bad("nodes[1].port", node(1, "port", r.Nodes[0].Port))
	bad("nodes[1].role", node(1, "role", "replica"))
	bad("nodes", node(1, "role", "primary"))
	bad("nodes[0].dataDir", node(0, "dataDir", "data"))
	bad("nodes[0].dataDir", node(0, "dataDir", "/"))
	bad("nodes[0].binDir", node(0, "binDir", "/usr/../bin"))
	bad("nodes[0].osUser", node(0, "osUser", ""))
	bad("nodes[0].logFile", node(0, "logFile", ""))
	bad("nodes[0].control.kind", node(0, "control", map[string]any{"kind": "telnet"}))
	bad("nodes[0].colour", node(0, "colour", "red"))
	bad("failback.method", set("failback", "method", "restore"))
	bad("failback.evidenceDir", set("failback", "evidenceDir", r.Nodes[0].DataDir+"/evidence"))
	bad("failback.evidenceDir", set("failback", "evidenceDir", ""))
	bad("ledgerTable", set("ledgerTable", "x; DROP TABLE y"))
	return out
}

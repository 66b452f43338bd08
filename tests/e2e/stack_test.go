// Package e2e runs whole drills against real servers, through the all-in-one and
// through five separate processes.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/minio"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/pkg/target/zfs"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
	"github.com/firedrill/firedrill/services/injector"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

func registry() target.Registry {
	return target.NewRegistry(postgres.Driver{}, minio.Driver{}, zfs.Driver{})
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// startLab starts a real primary and standby and stops them with the test.
func startLab(t *testing.T, o lab.PostgresOptions) *lab.Postgres {
	t.Helper()
	o.Log, o.Dir = slog.New(slog.DiscardHandler), inMemory(t)
	p, err := lab.StartPostgres(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	keepLittleWAL(t, p)
	return p
}

// inMemory is a directory in memory for a lab, or "" where there is little: whether the
// machine's disk is busy is not what these tests are about. Servers are killed here,
// never the power cut, so nothing differs otherwise.
func inMemory(t *testing.T) string {
	t.Helper()
	const memory, enough = "/dev/shm", 2 << 30
	var room syscall.Statfs_t
	if err := syscall.Statfs(memory, &room); err != nil || room.Bavail*uint64(room.Bsize) < enough {
		return ""
	}
	dir, err := os.MkdirTemp(memory, "firedrill-lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // a lab that did not start leaves it
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// keepLittleWAL has both nodes drop old WAL, all of which pg_rewind would copy.
func keepLittleWAL(t *testing.T, p *lab.Postgres) {
	t.Helper()
	configure(t, p, "wal_keep_size = '64MB'", "min_wal_size = '32MB'")
}

// configure changes settings on both nodes.
func configure(t *testing.T, p *lab.Postgres, settings ...string) {
	t.Helper()
	for _, node := range []string{"a", "b"} {
		conn, err := p.Connect(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		for _, s := range settings {
			if _, err := conn.Exec(t.Context(), "ALTER SYSTEM SET "+s); err != nil {
				t.Fatalf("node %s: %s: %v", node, s, err)
			}
		}
		if _, err := conn.Exec(t.Context(), "SELECT pg_reload_conf()"); err != nil {
			t.Fatalf("node %s: %v", node, err)
		}
	}
}

// drillOf is a drill of one phase on one target, which the drill calls so, with short
// windows and the objective that nothing is lost; what the phase says itself stays.
func drillOf(t *testing.T, name, target string, maxParts int, phase map[string]any) []byte {
	t.Helper()
	all := map[string]any{
		"objective":   map[string]any{"rto": "1m", "rpo": map[string]any{"records": 0}},
		"steadyState": map[string]any{"window": "3500ms", "timeout": "1m"},
		"stable":      map[string]any{"window": "2s", "timeout": "1m"},
	}
	maps.Copy(all, phase)
	raw, err := json.Marshal(map[string]any{
		"apiVersion": drill.APIVersion, "kind": "Drill", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"guards":  map[string]any{"deadline": "5m", "maxParts": maxParts},
			"targets": []any{map[string]any{"name": target, "inventory": "lab"}},
			"phases":  []any{all},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// quickDrill is the standard failover drill with short windows.
func quickDrill(t *testing.T, name string, change func(phase map[string]any)) []byte {
	t.Helper()
	phase := map[string]any{
		"name": "failover", "title": "DB Failover",
		"probes": []any{map[string]any{"name": "writes", "target": "orders", "probe": "write"}},
		"faults": []any{map[string]any{"name": "kill", "target": "orders", "fault": "kill"}},
		"recovery": []any{
			map[string]any{"name": "promote", "target": "orders", "action": "promote", "params": map[string]any{"node": "b"}},
			map[string]any{"name": "redirect", "target": "orders", "action": "redirect", "params": map[string]any{"node": "b"}},
		},
		"checks": []any{map[string]any{"name": "canaries", "target": "orders", "check": "ledger"}},
		"restore": map[string]any{"checks": []any{
			map[string]any{"name": "home", "target": "orders", "check": "home"},
		}},
	}
	if change != nil {
		change(phase)
	}
	return drillOf(t, name, "orders", 1, phase)
}

// hurried makes the windows short, for drills whose measurement nothing judges.
func hurried(phase map[string]any) {
	phase["steadyState"] = map[string]any{"window": "500ms", "timeout": "1m"}
	phase["stable"] = map[string]any{"window": "500ms", "timeout": "1m"}
}

// keepOldWAL has a drill copy the log of the primary that it kills.
func keepOldWAL(p *lab.Postgres) func(phase map[string]any) {
	return func(phase map[string]any) {
		from, to := places(p)
		phase["keep"] = []any{map[string]any{"name": "old-wal", "from": from, "to": to + "/{drill}"}}
	}
}

// places are where a drill may copy evidence from and to.
func places(p *lab.Postgres) (from, to string) {
	a, _ := p.Node("a")
	return "dir:" + filepath.Join(a.DataDir, "pg_wal"), "dir:" + p.Evidence
}

// inventoryOf lets drills have one target as the entry "lab", and nothing else.
func inventoryOf(t *testing.T, driver string, config any) drill.Inventory {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return drill.Inventory{APIVersion: drill.APIVersion, Kind: drill.InventoryKind, Spec: drill.InventorySpec{Targets: []drill.Entry{{Name: "lab", Driver: driver, Config: raw}}}}
}

// inventory is that of a pair, of which drills may keep evidence.
func inventory(t *testing.T, p *lab.Postgres) drill.Inventory {
	t.Helper()
	i := inventoryOf(t, "postgres", p.Config())
	from, to := places(p)
	i.Spec.KeepFrom, i.Spec.KeepTo = []string{from}, []string{to}
	return i
}

// startAllInOne starts firedrill in this process, listening for NATS clients.
func startAllInOne(t *testing.T, p *lab.Postgres) (*allinone.Stack, allinone.Record, string) {
	t.Helper()
	return startWith(t, inventory(t, p))
}

// startWith is startAllInOne with an inventory.
func startWith(t *testing.T, i drill.Inventory) (*allinone.Stack, allinone.Record, string) {
	t.Helper()
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	s, err := allinone.Start(t.Context(), allinone.Options{StateDir: dir, Listen: "127.0.0.1:0", OutDir: out, Registry: registry(), Inventory: i, Log: testLog(t), LeaseTTL: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	rec, ok := allinone.ReadRecord(dir)
	if !ok {
		t.Fatal("no up.json")
	}
	return s, rec, out
}

// requesterTrace is the trace in which all drills are asked for.
const requesterTrace = "4bf92f3577b34da6a3ce929d0e0e4736"

// publish asks for a drill as any program would: with a plain NATS client.
func publish(t *testing.T, url, name string, raw []byte) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	m := nats.NewMsg("drill.req.me." + name)
	m.Header["traceparent"] = []string{"00-" + requesterTrace + "-00f067aa0ba902b7-01"}
	m.Data = raw
	if err := nc.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// await follows a drill until its report is published.
func await(ctx context.Context, t *testing.T, b *bus.Bus, id string, each func(bus.Stored)) []bus.Stored {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	var history []bus.Stored
	err := b.Follow(ctx, id, func(s bus.Stored) error {
		history = append(history, s)
		if each != nil {
			each(s)
		}
		if s.Event.Type == event.TypeReportPublished {
			return bus.Stop
		}
		return nil
	})
	if err != nil || len(history) == 0 || history[len(history)-1].Event.Type != event.TypeReportPublished {
		t.Fatalf("drill %s has no report: %v\n%s", id, err, outline(history))
	}
	return history
}

func outline(history []bus.Stored) string {
	var b strings.Builder
	for _, h := range history {
		if h.Event.Type != event.TypeProbeBatch {
			fmt.Fprintf(&b, "%4d %s %s\n", h.Event.ChainIndex, h.Event.Type, clip(h.Event.Data, 300))
		}
	}
	return b.String()
}

func clip(b []byte, n int) []byte {
	if len(b) > n {
		return append(bytes.Clone(b[:n]), "…"...)
	}
	return b
}

func raws(history []bus.Stored) [][]byte {
	out := make([][]byte, len(history))
	for i, h := range history {
		out[i] = h.Raw
	}
	return out
}

func foldReport(t *testing.T, history []bus.Stored, ring event.Keyring) fold.Report {
	t.Helper()
	r, err := fold.Fold(raws(history), ring)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wholeHistory fails the test unless the history verifies and is closed.
func wholeHistory(t *testing.T, history []bus.Stored, ring event.Keyring) {
	t.Helper()
	if v := event.VerifyHistory(raws(history), ring); !v.Complete || len(v.Findings) > 0 {
		t.Fatalf("the history does not verify: %+v", v)
	}
}

// atHome fails the test unless a is the primary, b streams and clients reach a.
func atHome(t *testing.T, p *lab.Postgres) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	conn, err := p.ConnectService(ctx)
	if err != nil {
		t.Fatalf("the service does not answer: %v", err)
	}
	defer conn.Close(ctx)
	var recovering bool
	var port int
	if err := conn.QueryRow(ctx, "select pg_is_in_recovery(), inet_server_port()").Scan(&recovering, &port); err != nil {
		t.Fatal(err)
	}
	home, _ := p.Node("a")
	admin, err := p.Connect(ctx, "a")
	if err != nil {
		t.Fatalf("node a: %v", err)
	}
	defer admin.Close(ctx)
	var streaming int
	if err := admin.QueryRow(ctx, "select count(*) from pg_stat_replication where state = 'streaming'").Scan(&streaming); err != nil {
		t.Fatal(err)
	}
	if recovering || port != home.Port || streaming != 1 {
		t.Fatalf("not put back: recovering=%v port=%d (want %d) streaming standbys=%d", recovering, port, home.Port, streaming)
	}
}

// fleet is firedrill as separate processes against a NATS server of its own.
type fleet struct {
	t       *testing.T
	url     string
	dir     string
	keyring event.Keyring
	bus     *bus.Bus
	// ctx ends when a program ended by itself.
	ctx    context.Context
	cancel context.CancelFunc

	// generation counts the injectors started; requests and drills are what was asked for.
	generation, requests int
	drills               []string // their ids

	mu    sync.Mutex
	procs map[string]*process
	logs  map[string]*os.File
}

// process is one running program; ended is closed when it is gone.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	wanted bool // it was killed by the test
}

// startFleet starts the NATS server and the five services' programs.
func startFleet(t *testing.T, p *lab.Postgres) *fleet {
	t.Helper()
	dir := t.TempDir()
	ring, err := keys.LoadOrCreate(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: filepath.Join(dir, "nats"), Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	f := &fleet{t: t, url: server.URL(), dir: dir, keyring: ring.Keyring, procs: map[string]*process{}, logs: map[string]*os.File{}}
	f.ctx, f.cancel = context.WithCancel(t.Context())
	t.Cleanup(f.cancel)
	f.bus, err = bus.Connect(t.Context(), bus.Options{URL: f.url, Keyring: f.keyring, Log: testLog(t), Identity: bus.Identity{Service: "cli", Instance: "test", Clock: clock.System()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.bus.Close)
	if err := f.bus.Bootstrap(t.Context(), bus.BootstrapOptions{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(inventory(t, p))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.inventory(), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range event.Services() {
		f.start(s, s+"-1")
	}
	t.Cleanup(f.stopAll)
	return f
}

// inventory is the file that the injectors read.
func (f *fleet) inventory() string { return filepath.Join(f.dir, "inventory.json") }

// start runs one service's program under an instance name.
func (f *fleet) start(service, instance string) {
	f.t.Helper()
	bin := os.Getenv("FIREDRILL_BIN")
	if bin == "" {
		f.t.Fatal("FIREDRILL_BIN is not set: run the tests with make, which builds the programs first")
	}
	args := []string{"--nats-url", f.url, "--instance", instance, "--signing-seed-file", filepath.Join(f.dir, "keys", service+".nk"),
		"--keyring", filepath.Join(f.dir, "keys", "keyring.json"), "--log-format", "text"}
	switch service {
	case event.Injector:
		args = append(args, "--lease-ttl", "3s", "--inventory", f.inventory())
	case event.Reporter:
		args = append(args, "--out-dir", filepath.Join(f.dir, "out"))
	}
	cmd := exec.Command(filepath.Join(bin, "firedrill-"+service), args...)
	log, err := os.CreateTemp(f.dir, instance+"-*.log")
	if err != nil {
		f.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.procs[service], f.logs[instance] = p, log
	go func() {
		defer close(p.ended)
		err := cmd.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if !p.wanted {
			f.t.Errorf("%s ended by itself: %v", instance, err)
			f.cancel()
		}
	}()
}

// kill ends a service's program with SIGKILL and waits until it is gone.
func (f *fleet) kill(service string) {
	f.mu.Lock()
	p := f.procs[service]
	delete(f.procs, service)
	if p != nil {
		p.wanted = true
	}
	f.mu.Unlock()
	if p != nil {
		_ = p.cmd.Process.Kill() // an error means that it is gone already
		<-p.ended
	}
}

func (f *fleet) stopAll() {
	for _, s := range event.Services() {
		f.kill(s)
	}
	for instance, log := range f.logs {
		if raw, err := os.ReadFile(log.Name()); f.t.Failed() && err == nil {
			f.t.Logf("--- %s\n%s", instance, clip(raw, 20000))
		}
		_ = log.Close()
	}
}

// accepted waits for the answer to a request and returns the drill's id.
func accepted(t *testing.T, b *bus.Bus, name string) string {
	t.Helper()
	r := answered(t, b, name)
	if r.State != "accepted" {
		t.Fatalf("request %s: %+v", name, r)
	}
	return r.Drill
}

// answered waits for the first answer to a request.
func answered(t *testing.T, b *bus.Bus, name string) (r injector.Result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := b.FollowResults(ctx, "me", name, func(data []byte) error {
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		return bus.Stop
	})
	if err != nil {
		t.Fatalf("request %s: %v", name, err)
	}
	return r
}

// instance alternates between a new name, which waits for the dead one's lease,
// and the same name, which takes over at once.
func (f *fleet) instance() string { return fmt.Sprintf("injector-%d", f.generation/2+1) }

// newest is the drill that the request with this sequence became, once it was
// accepted.
func newest(t *testing.T, b *bus.Bus, name string, sequence uint64) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last injector.Result
	err := b.FollowResults(ctx, "me", name, func(data []byte) error {
		if err := json.Unmarshal(data, &last); err != nil {
			return err
		}
		if last.Request.Sequence == sequence && last.State != "finished" {
			return bus.Stop
		}
		return nil
	})
	if err != nil || last.State != "accepted" {
		t.Fatalf("request %d: %+v, %v", sequence, last, err)
	}
	return last.Drill
}

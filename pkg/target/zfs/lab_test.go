package zfs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testDataset = "tank/firedrill"

// rig is a real ZFS with a mirror of two files, and what the tests ask of it.
type rig struct {
	*lab.ZFS
	dir    string
	config json.RawMessage
	// pool is as the tests see it, past what a drill may do.
	pool *pool
	// victim is a file that drills may damage, with its content.
	victim string
	holds  []byte
}

func startRig(t *testing.T) *rig {
	t.Helper()
	// In memory where that is possible: the disk is not what is tested.
	dir, err := os.MkdirTemp("/dev/shm", "firedrill-zfs-driver-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	z, err := lab.StartZFS(t.Context(), lab.ZFSOptions{Dir: filepath.Join(dir, "lab"), Pools: []lab.ZFSPool{
		{Name: "tank", Mirror: true, Size: 128 << 20}, {Name: "alone", Size: 64 << 20},
	}})
	if err != nil {
		t.Fatalf("start the lab: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(z.LogFile)
			t.Logf("log of zfs-fuse:\n%s", log[max(0, len(log)-4000):])
		}
		if err := z.Stop(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{ZFS: z, dir: dir, victim: "victims/file", holds: canary.DenseBody("victim", 1, 300_000)}
	r.do(t, "zfs", "create", "-o", "primarycache=metadata", testDataset)
	r.config = raw(t, map[string]any{
		"pool": "tank", "dataset": testDataset, "directory": r.root(), "stateDir": filepath.Join(dir, "state"),
		"breakableVdevs": r.Vdevs("tank"), "breakableFiles": []string{"victims"},
		"control": map[string]any{"kind": "exec", "argv": z.Argv()},
	})
	r.pool = r.open(t)
	r.put(t, r.victim, r.holds)
	return r
}

// root is where the tests see the dataset.
func (r *rig) root() string { return filepath.Join(r.Mountpoint("tank"), "firedrill") }

// put writes a file to the dataset, and returns when it lies where it stays.
func (r *rig) put(t *testing.T, name string, content []byte) {
	t.Helper()
	file := filepath.Join(r.root(), name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o600)); err != nil {
		t.Fatal(err)
	}
	r.sync(t)
}

// sync returns when all that was written lies where it stays: what is set is written
// with all that came before.
func (r *rig) sync(t *testing.T) {
	t.Helper()
	r.do(t, "zfs", "set", "firedrill:test=synced", "tank")
}

// do runs a command as the machine's administrator.
func (r *rig) do(t *testing.T, argv ...string) string {
	t.Helper()
	argv = append(r.Argv(), argv...)
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

// edit changes the configuration.
func (r *rig) edit(t *testing.T, f func(c map[string]any)) json.RawMessage {
	t.Helper()
	var c map[string]any
	if err := json.Unmarshal(r.config, &c); err != nil {
		t.Fatal(err)
	}
	f(c)
	return raw(t, c)
}

// elsewhere makes the machine be reached through a command that, as ssh does, joins
// its arguments and lets a shell split them.
func (r *rig) elsewhere(c map[string]any) {
	c["control"] = map[string]any{"kind": "exec", "argv": append(r.Argv(), "sh", "-c", `exec sh -c "$*"`, "--")}
}

// turned is the same pool with its disks in another order, and another dataset.
func turned(c map[string]any) {
	v := c["breakableVdevs"].([]any)
	c["breakableVdevs"] = []any{v[1], v[0]}
	c["dataset"] = "tank"
}

func (r *rig) openWith(t *testing.T, config json.RawMessage) *pool {
	t.Helper()
	cfg, err := parseConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPool(cfg, target.Config{Name: "pool", Raw: config, Clock: clock.System()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (r *rig) open(t *testing.T) *pool { return r.openWith(t, r.config) }

// healthy says what is missing for a pool as it should be.
func (r *rig) healthy(ctx context.Context) error {
	s, err := r.pool.look(ctx)
	if err != nil {
		return err
	}
	if p := s.problems(); len(p) > 0 || s.fault != "" || s.running() != "" {
		return fmt.Errorf("%v, fault %q, %q", p, s.fault, s.running())
	}
	for i := range r.Vdevs("tank") {
		if err := r.damaged(i)(ctx); err == nil {
			return fmt.Errorf("disk %d does not hold the victim as it was", i)
		}
	}
	if got, err := os.ReadFile(filepath.Join(r.root(), r.victim)); err != nil || !bytes.Equal(got, r.holds) {
		return fmt.Errorf("the victim has %d bytes, %w", len(got), errors.Join(err))
	}
	return os.WriteFile(filepath.Join(r.root(), "healthy"), []byte("x"), 0o600)
}

// damaged returns nil when a disk does not hold all of the victim as it was.
func (r *rig) damaged(disk int) func(context.Context) error {
	return func(context.Context) error {
		raw, err := os.ReadFile(r.Vdevs("tank")[disk])
		if err != nil {
			return err
		}
		for at := 0; at < len(r.holds); at += 128 << 10 {
			if !bytes.Contains(raw, r.holds[at:min(at+128<<10, len(r.holds))]) {
				return nil
			}
		}
		return errors.New("the disk holds the victim as it was")
	}
}

// snapshot is what a plan must leave as it is.
func (r *rig) snapshot(ctx context.Context) (string, error) {
	s, err := r.pool.look(ctx)
	if err != nil {
		return "", err
	}
	out := []string{s.text}
	state := filepath.Join(r.dir, "state")
	names, err := os.ReadDir(state)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for _, n := range names {
		out = append(out, n.Name())
	}
	return strings.Join(out, "\n"), nil
}

func (r *rig) isOffline(ctx context.Context) error {
	s, err := r.pool.look(ctx)
	if err == nil && s.state != degraded {
		err = fmt.Errorf("the pool is %s", s.state)
	}
	return err
}

func raw(t *testing.T, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const testDrill = "test-0"

// do plans and does one operation; the returned record undoes it.
func do(t *testing.T, p *pool, step, name string, params any) (target.Effect, target.Operation, json.RawMessage) {
	t.Helper()
	op := target.Operation{Drill: testDrill, Step: step, Name: name, Limit: time.Minute, Fence: 1}
	if params != nil {
		op.Params = raw(t, params)
	}
	plan, err := p.Plan(t.Context(), op)
	if err != nil {
		t.Fatalf("plan %s: %v", name, err)
	}
	t.Logf("%s will %s", name, strings.Join(plan.Does, ", then "))
	e, err := p.Do(t.Context(), op, plan)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !e.Proof.Proven {
		t.Errorf("%s is not proven: %+v", name, e.Proof)
	}
	t.Logf("%s took %v: %v %v", name, time.Duration(e.Ended.Mono-e.Began.Mono), e.Proof.Observations, e.Details)
	return e, op, plan.Undo
}

func mend(t *testing.T, p *pool, op target.Operation, record json.RawMessage) string {
	t.Helper()
	d, err := p.Undo(t.Context(), op, record)
	if err != nil {
		t.Fatalf("undo of %s: %v", op.Name, err)
	}
	t.Logf("undo of %s: %v", op.Name, d)
	return fmt.Sprint(d)
}

package postgres_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

func (r *rig) evidence() string { return filepath.Join(r.Dir, "evidence") }

// takeOver records a newer conductor of a drill, as its first act does.
func (r *rig) takeOver(t *testing.T, drill string, epoch int64) {
	t.Helper()
	h, err := control.New(control.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Fence(t.Context(), control.Fence{Dir: r.evidence(), Name: drill, Epoch: epoch}); err != nil {
		t.Fatal(err)
	}
}

func wantFenced(t *testing.T, what string, err error) {
	t.Helper()
	if _, ok := errors.AsType[*control.FencedError](err); !ok {
		t.Errorf("%s by an older conductor: %v", what, err)
		return
	}
	if want := "not done: a newer conductor, epoch 7, has acted on this host; this one is epoch 6"; !strings.Contains(err.Error(), want) {
		t.Errorf("%s: the error does not say so: %v", what, err)
	}
}

// everyOperation is every fault and action, with parameters.
func (r *rig) everyOperation(t *testing.T) []target.Operation {
	scratch := filepath.Join(r.Dir, "scratch")
	r.scratches = append(r.scratches, scratch)
	var ops []target.Operation
	for _, o := range []struct {
		name   string
		params any
	}{
		{postgres.FaultKill, nil}, {postgres.FaultFreeze, nil}, {postgres.FaultStop, nil}, {postgres.FaultRefuse, nil},
		{postgres.FaultFillDisk, map[string]any{"path": scratch, "bytes": 4096}}, {postgres.FaultCutReplication, nil},
		{postgres.FaultCutReplication, map[string]any{"relay": r.Nodes[0].ReplicationControl}},
		{postgres.ActionPromote, nil}, {postgres.ActionRedirect, nil}, {postgres.ActionRedirect, map[string]any{"node": "b"}}, {postgres.ActionFailback, nil},
	} {
		op := target.Operation{Step: fmt.Sprint("step-", len(ops)), Name: o.name, Limit: time.Minute}
		if o.params != nil {
			op.Params = raw(t, o.params)
		}
		ops = append(ops, op)
	}
	return ops
}

// TestOlderConductorIsRefused lets a conductor go on that was replaced while it
// was suspended, between its plan and its act, and in the midst of the act.
func TestOlderConductorIsRefused(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	ops := r.everyOperation(t)
	t.Run("after its successor has acted", func(t *testing.T) { r.afterSuccessor(t, ops) })
	t.Run("when its successor acts right after its claim", func(t *testing.T) {
		r.config = r.edit(t, r.overtaken(t))
		for i, op := range ops {
			if op.Name == postgres.ActionPromote || op.Name == postgres.ActionRedirect || op.Name == postgres.ActionFailback || strings.Contains(string(op.Params), "relay") {
				continue // a statement, an endpoint's switch: the window that is left
			}
			// Each has a drill of its own, which is overtaken once.
			op.Drill, op.Fence = fmt.Sprint("overtaken-", i), 6
			tg := r.open(t)
			p, err := tg.Injector.Plan(t.Context(), op)
			if err != nil {
				t.Fatalf("plan %s: %v", op.Name, err)
			}
			_, err = tg.Injector.Do(t.Context(), op, p)
			wantFenced(t, "do "+op.Name, err)
			if err := r.healthy(t.Context()); err != nil {
				t.Errorf("%s by an older conductor did something: %v", op.Name, err)
			}
			// What it had armed before it was refused goes with the undo.
			op.Fence = 7
			undo(t, tg, op, p.Undo)
		}
	})
}

func (r *rig) afterSuccessor(t *testing.T, ops []target.Operation) {
	tg, ctx := r.open(t), t.Context()
	plans := make([]target.Plan, len(ops))
	for i := range ops {
		var err error
		ops[i].Drill, ops[i].Fence = "fenced-0", 6
		if plans[i], err = tg.Injector.Plan(ctx, ops[i]); err != nil {
			t.Fatalf("plan %s: %v", ops[i].Name, err)
		}
	}
	newer := ops[0]
	newer.Fence = 7
	undo(t, r.open(t), newer, plans[0].Undo)
	before, err := r.snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i, op := range ops {
		_, err := tg.Injector.Do(ctx, op, plans[i])
		wantFenced(t, "do "+op.Name, err)
		_, err = tg.Injector.Undo(ctx, op, plans[i].Undo)
		wantFenced(t, "undo "+op.Name, err)
	}
	after, err := r.snapshot(ctx)
	if err != nil || before != after {
		t.Errorf("it touched the target: %v\nbefore %s\nafter  %s", err, before, after)
	}
	eventually(t, "home", r.healthy)
	// Its own successor, and another drill, are let through.
	undo(t, r.open(t), newer, plans[0].Undo)
	other := newer
	other.Drill, other.Fence = "fenced-1", 1
	undo(t, r.open(t), other, plans[0].Undo)
}

// overtaken reaches the nodes through a command that behaves as if, right after
// an epoch 6 was recorded on the machine, epoch 7 of the same drill acted there.
func (r *rig) overtaken(t *testing.T) func(c map[string]any) {
	t.Helper()
	script := filepath.Join(r.Dir, "overtaken")
	text := `#!/bin/sh
in=$(mktemp) && cat >"$in" && sh <"$in"
r=$?
if grep -q 'fence\.new' "$in"; then
  sed 's/^\(overtaken-[0-9]*\) 6 /\1 7 /' "` + r.evidence() + `/fence" >"$in" && cat "$in" >"` + r.evidence() + `/fence"
fi
rm -f "$in"
exit $r
`
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return func(c map[string]any) {
		for i := range c["nodes"].([]any) {
			nodeOf(c, i)["control"] = map[string]any{"kind": "exec", "argv": []string{script}}
		}
	}
}

// TestOlderConductorWaitingForANode waits for a node's lock while its successor
// takes over: it must look again when it gets the lock.
func TestOlderConductorWaitingForANode(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	tg := r.open(t)
	op := target.Operation{Drill: "waits-0", Step: "stop", Name: postgres.FaultStop, Fence: 6}
	p, err := tg.Injector.Plan(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	r.takeOver(t, op.Drill, 6) // makes the directory
	release, inode := r.lockNode(t, "a")
	done := make(chan error, 1)
	go func() {
		_, err := tg.Injector.Do(t.Context(), op, p)
		done <- err
	}()
	for waiting := false; !waiting; {
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
		waiting = waitedFor(t, inode)
	}
	r.takeOver(t, op.Drill, 7)
	release()
	wantFenced(t, "stop", <-done)
	if err := r.healthy(t.Context()); err != nil {
		t.Errorf("it did something: %v", err)
	}
}

// lockNode takes the lock under which scripts change a node; whoever waits for it
// shows by its inode.
func (r *rig) lockNode(t *testing.T, node string) (release func(), inode uint64) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(r.evidence(), node+".lock"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	st, err := lock.Stat()
	if err := errors.Join(err, os.Chmod(lock.Name(), 0o666), syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)); err != nil {
		t.Fatal(err)
	}
	return func() { _ = lock.Close() }, st.Sys().(*syscall.Stat_t).Ino
}

// waitedFor reports whether a process waits for the lock of a file.
func waitedFor(t *testing.T, inode uint64) bool {
	t.Helper()
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(locks)) {
		if strings.Contains(line, "-> FLOCK") && strings.Contains(line, fmt.Sprintf(":%d ", inode)) {
			return true
		}
	}
	return false
}

// field reads one field of an undo record.
func field(t *testing.T, record json.RawMessage, name string) any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(record, &m); err != nil {
		t.Fatal(err)
	}
	return m[name]
}

// without takes a field out of an undo record, and puts an unknown one in.
func without(t *testing.T, record json.RawMessage, name string) json.RawMessage {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(record, &m); err != nil {
		t.Fatal(err)
	}
	delete(m, name)
	m["a_newer_version_says"] = map[string]any{"so": 1}
	return raw(t, m)
}

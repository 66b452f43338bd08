package postgres_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/pkg/target/targettest"
)

// writer makes attempts every 5 ms, open-loop, until it is stopped.
type writer struct {
	probe  target.Probe
	spec   target.ProbeSpec
	cancel context.CancelFunc
	stalls *targettest.Stalls
	wg     sync.WaitGroup

	mu   sync.Mutex
	last int64
	seen map[int64]byte
	// begun is when each attempt was made, on the machine's monotonic clock; unheard are,
	// once the writer has stopped, those of an unknown fate that are not there.
	begun   map[int64]int64
	unheard event.Ranges
}

func startWriter(t *testing.T, tg *target.Target, name string) *writer {
	t.Helper()
	w := &writer{stalls: targettest.WatchStalls(t), seen: map[int64]byte{}, begun: map[int64]int64{}, spec: target.ProbeSpec{
		Drill: "test-0", Probe: postgres.ProbeWrite, Name: name, Lane: target.LanePooled, Epoch: 1, Deadline: 250 * time.Millisecond,
	}}
	var err error
	if w.probe, err = tg.Observer.OpenProbe(t.Context(), w.spec); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	w.wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for seq := int64(1); ; seq++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			w.wg.Go(func() { w.attempt(t, seq) })
		}
	})
	return w
}

func (w *writer) attempt(t *testing.T, seq int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 250*time.Millisecond)
	defer cancel()
	began, begun := time.Now(), clock.System().Now().Mono
	o := w.probe.Attempt(ctx, seq)
	if took, limit := time.Since(began), time.Second+6*w.stalls.Longest(); took > limit {
		t.Errorf("attempt %d took %v, more than %v", seq, took, limit)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = max(w.last, seq)
	w.seen[seq], w.begun[seq] = o.Result, begun
}

// okSince waits for n more successes.
func (w *writer) okSince(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		c := 0
		for _, r := range w.seen {
			if r == target.OK {
				c++
			}
		}
		return c
	}
	from := count()
	eventually(t, "acknowledged writes", func(context.Context) error {
		if got := count() - from; got < n {
			return fmt.Errorf("%d of %d", got, n)
		}
		return nil
	})
}

// stop ends the writer and returns what was lost and what is there by luck.
func (w *writer) stop(t *testing.T, tg *target.Target) (lost, phantom event.Ranges) {
	t.Helper()
	w.cancel()
	w.wg.Wait()
	if err := w.probe.Close(); err != nil {
		t.Error(err)
	}
	return w.compare(t, tg)
}

func (w *writer) compare(t *testing.T, tg *target.Target) (lost, phantom event.Ranges) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	held, err := tg.Observer.ReadLedger(t.Context(), w.spec, w.last)
	if err != nil {
		t.Fatal(err)
	}
	if len(held.Duplicates) > 0 {
		t.Errorf("duplicates: %v", held.Duplicates)
	}
	counts := map[byte]int{}
	for seq := int64(1); seq <= w.last; seq++ {
		r := w.seen[seq]
		counts[r]++
		switch {
		case r == target.OK && !held.Present.Has(seq):
			lost.Add(seq)
		case r == target.Failed && held.Present.Has(seq):
			phantom.Add(seq)
		case r == target.Unknown && !held.Present.Has(seq):
			w.unheard.Add(seq)
		}
	}
	t.Logf("%d attempts: %d ok, %d failed, %d unknown; %d held, %d lost", w.last, counts[target.OK], counts[target.Failed], counts[target.Unknown], held.Present.Len(), lost.Len())
	return lost, phantom
}

// onTheWay counts the unheard attempts that were begun before the end of a fault.
func (w *writer) onTheWay(fault target.Effect) (n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for seq, at := range w.begun {
		if w.unheard.Has(seq) && at <= fault.Ended.Mono {
			n++
		}
	}
	return n
}

// check makes a check and returns its properties by name.
func check(t *testing.T, tg *target.Target, name string, params any, baseline json.RawMessage) map[string]event.Property {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	spec := target.CheckSpec{Drill: "test-0", Check: name, Name: name}
	if params != nil {
		spec.Params = raw(t, params)
	}
	props, err := tg.Checker.Check(ctx, spec, baseline)
	if err != nil {
		t.Fatalf("check %s: %v", name, err)
	}
	out := map[string]event.Property{}
	for _, p := range props {
		t.Logf("check %s: %s: %s: %s (wanted %s)", name, p.Name, p.Result, p.Found, p.Wanted)
		out[p.Name] = p
	}
	return out
}

func baseline(t *testing.T, tg *target.Target, name string, params any) json.RawMessage {
	t.Helper()
	spec := target.CheckSpec{Drill: "test-0", Check: name, Name: name}
	if params != nil {
		spec.Params = raw(t, params)
	}
	b, err := tg.Checker.Baseline(t.Context(), spec)
	if err != nil {
		t.Fatalf("baseline of %s: %v", name, err)
	}
	return b
}

func wantResult(t *testing.T, props map[string]event.Property, name, result string) {
	t.Helper()
	if p, ok := props[name]; !ok || p.Result != result {
		t.Errorf("property %q: %+v, want %s", name, p, result)
	}
}

// failover drives the whole path once: break a with fault, promote b, lead
// clients there, check, fail back, and end at home.
func failover(t *testing.T, r *rig, fault, method string) (lost event.Ranges) {
	t.Helper()
	tg := r.open(t)
	eventually(t, "home", r.healthy)
	r.onlyTheWriterCommits(t)
	first := r.timeline(t, "a")
	timeline, tables := baseline(t, tg, postgres.CheckTimeline, nil), baseline(t, tg, postgres.CheckTables, nil)
	w := startWriter(t, tg, "write-"+fault+method)
	w.okSince(t, 50)

	broken, _, _ := do(t, tg, fault, nil)
	_, promoteOp, promoteUndo := do(t, tg, postgres.ActionPromote, nil)
	do(t, tg, postgres.ActionRedirect, nil)
	w.okSince(t, 50)

	props := check(t, tg, postgres.CheckTimeline, map[string]any{"advance": 1}, timeline)
	for _, p := range []string{"system identifier", "timeline", "log position", "fork"} {
		if r.synchronous || p != "fork" && p != "log position" {
			wantResult(t, props, p, event.ResultPass)
		}
	}
	commits := check(t, tg, postgres.CheckForensics, nil, nil)["commits that did not survive"]
	if fault == postgres.FaultKill && !r.synchronous {
		wantResult(t, check(t, tg, postgres.CheckForensics, map[string]any{"maxCommits": 0}, nil), commits.Name, event.ResultFail)
		r.withUsedAgain(t, func() {
			wantResult(t, check(t, tg, postgres.CheckForensics, map[string]any{"maxCommits": 0}, nil), commits.Name, event.ResultInconclusive)
		})
	}
	for name, p := range check(t, tg, postgres.CheckTables, nil, tables) {
		if p.Result != event.ResultPass {
			t.Errorf("%s: %+v", name, p)
		}
	}
	wantResult(t, check(t, tg, postgres.CheckHome, nil, nil), "endpoint", event.ResultFail)

	began := time.Now()
	do(t, tg, postgres.ActionFailback, map[string]any{"method": method})
	t.Logf("failback by %s took %v", method, time.Since(began))
	w.okSince(t, 50)
	lost, phantom := w.stop(t, tg)
	if phantom.Len() > 0 {
		t.Errorf("called failed and yet there: %v", phantom)
	}
	// Each lost write was a commit of its own, and any other one that did not survive was
	// on its way as the primary was stopped.
	n, most := deadCommits(t, commits), lost.Len()+w.onTheWay(broken)
	t.Logf("%d commits did not survive: %d to %d", n, lost.Len(), most)
	if n < lost.Len() || n > most {
		t.Errorf("the dead primary's log has %d commits that did not survive: %d writes were lost, %d with those that were on their way", n, lost.Len(), most)
	}
	eventually(t, "home", r.healthy)
	undo(t, r.open(t), promoteOp, promoteUndo)
	eventually(t, "home", r.healthy)

	r.atHome(t, tg, first+2, fault)
	return lost
}

// onlyTheWriterCommits stops what else has commits: autovacuum.
func (r *rig) onlyTheWriterCommits(t *testing.T) {
	t.Helper()
	for _, n := range r.Nodes {
		conn, err := r.Connect(t.Context(), n.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range []string{"ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()"} {
			if _, err := conn.Exec(t.Context(), q); err != nil {
				t.Errorf("node %s: %s: %v", n.Name, q, err)
			}
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// deadCommits is the number that the check of the dead primary's log found.
func deadCommits(t *testing.T, p event.Property) (n int64) {
	t.Helper()
	if _, err := fmt.Sscanf(p.Found, "%d commits in the log of node a after the fork", &n); err != nil || p.Result != event.ResultInfo {
		t.Fatalf("the dead primary's log was not read to its end: %+v, %v", p, err)
	}
	return n
}

// atHome checks what must hold after the way back.
func (r *rig) atHome(t *testing.T, tg *target.Target, timeline int, fault string) {
	t.Helper()
	if got := r.timeline(t, "a"); got != timeline {
		t.Errorf("timeline %d after failover and failback, want %d", got, timeline)
	}
	for name, p := range check(t, tg, postgres.CheckHome, nil, nil) {
		if p.Result != event.ResultPass {
			t.Errorf("home: %s: %+v", name, p)
		}
	}
	for name, p := range check(t, tg, postgres.CheckReplication, nil, nil) {
		if p.Result != event.ResultPass {
			t.Errorf("replication: %s: %+v", name, p)
		}
	}
	for name, p := range check(t, tg, postgres.CheckTables, map[string]any{"mode": "replicas"}, nil) {
		if p.Result != event.ResultPass {
			t.Errorf("replicas: %s: %+v", name, p)
		}
	}
	if fault != postgres.FaultStop {
		// Stopped in order, a held nothing that b had not: no log is thrown away.
		r.evidenceKept(t)
	}
	r.nothingLeft(t)
}

// evidenceKept checks the sums of every kept log, past the driver.
func (r *rig) evidenceKept(t *testing.T) {
	t.Helper()
	kept, err := filepath.Glob(filepath.Join(r.Dir, "evidence", "wal-a-*"))
	if err != nil || len(kept) == 0 {
		t.Fatalf("no log of a was kept: %v", err)
	}
	for _, dir := range kept {
		cmd := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", dir, err, out)
		}
	}
}

// withUsedAgain does something while the log files of the dead primary have names
// further on, as a server gives them that uses them again.
func (r *rig) withUsedAgain(t *testing.T, do func()) {
	t.Helper()
	wal := filepath.Join(r.Nodes[0].DataDir, "pg_wal")
	files, err := filepath.Glob(filepath.Join(wal, "000000010000000000??????"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no log (%v)", wal, err)
	}
	later := func(name string) string { return name[:len(name)-6] + "00FF" + name[len(name)-2:] }
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		move(f, later(f))
	}
	do()
	for _, f := range files {
		move(later(f), f)
	}
}

// nothingLeft looks for what a failback must clear away.
func (r *rig) nothingLeft(t *testing.T) {
	t.Helper()
	for _, n := range r.Nodes {
		auto, err := os.ReadFile(filepath.Join(n.DataDir, "postgresql.auto.conf"))
		if err != nil || strings.Contains(string(auto), "firedrill") {
			t.Errorf("postgresql.auto.conf of %s: %v\n%s", n.Name, err, auto)
		}
		beside, err := filepath.Glob(n.DataDir + ".*")
		if err != nil || len(beside) > 0 {
			t.Errorf("left beside the data of %s: %v %v", n.Name, beside, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(r.Dir, "evidence", "rebuild-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestFailoverSynchronousLosesNothing(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{Synchronous: true, ScratchDisk: true})
	r.synchronous = true
	for _, c := range []struct{ fault, method string }{
		{postgres.FaultKill, postgres.MethodBaseBackup}, {postgres.FaultFreeze, postgres.MethodRewind},
	} {
		t.Run(c.fault+" "+c.method, func(t *testing.T) {
			if lost := failover(t, r, c.fault, c.method); lost.Len() > 0 {
				t.Errorf("lost %v", lost)
			}
		})
	}
}

func TestFailoverAsynchronousFindsTheLoss(t *testing.T) {
	// What is on the way when all of the primary stands still is lost only if the link
	// takes longer than the killing, which on a busy machine lasts for 100 ms.
	r := startRig(t, lab.PostgresOptions{LinkDelay: 200 * time.Millisecond})
	link := r.ReplicationLink("a").State().Link
	link.DropInFlight = true
	if _, err := r.ReplicationLink("a").SetLink(link); err != nil {
		t.Fatal(err)
	}
	r.config = r.edit(t, elsewhere)
	if lost := failover(t, r, postgres.FaultKill, postgres.MethodRewind); lost.Len() == 0 {
		t.Error("a link of 200 ms lost nothing: the ledger does not see losses")
	}
}

func TestFailoverBehindPgBouncer(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{Synchronous: true, PgBouncer: true})
	r.synchronous = true
	if lost := failover(t, r, postgres.FaultKill, postgres.MethodRewind); lost.Len() > 0 {
		t.Errorf("lost %v", lost)
	}
}

func TestFailoverByHook(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{Synchronous: true})
	r.synchronous = true
	script := filepath.Join(r.Dir, "move")
	text := fmt.Sprintf("#!/bin/sh\nexec curl -sS -f -X PUT -d \"{\\\"address\\\":\\\"$FIREDRILL_HOST:$FIREDRILL_PORT\\\"}\" %s/upstream\n", r.ServiceControl)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	r.config = r.edit(t, func(c map[string]any) {
		c["endpoint"] = map[string]any{"kind": "exec", "exec": map[string]any{"argv": []string{script}}}
	})
	if lost := failover(t, r, postgres.FaultStop, postgres.MethodRewind); lost.Len() > 0 {
		t.Errorf("lost %v", lost)
	}
}

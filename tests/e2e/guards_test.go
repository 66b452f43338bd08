package e2e

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// TestGuardsStopADrillBeforeItTouches: each guard on its own ends a real drill
// while every server process is still the one that it was, and is named by the
// answer and by the report.
func TestGuardsStopADrillBeforeItTouches(t *testing.T) {
	p := startLab(t, lab.PostgresOptions{Synchronous: true})
	stack, rec, _ := startAllInOne(t, p)
	a, _ := p.Node("a")
	const refused = "The drill was refused before it broke anything"
	stopped := func(name, cause, ends string, raw []byte, says ...string) fold.Report {
		t.Helper()
		before := serverProcesses(t, p)
		publish(t, rec.NATSURL, name, raw)
		history := await(t.Context(), t, stack.Bus, accepted(t, stack.Bus, name), nil)
		if after := serverProcesses(t, p); !maps.Equal(before, after) {
			t.Errorf("%s: the servers' processes were %v and are %v", name, before, after)
		}
		wholeHistory(t, history, stack.Keyring)
		untouched(t, name, history)
		r := foldReport(t, history, stack.Keyring)
		if r.Complete || r.Verdict != verdict.Invalid || len(r.Conduct.Aborts) != 1 || r.Conduct.Aborts[0].Cause != cause {
			t.Errorf("%s: verdict %s, complete %v, aborts %+v: want INVALID for %s", name, r.Verdict, r.Complete, r.Conduct.Aborts, cause)
		}
		for _, word := range says {
			if !strings.Contains(r.Reason, word) {
				t.Errorf("%s: the report's reason %q does not say %q", name, r.Reason, word)
			}
		}
		if said := strings.Join(r.Summary, " "); !strings.Contains(said, ends) {
			t.Errorf("%s: the summary %q does not say %q", name, said, ends)
		}
		return r
	}

	stopped("protected", drill.CauseGuard, refused, protecting(t, quickDrill(t, "protected", hurried), "role=primary"),
		"failover/fault/kill", `"pg:a"`, "role=primary", "guards.protect")
	stopped("capped", drill.CauseGuard, refused, quickDrill(t, "capped", func(phase map[string]any) {
		hurried(phase)
		// The node and its relay: two parts, and the cap is one.
		phase["faults"] = []any{map[string]any{"name": "cut", "target": "orders", "fault": "cut-replication", "params": map[string]any{"relay": a.ReplicationControl}}}
	}), "failover/fault/cut", "2 parts", "guards.maxParts is 1")

	// The standby's receiver stands still: every commit waits for it. Nobody may give
	// it up meanwhile, and start another.
	configure(t, p, "wal_sender_timeout = '10min'", "wal_receiver_timeout = '10min'")
	thaw := freezeReceiver(t, p)
	r := stopped("unsteady", drill.CauseSteady, "The drill broke nothing", quickDrill(t, "unsteady", func(phase map[string]any) {
		phase["steadyState"] = map[string]any{"window": "500ms", "timeout": "2s"}
	}), "failover/steady/before")
	thaw()
	if s := r.Phases[0].Steady; len(s) != 1 || s[0].Status != "violated" || !strings.Contains(strings.Join(s[0].Reasons, " "), "writes") {
		t.Errorf("the steady state in the report: %+v", s)
	}
	atHome(t, p)
}

// protecting adds a pattern to what a drill must not hit.
func protecting(t *testing.T, raw []byte, pattern string) []byte {
	t.Helper()
	d, err := drill.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	d.Spec.Guards.Protect = append(d.Spec.Guards.Protect, pattern)
	if raw, err = json.Marshal(d); err != nil {
		t.Fatal(err)
	}
	return raw
}

// untouched fails the test if anything was so much as intended.
func untouched(t *testing.T, name string, history []bus.Stored) {
	t.Helper()
	for _, h := range history {
		switch h.Event.Type {
		case event.TypeFaultIntended, event.TypeFaultInjected, event.TypeActionIntended, event.TypeUndoIntended:
			t.Errorf("%s: %s\n%s", name, boundary(h), outline(history))
		}
	}
}

// serverProcesses are the processes of each node that live as long as the server
// does, and the two that replication runs through.
func serverProcesses(t *testing.T, p *lab.Postgres) map[string]int {
	t.Helper()
	const lasting = "SELECT backend_type, pid FROM pg_stat_activity WHERE backend_type IN ('checkpointer', 'background writer', 'walwriter', 'startup', 'walsender', 'walreceiver')"
	out := map[string]int{}
	for _, n := range p.Nodes {
		raw, err := os.ReadFile(filepath.Join(n.DataDir, "postmaster.pid"))
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(raw), "\n")
		if out[n.Name+" postmaster"], err = strconv.Atoi(first); err != nil {
			t.Fatal(err)
		}
		conn, err := p.Connect(t.Context(), n.Name)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(t.Context(), lasting)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var kind string
			var pid int
			if err := rows.Scan(&kind, &pid); err != nil {
				t.Fatal(err)
			}
			out[n.Name+" "+kind] = pid
		}
		if err := errors.Join(rows.Err(), conn.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 8 {
		t.Fatalf("only these processes of two servers were found: %v", out)
	}
	return out
}

// freezeReceiver stops the process by which b gets a's log, and returns what lets it
// go on; the test's end does so too.
func freezeReceiver(t *testing.T, p *lab.Postgres) (thaw func()) {
	t.Helper()
	pid := serverProcesses(t, p)["b walreceiver"]
	if pid == 0 {
		t.Fatal("b receives nothing")
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw = sync.OnceFunc(func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(thaw)
	return thaw
}

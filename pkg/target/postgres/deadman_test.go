package postgres_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/lab/relay"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

// armed are the names of the dead-man timers' tokens.
func (r *rig) armed(t *testing.T, suffix string) []string {
	t.Helper()
	tokens, err := filepath.Glob(filepath.Join(r.evidence(), "firedrill-*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// watchersEnd waits until no timer of the lab waits or runs any more.
func (r *rig) watchersEnd(t *testing.T) {
	t.Helper()
	eventually(t, "the timers' watchers to end", func(context.Context) error {
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range lines {
			if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), "firedrill-timer\x00"+r.evidence()) {
				return fmt.Errorf("%s still waits", path)
			}
		}
		return err
	})
}

// doFor is do with a hold, after which the target undoes the fault by itself.
func doFor(t *testing.T, tg *target.Target, name string, hold time.Duration, params any) (target.Operation, json.RawMessage) {
	t.Helper()
	op := target.Operation{Drill: "test-0", Step: name, Name: name, Hold: hold, Limit: time.Hour}
	if params != nil {
		op.Params = raw(t, params)
	}
	p, err := tg.Injector.Plan(t.Context(), op)
	if err != nil {
		t.Fatalf("plan %s: %v", name, err)
	}
	if _, err := tg.Injector.Do(t.Context(), op, p); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return op, p.Undo
}

// inOrder checks that what was done holds some words one after the other.
func inOrder(t *testing.T, done string, words ...string) {
	t.Helper()
	rest := done
	for _, w := range words {
		_, after, ok := strings.Cut(rest, w)
		if !ok {
			t.Errorf("%q is missing, or not in this order (%q), in:%s", w, words, done)
		}
		rest = after
	}
}

func undone(t *testing.T, tg *target.Target, op target.Operation, record json.RawMessage) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d, err := tg.Injector.Undo(ctx, op, record)
	if err != nil {
		t.Fatalf("undo of %s: %v%s", op.Name, err, sorted(d))
	}
	return sorted(d)
}

// TestFrozenPrimaryStaysFrozenAfterPromotion kills every injector, so to speak,
// after a freeze and a promotion: the dead-man timer's time comes, and passes.
func TestFrozenPrimaryStaysFrozenAfterPromotion(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	for name, moved := range map[string]bool{"clients moved": true, "clients not moved": false} {
		t.Run(name, func(t *testing.T) {
			tg := r.open(t)
			op, record := doFor(t, tg, postgres.FaultFreeze, 4*time.Second, nil)
			if got := r.armed(t, ".a.opens"); len(got) != 1 {
				t.Fatalf("armed: %v", got)
			}
			e, _, _ := do(t, tg, postgres.ActionPromote, nil)
			if got := r.armed(t, ""); len(got) > 0 || !strings.Contains(e.Details["disarmed"], ".a.opens") {
				t.Errorf("after the promotion are armed %v; details %v", got, e.Details)
			}
			if moved {
				do(t, tg, postgres.ActionRedirect, nil)
			}
			r.watchersEnd(t)
			if err := r.stopped("a"); err != nil {
				t.Fatalf("the old primary was woken up beside the new one: %v", err)
			}
			// The undo finds it frozen, in a fresh process.
			d := undone(t, r.open(t), op, record)
			if moved {
				inOrder(t, d, "ended node a without letting it go on", "switched over from b to a")
				if strings.Contains(d, "SIGCONT") {
					t.Errorf("the frozen old primary was thawed: %s", d)
				}
			} else {
				// Clients reach a only: it goes on, and never beside b.
				inOrder(t, d, "stopped node b", "sent SIGCONT")
			}
			eventually(t, "home", r.healthy)
		})
	}
}

// TestFrozenStandbyWakes: a standby wakes as a standby, also after a promotion.
func TestFrozenStandbyWakes(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	tg := r.open(t)
	op, record := doFor(t, tg, postgres.FaultFreeze, time.Second, map[string]any{"node": "b"})
	if got := r.armed(t, ".timer"); len(got) != 1 {
		t.Errorf("armed: %v, want one that no promotion disarms", got)
	}
	r.watchersEnd(t)
	eventually(t, "home", r.healthy)
	undo(t, tg, op, record)
}

func TestPromotionIsRefusedWhereTheOldPrimaryMayWake(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	tg := r.open(t)
	op, record := doFor(t, tg, postgres.FaultFreeze, time.Hour, nil)
	token := r.armed(t, ".a.opens")
	cut, err := postgres.Driver{}.Open(t.Context(), target.Config{Name: "db", Raw: r.edit(t, unreachable(0)), Clock: clock.System()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cut.Close() }()
	for _, drill := range []string{"", "test-0"} {
		promote := target.Operation{Drill: drill, Step: "promote", Name: postgres.ActionPromote}
		p, err := tg.Injector.Plan(t.Context(), promote)
		if err != nil {
			t.Fatal(err)
		}
		_, err = cut.Injector.Do(t.Context(), promote, p)
		if err == nil {
			t.Fatalf("drill %q: promoted, with the machine of the frozen primary out of reach", drill)
		}
		for _, part := range []string{"not promoted", "node a", "make its machine reachable", "no route to it"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("drill %q: the error does not say %q: %v", drill, part, err)
			}
		}
	}
	var recovering bool
	if err := r.query(t.Context(), "b", "SELECT pg_is_in_recovery()", &recovering); err != nil || !recovering {
		t.Errorf("b was promoted: %v", err)
	}
	if got := r.armed(t, ".a.opens"); !slices.Equal(got, token) {
		t.Errorf("armed before %v, after %v", token, got)
	}
	undo(t, tg, op, record)
	eventually(t, "home", r.healthy)
}

// TestTimersAfterPromotion: those that would let the old primary take commits
// again go, the one that only frees a disk stays.
func TestTimersAfterPromotion(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	scratch := filepath.Join(r.Dir, "scratch", "fill")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		t.Fatal(err)
	}
	r.scratches = append(r.scratches, scratch)
	for _, fault := range []string{postgres.FaultRefuse, postgres.FaultCutReplication} {
		t.Run(fault, func(t *testing.T) {
			tg := r.open(t)
			fillOp, fill := doFor(t, tg, postgres.FaultFillDisk, time.Hour, map[string]any{"path": scratch, "bytes": 4096, "node": "a"})
			op, record := doFor(t, tg, fault, time.Hour, nil)
			if opens, rest := r.armed(t, ".a.opens"), r.armed(t, ".timer"); len(opens) != 1 || len(rest) != 1 {
				t.Fatalf("armed: %v %v", opens, rest)
			}
			do(t, tg, postgres.ActionPromote, nil)
			if opens, rest := r.armed(t, ".a.opens"), r.armed(t, ".timer"); len(opens) != 0 || len(rest) != 1 {
				t.Errorf("armed after the promotion: %v %v", opens, rest)
			}
			do(t, tg, postgres.ActionRedirect, map[string]any{"node": "b"})
			// Out of order: a must not be opened beside b.
			inOrder(t, undone(t, r.open(t), op, record), "stopped node a", "took the lines marked", "switched over from b to a")
			undo(t, r.open(t), fillOp, fill)
			eventually(t, "home", r.healthy)
		})
	}
}

// TestCutRelayStaysCutAfterPromotion: a relay that would let a standby stream from the
// old primary again, and waiting commits through, is resumed by the undo alone.
func TestCutRelayStaysCutAfterPromotion(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	tg := r.open(t)
	link := r.ReplicationLink("a")
	op, record := doFor(t, tg, postgres.FaultCutReplication, time.Hour, map[string]any{"relay": r.Nodes[0].ReplicationControl})
	if st := link.State(); st.Mode != relay.Hold || st.ResumesIn < 30*time.Minute || st.ResumesIn > time.Hour {
		t.Fatalf("under the fault the relay is %+v", st)
	}
	e, _, _ := do(t, tg, postgres.ActionPromote, nil)
	if st := link.State(); st.Mode != relay.Hold || st.ResumesIn != 0 || !strings.Contains(e.Details["disarmed"], r.Nodes[0].ReplicationControl) {
		t.Errorf("after the promotion the relay is %+v; details %v", st, e.Details)
	}
	do(t, tg, postgres.ActionRedirect, map[string]any{"node": "b"})
	inOrder(t, undone(t, r.open(t), op, record), "stopped node a", "resumed the relay", "switched over from b to a")
	eventually(t, "home", r.healthy)
}

// TestCutRelayResumesWhereNothingWasPromoted: undoing another fault alone leaves a cut
// its dead man, since no primary but the old one is there.
func TestCutRelayResumesWhereNothingWasPromoted(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	tg := r.open(t)
	link := r.ReplicationLink("a")
	cutOp, cut := doFor(t, tg, postgres.FaultCutReplication, time.Hour, map[string]any{"relay": r.Nodes[0].ReplicationControl})
	_, killOp, kill := do(t, tg, postgres.FaultKill, nil)
	done := make(chan string, 1)
	go func() {
		d, err := tg.Injector.Undo(t.Context(), killOp, kill)
		done <- fmt.Sprint(err, sorted(d))
	}()
	// It is decided who leads before that one is started.
	eventually(t, "the primary to run again", func(ctx context.Context) error {
		var one int
		return r.query(ctx, "a", "SELECT 1", &one)
	})
	if st := link.State(); st.Mode != relay.Hold || st.ResumesIn == 0 {
		t.Errorf("after the undo of the kill the relay is %+v", st)
	}
	link.Resume() // as its timer would
	if got := <-done; !strings.HasPrefix(got, "<nil>") {
		t.Errorf("undo of the kill: %s", got)
	}
	undo(t, tg, cutOp, cut)
	eventually(t, "home", r.healthy)
}

// TestRelayMustEndItsPause: a cut that would stay if firedrill died is not made.
func TestRelayMustEndItsPause(t *testing.T) {
	paused := false
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		paused = q.URL.Path == "/pause" || paused && q.URL.Path != "/resume"
		_ = json.NewEncoder(w).Encode(map[string]any{"upstream": "127.0.0.1:1", "paused": paused})
	}))
	defer other.Close()
	r := startRig(t, lab.PostgresOptions{})
	r.config = r.edit(t, func(c map[string]any) { c["relays"] = []string{other.URL} })
	tg := r.open(t)
	op := target.Operation{Drill: "test-0", Step: "cut", Name: postgres.FaultCutReplication, Params: raw(t, map[string]any{"relay": other.URL}), Limit: time.Minute}
	p, err := tg.Injector.Plan(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tg.Injector.Do(t.Context(), op, p); err == nil || !strings.Contains(err.Error(), "does not end a pause by itself") || paused {
		t.Errorf("paused %t, error %v", paused, err)
	}
}

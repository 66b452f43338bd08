package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

// lane is one of a probe, in an open loop.
type lane struct {
	target.ProbeSpec
	probe target.Probe
	every time.Duration
}

// openAll opens the lanes of a write and a read probe.
func openAll(t *testing.T, tg *target.Target, drill string) (lanes []lane) {
	t.Helper()
	for _, l := range []lane{
		{target.ProbeSpec{Probe: postgres.ProbeWrite, Name: "w", Lane: target.LanePooled}, nil, 10 * time.Millisecond},
		{target.ProbeSpec{Probe: postgres.ProbeWrite, Name: "w", Lane: target.LaneFresh}, nil, 100 * time.Millisecond},
		{target.ProbeSpec{Probe: postgres.ProbeRead, Name: "r", Lane: target.LanePooled, Params: json.RawMessage(`{"of":"w"}`)}, nil, 10 * time.Millisecond},
		{target.ProbeSpec{Probe: postgres.ProbeRead, Name: "r", Lane: target.LaneFresh, Params: json.RawMessage(`{"of":"w"}`)}, nil, 100 * time.Millisecond},
	} {
		l.Drill, l.Epoch, l.Deadline = drill, 1, 250*time.Millisecond
		var err error
		if l.probe, err = tg.Observer.OpenProbe(t.Context(), l.ProbeSpec); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.probe.Close(); err != nil {
				t.Error(err)
			}
		})
		lanes = append(lanes, l)
	}
	return lanes
}

// run makes attempts for so long, and says what each came to, the first one's number
// being from.
func (l lane) run(t *testing.T, from int64, long time.Duration) []target.Outcome {
	out := make([]target.Outcome, long/l.every)
	var wg sync.WaitGroup
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	for i := range out {
		<-tick.C
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), l.Deadline)
			defer cancel()
			out[i] = l.probe.Attempt(ctx, from+int64(i))
		})
	}
	wg.Wait()
	return out
}

// runAll runs lanes side by side.
func runAll(t *testing.T, lanes []lane, from int64, long time.Duration) [][]target.Outcome {
	t.Helper()
	all := make([][]target.Outcome, len(lanes))
	var wg sync.WaitGroup
	for i, l := range lanes {
		wg.Go(func() { all[i] = l.run(t, from, long) })
	}
	wg.Wait()
	return all
}

// answers waits until all lanes are served.
func answers(t *testing.T, lanes []lane, from int64) {
	t.Helper()
	eventually(t, "all lanes to be served", func(context.Context) error {
		from += 100
		var bad []error
		for i, got := range runAll(t, lanes, from, 200*time.Millisecond) {
			if o := got[len(got)-1]; o.Result != target.OK {
				bad = append(bad, fmt.Errorf("lane %s of %s: %w", lanes[i].Lane, lanes[i].Name, o.Err))
			}
		}
		return errors.Join(bad...)
	})
}

// stallWrites stops the process by which b gets a's log, and returns what lets it go on;
// the test's end does so too.
func (r *rig) stallWrites(t *testing.T) (thaw func()) {
	t.Helper()
	// Nobody gives up the one that stands still, and starts another.
	for _, node := range []string{"a", "b"} {
		for _, sql := range []string{"ALTER SYSTEM SET wal_sender_timeout = '10min'", "ALTER SYSTEM SET wal_receiver_timeout = '10min'", "SELECT pg_reload_conf()"} {
			c, err := r.Connect(t.Context(), node)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Exec(t.Context(), sql)
			if err := errors.Join(err, c.Close(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
	}
	var pid int
	if err := r.query(t.Context(), "b", "SELECT pid FROM pg_stat_wal_receiver", &pid); err != nil {
		t.Fatal(err)
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

// waiters counts the server's processes that wait for the standby, and the clients', now
// and then, until stop is called, which says how many waited at most and in the end.
func (r *rig) waiters(t *testing.T) (stop func() (most, now, clients int)) {
	t.Helper()
	count := func() (waiting, all int) {
		if err := r.query(t.Context(), "a", "SELECT count(*) FILTER (WHERE wait_event = 'SyncRep'), count(*) FROM pg_stat_activity WHERE usename = 'app'", &waiting, &all); err != nil {
			t.Error(err)
		}
		return waiting, all
	}
	most, over, done := 0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			n, _ := count()
			most = max(most, n)
			select {
			case <-tick.C:
			case <-over:
				return
			}
		}
	}()
	return func() (int, int, int) {
		close(over)
		<-done
		waiting, all := count()
		return most, waiting, all
	}
}

// widen gives PgBouncer more connections than the lanes need in a burst.
func (r *rig) widen(t *testing.T) {
	t.Helper()
	ini, err := os.ReadFile(r.PgBouncer.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	wide := strings.Replace(string(ini), "default_pool_size = 40", "default_pool_size = 85", 1)
	if wide == string(ini) {
		t.Fatalf("no default_pool_size in %s", ini)
	}
	if err := os.WriteFile(r.PgBouncer.ConfigFile, []byte(wide), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := r.admin(t.Context(), r.PgBouncer.Port, "pgbouncer")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.PgConn().Exec(t.Context(), "RELOAD").ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// TestAStallOfWritesTakesNoConnections: the standby that commits wait for takes nothing
// any more. Each statement that waits has one of the server's 100 connections until that
// ends, whatever its client does; with a statement for each attempt they were gone within
// a second, and reads failed too. Nobody else's statement is cancelled.
func TestAStallOfWritesTakesNoConnections(t *testing.T) {
	for name, o := range map[string]lab.PostgresOptions{"direct": {Synchronous: true}, "pgbouncer": {Synchronous: true, PgBouncer: true}} {
		t.Run(name, func(t *testing.T) {
			r := startRig(t, o)
			if o.PgBouncer {
				r.widen(t)
			}
			tg := r.open(t)
			lanes := openAll(t, tg, "stall-1")
			answers(t, lanes, 0)
			thaw := r.stallWrites(t)
			other := make(chan error, 1)
			go func() { other <- r.asClient(t.Context(), "CREATE TABLE other ()") }()
			stop := r.waiters(t)
			const from = 100_000
			during := runAll(t, lanes, from, 4*time.Second)
			most, waiting, all := stop()
			if len(other) > 0 {
				t.Error("another client's statement did not wait")
			}
			thaw()
			answers(t, lanes, 2*from)
			if err := <-other; err != nil {
				t.Errorf("another client's statement: %v", err)
			}
			unsent := stalled(t, tg, lanes, from, during)
			// Until the first attempts are over nobody knows that they hang: 25 of the pooled lane.
			t.Logf("%d backends waited at most, %d of %d in the end, %d of 440 writes were not sent", most, waiting, all, unsent)
			if most > 1+25+8+3+8+5 || waiting < 8 || waiting > 1+25+8+3+8+5 || all > 60 || unsent < 200 { // of a busy machine, whose looks are late
				t.Error("too many backends wait, or nothing did")
			}
			eventually(t, "the last backends to end", func(ctx context.Context) error {
				var left int
				if err := r.query(ctx, "a", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", &left); err != nil || left > 2 {
					return fmt.Errorf("%d backends wait after the stall, %w", left, errors.Join(err))
				}
				return nil
			})
		})
	}
}

// stalled looks at what came of attempts in a stall of writes, the first one's number being
// from, and says how many were not sent.
func stalled(t *testing.T, tg *target.Target, lanes []lane, from int64, during [][]target.Outcome) (unsent int) {
	t.Helper()
	evidence := 0
	for i, l := range lanes {
		held, err := tg.Observer.ReadLedger(t.Context(), l.ProbeSpec, 2*from)
		if err != nil {
			t.Fatal(err)
		}
		for k, o := range during[i] {
			switch write := l.Probe == postgres.ProbeWrite; {
			case !write && o.Result != target.OK && !errors.Is(o.Err, context.DeadlineExceeded) && !errors.Is(o.Err, os.ErrDeadlineExceeded): // which a busy machine may bring
				t.Fatalf("lane %s: read %d: %v", l.Lane, k, o.Err)
			case write && o.Result == target.OK:
				t.Errorf("lane %s: write %d was ok in the stall", l.Lane, k)
			case write && o.Result != target.Unknown && held.Present.Has(from+int64(k)):
				t.Errorf("lane %s: write %d came to %c and is there: %v", l.Lane, k, o.Result, o.Err)
			case write && o.Result == target.Unsent:
				unsent++
				if o.Connected || o.Asked != 0 {
					t.Errorf("lane %s: write %d was not sent, and asked after %v, by a connection of its time: %t", l.Lane, k, o.Asked, o.Connected)
				}
			case write && o.Result == target.Unknown && (o.Asked <= 0 || o.Asked > l.Deadline):
				t.Errorf("lane %s: write %d came to %c, asked after %v", l.Lane, k, o.Result, o.Asked)
			case write && o.Result == target.Unknown && o.Connected && k > len(during[i])/2:
				evidence++
			}
		}
	}
	if evidence < 4 || evidence > 80 { // 2 s of two lanes; a busy machine has fewer
		t.Errorf("%d attempts looked in the stall's second half", evidence)
	}
	return unsent
}

// TestNewStatementsAreServed: the standby stays away, and the primary is told not to wait
// for it. That lets new commits through, and not those that wait.
func TestNewStatementsAreServed(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{Synchronous: true})
	lanes := openAll(t, r.open(t), "local-1")
	answers(t, lanes, 0)
	r.stallWrites(t)
	runAll(t, lanes, 100_000, 2*time.Second)
	r.exec(t, "a", "ALTER SYSTEM SET synchronous_commit = 'local'", "SELECT pg_reload_conf()")
	for i, got := range runAll(t, lanes, 200_000, 4*time.Second) {
		ok := 0
		for _, o := range got[len(got)/2:] {
			if o.Result == target.OK {
				ok++
			}
		}
		if n := len(got) / 2; ok < n/2 { // a busy machine fails some
			t.Errorf("lane %s of %s: %d of %d attempts were served, two seconds after clients were: %v", lanes[i].Lane, lanes[i].Name, ok, n, got[len(got)-1].Err)
		}
	}
}

// TestOneFailureEmptiesThePool: of five connections that the server has ended one attempt
// finds that out, for all.
func TestOneFailureEmptiesThePool(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{})
	l := openAll(t, r.open(t), "stale-1")[0]
	eventually(t, "five connections", func(ctx context.Context) error {
		var wg sync.WaitGroup
		for i := range int64(10) {
			wg.Go(func() { l.probe.Attempt(ctx, 1000+i) })
		}
		wg.Wait()
		var n int
		if err := r.query(ctx, "a", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'", &n); err != nil || n < 5 {
			return fmt.Errorf("%d connections, %w", n, err)
		}
		return nil
	})
	var ended int
	if err := r.query(t.Context(), "a", "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE usename = 'app'", &ended); err != nil {
		t.Fatal(err)
	}
	var bad int
	for i := range int64(10) {
		if o := l.probe.Attempt(t.Context(), 2000+i); o.Result != target.OK {
			bad++
		}
	}
	if bad != 1 {
		t.Errorf("%d attempts failed after %d connections were ended, want 1", bad, ended)
	}
}

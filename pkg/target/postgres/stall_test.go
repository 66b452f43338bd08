package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// TestAStallOfWritesTakesNoConnections: the standby that commits wait for takes nothing
// any more. Each statement that waits has one of the server's 100 connections until that
// ends, whatever its client does; with a statement for each attempt they were gone within
// a second, and reads failed too.
func TestAStallOfWritesTakesNoConnections(t *testing.T) {
	r := startRig(t, lab.PostgresOptions{Synchronous: true})
	tg := r.open(t)
	lanes := openAll(t, tg, "stall-1")
	answers(t, lanes, 0)
	thaw := r.stallWrites(t)
	const from = 100_000
	during := runAll(t, lanes, from, 4*time.Second)
	var waiting, all int
	if err := r.query(t.Context(), "a", "SELECT count(*) FILTER (WHERE wait_event = 'SyncRep'), count(*) FROM pg_stat_activity WHERE usename = 'app'", &waiting, &all); err != nil {
		t.Fatal(err)
	}
	thaw()
	answers(t, lanes, 2*from)
	unsent := 0
	for i, l := range lanes {
		held, err := tg.Observer.ReadLedger(t.Context(), l.ProbeSpec, 2*from)
		if err != nil {
			t.Fatal(err)
		}
		for k, o := range during[i] {
			switch write := l.Probe == postgres.ProbeWrite; {
			case !write && o.Result != target.OK && strings.Contains(fmt.Sprint(o.Err), "53300"): // too many connections
				t.Fatalf("lane %s: read %d: %v", l.Lane, k, o.Err)
			case write && o.Result == target.OK:
				t.Errorf("lane %s: write %d was ok in the stall", l.Lane, k)
			case write && o.Result != target.Unknown && held.Present.Has(from+int64(k)):
				t.Errorf("lane %s: write %d came to %c and is there: %v", l.Lane, k, o.Result, o.Err)
			case write && o.Result == target.Unsent:
				unsent++
			}
		}
	}
	// Until the first attempts are over nobody knows that they hang: 25 of the pooled lane.
	if waiting < 8 || waiting > 25+8+3+8+5 || all > 70 || unsent < 300 {
		t.Errorf("%d backends of %d wait, %d of 440 writes were not sent", waiting, all, unsent)
	}
	var left int
	if err := r.query(t.Context(), "a", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", &left); err != nil || left > 2 {
		t.Errorf("%d backends wait after the stall, %v", left, err)
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

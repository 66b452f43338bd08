package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
)

// RequestToFault measures what firedrill itself adds between a request and the fault:
// the time from the publish to f0, less the watching of the steady state, which is the
// drill's own. How much longer than the window that takes is a figure of its own.
//
// The peer is what an operator would type instead: ask both servers who is the primary,
// and stop it. The two take turns.
func RequestToFault(ctx context.Context, n int, say func(string, ...any)) ([]Figure, error) {
	quiet := slog.New(slog.DiscardHandler)
	l, err := lab.StartPostgres(ctx, lab.PostgresOptions{Synchronous: true, Log: quiet})
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Stop() }()
	dir, err := os.MkdirTemp("", "firedrill-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	stack, err := allinone.Start(ctx, allinone.Options{StateDir: dir, OutDir: filepath.Join(dir, "out"), Registry: target.NewRegistry(postgres.Driver{}), Inventory: drill.OpenInventory(), Log: quiet})
	if err != nil {
		return nil, err
	}
	defer stack.Close()
	var ours, beyond, script []float64
	for i := range n {
		took, watched, err := requestToFault(ctx, stack.Bus, l, i)
		if err != nil {
			return nil, fmt.Errorf("drill %d: %w", i, err)
		}
		byHand, err := freezeByHand(ctx, l)
		if err != nil {
			return nil, err
		}
		ours, beyond, script = append(ours, ms(took)), append(beyond, ms(watched-steadyWindow)), append(script, ms(byHand))
		say("request to fault %d: %.1f ms; by hand %.1f ms", i+1, ours[i], script[i])
	}
	return []Figure{
		{Name: "request-to-fault/p50", Value: percentile(ours, 50), Unit: "ms", Goal: 50, Better: "lower", N: n,
			Means: fmt.Sprintf("from the publish to the fault's f0, without the watching of the steady state: its fixed window of %s is left out, and so is what request-to-fault/steady-beyond-window says", steadyWindow)},
		{Name: "request-to-fault/p99", Value: percentile(ours, 99), Unit: "ms", Goal: 50, Better: "lower", N: n,
			Means: fmt.Sprintf("of the same times; of fewer than 100 drills the 99th percentile is the slowest, and these are %d", n)},
		{Name: "request-to-fault/vs-script", Value: percentile(ours, 50) / percentile(script, 50), Unit: "x", Goal: 1, Better: "lower", N: n,
			Means: fmt.Sprintf("the median as a multiple of a shell script that asks both servers and stops the primary, without a record or a way back: %.1f ms here, at worst %.1f", percentile(script, 50), percentile(script, 100))},
		{Name: "request-to-fault/steady-beyond-window", Value: percentile(beyond, 50), Unit: "ms", Goal: 400, Better: "lower", N: n,
			Means: "from asking for the steady state to its answer, less the window: connections are opened before it, and the attempts that come every 200 ms have to be answered after it"},
	}, nil
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// freezeByHand takes the time of a script that freezes the primary, and lets it go on.
func freezeByHand(ctx context.Context, l *lab.Postgres) (time.Duration, error) {
	password, err := os.ReadFile(l.Secrets.Admin)
	if err != nil {
		return 0, err
	}
	const script = `psql=$1 user=$2 dir=$3; shift 3
for port; do "$psql" -h 127.0.0.1 -p "$port" -U "$user" -d postgres -Atc 'SELECT pg_is_in_recovery()' >/dev/null || exit 1; done
read -r pid <"$dir/postmaster.pid" && kill -STOP "$pid"`
	args := []string{"-c", script, "sh", filepath.Join(l.BinDir, "psql"), l.Admin}
	for i, n := range l.Nodes {
		if i == 0 {
			args = append(args, n.DataDir)
		}
		args = append(args, strconv.Itoa(n.Port))
	}
	cmd := exec.CommandContext(ctx, "sh", args...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+strings.TrimSpace(string(password)))
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("freezing by hand: %w: %s", err, out)
	}
	return took, exec.CommandContext(ctx, "sh", "-c", `read -r pid <"$1/postmaster.pid" && kill -CONT "$pid"`, "sh", l.Nodes[0].DataDir).Run()
}

// steadyWindow is how long the drill watches before the fault.
const steadyWindow = 3200 * time.Millisecond

// requestToFault runs one drill. watched is how long its steady state took to be told.
func requestToFault(ctx context.Context, b *bus.Bus, l *lab.Postgres, i int) (took, watched time.Duration, err error) {
	raw, err := json.Marshal(map[string]any{
		"apiVersion": drill.APIVersion, "kind": drill.Kind, "metadata": map[string]any{"name": "latency"},
		"spec": map[string]any{
			"targets": []any{map[string]any{"name": "t", "driver": "postgres", "config": l.Config()}},
			"phases": []any{map[string]any{
				"name": "p", "objective": map[string]any{"rto": "1m"},
				"probes":      []any{map[string]any{"name": "w", "target": "t", "probe": "write"}},
				"steadyState": map[string]any{"window": steadyWindow.String(), "timeout": "1m"},
				"faults":      []any{map[string]any{"name": "f", "target": "t", "fault": "freeze", "hold": "300ms"}},
				"stable":      map[string]any{"window": "500ms", "timeout": "1m"},
			}},
		},
	})
	if err != nil {
		return 0, 0, err
	}
	published := clock.System().Now()
	ack, err := b.Publish(ctx, "drill.req.bench.latency", raw, fmt.Sprintf("bench-%d", i))
	if err != nil {
		return 0, 0, err
	}
	var asked, held, fault event.Reading
	err = b.Follow(ctx, drill.ID("latency", ack.Seq), func(s bus.Stored) error {
		switch p := s.Payload.(type) {
		case *event.SteadyRequested:
			if asked.IsZero() {
				asked = s.Event.At()
			}
		case *event.SteadyEstablished:
			if held.IsZero() {
				held = s.Event.At()
			}
		case *event.FaultInjected:
			fault = p.F0
		case *event.AbortRequested:
			return fmt.Errorf("aborted: %s", p.Reason)
		case *event.ReportPublished:
			return bus.Stop
		}
		return nil
	})
	watched = drill.Elapsed(asked, held)
	return drill.Elapsed(published, fault) - watched, watched, err
}

// IdleMemory is the resident memory of `firedrill up` with nothing to do.
func IdleMemory(ctx context.Context, binary string) ([]Figure, error) {
	dir, err := os.MkdirTemp("", "firedrill-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, binary, "up", "--state-dir", dir, "--listen", "127.0.0.1:0", "--http", "")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() { _ = cmd.Wait() }() // it was killed: an error is expected
	defer func() { _ = cmd.Process.Kill() }()
	for until := time.Now().Add(30 * time.Second); ; {
		if _, up := allinone.ReadRecord(dir); up {
			break
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("%s did not come up", binary)
		}
		pause(ctx, 50*time.Millisecond)
	}
	pause(ctx, 10*time.Second) // idle means after the start's garbage
	kb, err := resident(cmd.Process.Pid)
	return []Figure{{Name: "allinone/resident-idle", Value: kb / 1024, Unit: "MB", Goal: 100, Better: "lower", N: 1}}, err
}

func resident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("no VmRSS for process %d", pid)
}

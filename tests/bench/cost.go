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

// RequestToFault measures what firedrill itself adds between a request and the
// fault: the time from the publish to f0, less the steady state that the drill
// asks to be watched.
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
	var ms []float64
	for i := range n {
		d, err := requestToFault(ctx, stack.Bus, l, i)
		if err != nil {
			return nil, fmt.Errorf("drill %d: %w", i, err)
		}
		ms = append(ms, float64(d)/1e6)
		say("request to fault %d: %.1f ms", i+1, ms[i])
	}
	return []Figure{
		{Name: "request-to-fault/p50", Value: percentile(ms, 50), Unit: "ms", Goal: 50, Better: "lower", N: n},
		{Name: "request-to-fault/p99", Value: percentile(ms, 99), Unit: "ms", Goal: 50, Better: "lower", N: n},
	}, nil
}

func requestToFault(ctx context.Context, b *bus.Bus, l *lab.Postgres, i int) (time.Duration, error) {
	raw, err := json.Marshal(map[string]any{
		"apiVersion": drill.APIVersion, "kind": drill.Kind, "metadata": map[string]any{"name": "latency"},
		"spec": map[string]any{
			"targets": []any{map[string]any{"name": "t", "driver": "postgres", "config": l.Config()}},
			"phases": []any{map[string]any{
				"name": "p", "objective": map[string]any{"rto": "1m"},
				"probes":      []any{map[string]any{"name": "w", "target": "t", "probe": "write"}},
				"steadyState": map[string]any{"window": "3200ms", "timeout": "1m"},
				"faults":      []any{map[string]any{"name": "f", "target": "t", "fault": "freeze", "hold": "300ms"}},
				"stable":      map[string]any{"window": "500ms", "timeout": "1m"},
			}},
		},
	})
	if err != nil {
		return 0, err
	}
	published := clock.System().Now()
	ack, err := b.Publish(ctx, "drill.req.bench.latency", raw, fmt.Sprintf("bench-%d", i))
	if err != nil {
		return 0, err
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
	return drill.Elapsed(published, fault) - drill.Elapsed(asked, held), err
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

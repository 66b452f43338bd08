package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/postgres"
)

// envCommand, set to anything, makes the test program the firedrill command.
const envCommand = "FIREDRILL_CLI_TEST_COMMAND"

// envSystem names the system that the sims of a test and of its processes are: the machine
// may run other tests.
const envSystem = "FIREDRILL_CLI_TEST_SYSTEM"

func TestMain(m *testing.M) {
	if os.Getenv(envCommand) != "" {
		run.Main(func(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
			return Run(ctx, args, Streams{In: in, Out: out, Err: errs}, simRegistry())
		})
	}
	os.Exit(m.Run())
}

func simRegistry() target.Registry { return target.NewRegistry(postgres.Driver{}, &sim{}) }

// sim is a service that lives in this process: the fault breaks it, the action or the
// undo mends it. With {"sick": true} as its configuration it never answers.
type sim struct{ broken atomic.Bool }

func (s *sim) Name() string { return "sim" }

func (s *sim) Check(json.RawMessage) error { return nil }

func (s *sim) Describe() target.Description {
	return target.Description{
		Faults:  []target.OperationInfo{{Name: "break"}},
		Actions: []target.OperationInfo{{Name: "mend"}},
		Probes:  []target.OperationInfo{{Name: "read"}},
	}
}

func (s *sim) Open(_ context.Context, c target.Config) (*target.Target, error) {
	var config struct{ Sick bool }
	if err := json.Unmarshal(c.Raw, &config); err != nil {
		return nil, err
	}
	return &target.Target{Injector: s, Identity: s, Observer: simProbe{s, config.Sick}}, nil
}

func (s *sim) Identify(context.Context) (string, error) {
	return "sim/" + cmp.Or(os.Getenv(envSystem), strconv.Itoa(os.Getpid())), nil
}

func (s *sim) Survey(context.Context, []target.Operation) (target.Survey, error) {
	return target.Survey{Parts: []event.Part{{ID: "sim:1", Kind: "service"}}}, nil
}

func (s *sim) Plan(_ context.Context, op target.Operation) (target.Plan, error) {
	return target.Plan{Parts: []event.Part{{ID: "sim:1", Kind: "service"}}, Does: []string{op.Name}, Undo: json.RawMessage(`{}`), Undoes: "mends it"}, nil
}

// downTime is how long the action takes to mend what the fault broke: the drill's
// achieved recovery time is more.
const downTime = 300 * time.Millisecond

func (s *sim) Do(ctx context.Context, op target.Operation, _ target.Plan) (target.Effect, error) {
	began := clock.System().Now()
	if op.Name == "break" {
		s.broken.Store(true)
	} else {
		select {
		case <-ctx.Done():
			return target.Effect{}, ctx.Err()
		case <-time.After(downTime):
		}
		s.broken.Store(false)
	}
	return target.Effect{Began: began, Ended: clock.System().Now(), Proof: event.Proof{Proven: true, How: "it was seen"}}, nil
}

func (s *sim) Undo(context.Context, target.Operation, json.RawMessage) (map[string]string, error) {
	s.broken.Store(false)
	return nil, nil
}

type simProbe struct {
	s    *sim
	sick bool
}

func (p simProbe) OpenProbe(context.Context, target.ProbeSpec) (target.Probe, error) { return p, nil }

func (p simProbe) ReadLedger(context.Context, target.ProbeSpec, int64) (target.Held, error) {
	return target.Held{}, errors.New("it has no ledger")
}

func (p simProbe) DropLedgers(context.Context, ...string) error { return nil }
func (p simProbe) Close() error                                 { return nil }

func (p simProbe) Attempt(context.Context, int64) target.Outcome {
	if p.sick || p.s.broken.Load() {
		return target.Outcome{Result: target.Failed, Err: errors.New("connection refused")}
	}
	return target.Outcome{Result: target.OK}
}

// simDrill is a drill of a sim that brings its own configuration.
func simDrill(t *testing.T, config, rto, recovery string) (path string) {
	t.Helper()
	return write(t, "drill.yaml", fmt.Sprintf(`apiVersion: firedrill/v1
kind: Drill
metadata: {name: lone}
spec:
  guards: {deadline: 4m}
  targets: [{name: shop, driver: sim, config: %s}]
  phases:
    - name: p
      title: Loss of the shop
      objective: {rto: %s}
      probes: [{name: reads, target: shop, probe: read, burst: 50ms}]
      steadyState: {window: 500ms, timeout: 2s}
      faults: [{name: break, target: shop, fault: break}]
      recovery: %s
      stable: {window: 500ms, timeout: 2m}
`, config, rto, recovery))
}

const mend = "[{name: mend, target: shop, action: mend}]"

package validator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/validator"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// nats-server starts these once a process and never ends them.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// fake is a driver that holds the canaries, and answers checks, as a test says.
type fake struct {
	mu       sync.Mutex
	held     map[string]target.Held // by ledger
	readErr  error
	check    func(ctx context.Context, s target.CheckSpec, base json.RawMessage) ([]event.Property, error)
	baseline func(ctx context.Context, s target.CheckSpec) (json.RawMessage, error)
	collect  func(ctx context.Context) ([]event.Artifact, error)
	openErr  error
	runs     map[string]int
}

func newFake() *fake {
	return &fake{held: map[string]target.Held{}, runs: map[string]int{}}
}

func (f *fake) ran(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs[what]++
}

func (f *fake) times(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs[what]
}

func (f *fake) Name() string                { return "fake" }
func (f *fake) Check(json.RawMessage) error { return nil }
func (f *fake) Describe() target.Description {
	return target.Description{
		Probes: []target.OperationInfo{{Name: "write", Writes: true}, {Name: "read"}},
		Checks: []target.OperationInfo{{Name: "rows", NeedsBaseline: true}, {Name: "state"}},
	}
}

func (f *fake) Open(context.Context, target.Config) (*target.Target, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.openErr != nil {
		return nil, f.openErr
	}
	return &target.Target{Observer: f, Checker: checker{f}, Evidence: f, Close: func() error { f.ran("close"); return nil }}, nil
}

func (f *fake) OpenProbe(context.Context, target.ProbeSpec) (target.Probe, error) {
	return nil, errors.New("the validator opens no probes")
}

func (f *fake) DropLedgers(context.Context, ...string) error {
	return errors.New("the validator drops no ledgers")
}

func (f *fake) ReadLedger(_ context.Context, s target.ProbeSpec, upTo int64) (target.Held, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held[s.Ledger()], f.readErr
}

func (f *fake) Collect(ctx context.Context) ([]event.Artifact, error) {
	f.ran("collect")
	if f.collect == nil {
		return nil, nil
	}
	return f.collect(ctx)
}

type checker struct{ f *fake }

func (c checker) Baseline(ctx context.Context, s target.CheckSpec) (json.RawMessage, error) {
	c.f.ran("baseline " + s.Name)
	if c.f.baseline == nil {
		return json.RawMessage(`{"rows":7}`), nil
	}
	return c.f.baseline(ctx, s)
}

func (c checker) Check(ctx context.Context, s target.CheckSpec, base json.RawMessage) ([]event.Property, error) {
	c.f.ran("check " + s.Name)
	if c.f.check == nil {
		return []event.Property{{Name: s.Check, Result: event.ResultPass, Found: "base " + string(base)}}, nil
	}
	return c.f.check(ctx, s, base)
}

// play is one drill on a NATS server of its own; the test plays the injector
// and the observer.
type play struct {
	t      *testing.T
	server *bus.Embedded
	keys   *keys.Set
	inject *bus.Bus
	watch  *bus.Bus
	report *bus.Bus
	fake   *fake
}

const id = "d-1"

func newPlay(t *testing.T, phases ...drill.Phase) *play {
	t.Helper()
	dir := t.TempDir()
	set, err := keys.LoadOrCreate(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: filepath.Join(dir, "nats"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	p := &play{t: t, server: server, keys: set, fake: newFake()}
	p.inject, p.watch, p.report = p.connect(event.Injector, "i1"), p.connect(event.Observer, "o1"), p.connect(event.Reporter, "r1")
	if err := p.inject.Bootstrap(t.Context(), bus.BootstrapOptions{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	d := drill.WithDefaults(drill.Drill{
		APIVersion: drill.APIVersion, Kind: drill.Kind, Metadata: drill.Metadata{Name: "d"},
		Spec: drill.Spec{Targets: []drill.Target{{Name: "t", Driver: "fake", Config: json.RawMessage(`{}`)}}, Phases: phases},
	})
	spec, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	p.say(p.inject, event.TypeDrillAccepted, event.DrillAccepted{Requester: "me", Spec: spec})
	p.say(p.inject, event.TypePhaseStarted, event.PhaseStarted{Phase: phases[0].Name})
	return p
}

func (p *play) connect(service, instance string) *bus.Bus {
	p.t.Helper()
	signer, err := p.keys.Signer(service)
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := bus.Connect(p.t.Context(), bus.Options{
		Embedded: p.server, Keyring: p.keys.Keyring, Log: slog.New(slog.DiscardHandler),
		Identity: bus.Identity{Service: service, Instance: instance, Signer: signer, Clock: clock.System()},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(b.Close)
	return b
}

// validate runs a validator until the returned function is called or the test ends.
func (p *play) validate(instance string) (stop func()) {
	p.t.Helper()
	c := validator.Config{
		Bus: p.connect(event.Validator, instance), Registry: target.NewRegistry(p.fake),
		Log: slog.New(slog.NewTextHandler(p.t.Output(), nil)), Clock: clock.System(), CheckTime: 500 * time.Millisecond,
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	go func() { done <- validator.Run(ctx, c) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("validator: %v", err)
		}
	})
	p.t.Cleanup(stop)
	return stop
}

func (p *play) say(b *bus.Bus, t event.Type, data any) {
	p.t.Helper()
	if _, err := b.Append(p.t.Context(), id, event.Draft{Type: t, Data: data}); err != nil {
		p.t.Fatalf("append %s: %v", t, err)
	}
}

// await waits for an event with a payload of type P that fits.
func await[P any](p *play, fits func(*P) bool) *P {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	var out *P
	err := p.inject.Follow(ctx, id, func(s bus.Stored) error {
		if x, ok := s.Payload.(*P); ok && (fits == nil || fits(x)) {
			out = x
			return bus.Stop
		}
		return nil
	})
	if err != nil {
		p.t.Fatalf("no %T: %v", out, err)
	}
	return out
}

// all returns every payload of type P so far.
func all[P any](p *play) []*P {
	p.t.Helper()
	h, err := p.inject.History(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	var out []*P
	for _, s := range h {
		if x, ok := s.Payload.(*P); ok {
			out = append(out, x)
		}
	}
	return out
}

// attempts publishes a lane's attempts, a letter each, from number first on.
func (p *play) attempts(probe, kind, lane string, epoch, first int64, outcomes string, observed ...int64) {
	p.t.Helper()
	as := make([]verdict.Attempt, len(outcomes))
	base := int64(1e9)
	for i := range as {
		seq := first + int64(i)
		at := base + seq*1e7
		as[i] = verdict.Attempt{Seq: seq, Scheduled: at, Started: at, Completed: at + 1e6, Outcome: verdict.Outcome(outcomes[i])}
		if i < len(observed) {
			as[i].Observed = observed[i]
		}
	}
	b := verdict.NewBatch(verdict.BatchMeta{
		Phase: "p", Probe: probe, Target: "t", Kind: kind, Lane: lane, Epoch: epoch,
		Clock: clock.System().Now(), Deadline: int64(250 * time.Millisecond),
	}, as)
	p.say(p.watch, event.TypeProbeBatch, b)
}

// holds says what the target holds of a lane.
func (p *play) holds(probe, lane string, epoch int64, present event.Ranges, doubles map[int64]int64) {
	p.fake.mu.Lock()
	defer p.fake.mu.Unlock()
	s := target.ProbeSpec{Drill: id, Name: probe, Lane: lane, Epoch: epoch}
	p.fake.held[s.Ledger()] = target.Held{Present: present, Duplicates: doubles}
}

func recovered() string { return drill.StepID("p", drill.StepChecks, drill.Recovered) }

func (p *play) cut(lanes ...event.LaneCut) {
	p.t.Helper()
	p.say(p.inject, event.TypeChecksRequested, event.ChecksRequested{Step: recovered()})
	p.say(p.watch, event.TypeLedgerCut, event.LedgerCut{Step: recovered(), Lanes: lanes})
}

// phase has one probe of each kind and the given checks.
func phase(checks ...drill.Check) drill.Phase {
	for i := range checks {
		checks[i].Target = "t"
		if checks[i].Name == "" {
			checks[i].Name = checks[i].Check
		}
	}
	return drill.Phase{
		Name: "p", Objective: drill.Objective{RTO: event.Duration(time.Minute)},
		Probes: []drill.Probe{{Name: "w", Target: "t", Probe: "write"}, {Name: "r", Target: "t", Probe: "read"}},
		Faults: []drill.Fault{{Name: "break", Target: "t", Fault: "break"}},
		Checks: checks,
	}
}

// results maps each property of the ledger check to its result.
func results(c *event.CheckCompleted) map[string]string {
	out := map[string]string{}
	for _, p := range c.Properties {
		out[p.Name] = p.Result
	}
	return out
}

func (p *play) same(got, want map[string]string) {
	p.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		p.t.Fatalf("got %v, want %v", got, want)
	}
}

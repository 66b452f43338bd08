package observer_test

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
	"github.com/firedrill/firedrill/services/observer"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// nats-server starts these once a process and never ends them.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.init.0.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// fake is a driver whose service does what the test says, attempt by attempt.
type fake struct {
	mu      sync.Mutex
	attempt func(ctx context.Context, s target.ProbeSpec, seq int64) target.Outcome
	openErr func() error
	opens   int
	closes  int
	dropped []string
	drop    func(ctx context.Context, drill string) error // nil succeeds
	// before is what had been dropped when the first lane was opened.
	before   []string
	ledgers  map[string]map[int64]int64
	released chan struct{} // closed at the end of the test, for attempts that hang
}

func newFake(t *testing.T) *fake {
	f := &fake{ledgers: map[string]map[int64]int64{}, released: make(chan struct{})}
	t.Cleanup(func() { close(f.released) })
	return f
}

// set changes what the service does from now on; nil is healthy.
func (f *fake) set(a func(ctx context.Context, s target.ProbeSpec, seq int64) target.Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempt = a
}

func refuse(context.Context, target.ProbeSpec, int64) target.Outcome {
	return target.Outcome{Result: target.Failed, Err: errors.New("connection refused")}
}

func (f *fake) Name() string                { return "fake" }
func (f *fake) Check(json.RawMessage) error { return nil }
func (f *fake) Describe() target.Description {
	return target.Description{Probes: []target.OperationInfo{{Name: "write", Writes: true}, {Name: "read"}}}
}

func (f *fake) Open(context.Context, target.Config) (*target.Target, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opens++
	return &target.Target{Observer: f, Close: func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.closes++
		return nil
	}}, nil
}

func (f *fake) OpenProbe(_ context.Context, s target.ProbeSpec) (target.Probe, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before == nil {
		f.before = append([]string{}, f.dropped...)
	}
	if f.openErr != nil {
		if err := f.openErr(); err != nil {
			return nil, err
		}
	}
	return &fakeProbe{f: f, s: s}, nil
}

func (f *fake) ReadLedger(context.Context, target.ProbeSpec, int64) (target.Held, error) {
	return target.Held{}, errors.New("the observer reads no ledgers")
}

func (f *fake) DropLedgers(ctx context.Context, drills ...string) error {
	f.mu.Lock()
	drop := f.drop
	f.mu.Unlock()
	for _, drill := range drills {
		if drop != nil {
			if err := drop(ctx, drill); err != nil {
				return err
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropped = append(f.dropped, drills...)
	return nil
}

// cleaned is how often the drill's ledgers were dropped. The first claim does it
// once, before there are any.
func (f *fake) cleaned(drill string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, d := range f.dropped {
		if d == drill {
			n++
		}
	}
	return n
}

// dropping changes what dropping ledgers does from now on.
func (f *fake) dropping(drop func(ctx context.Context, drill string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop = drop
}

type fakeProbe struct {
	f *fake
	s target.ProbeSpec
}

func (p *fakeProbe) Close() error { return nil }
func (p *fakeProbe) Attempt(ctx context.Context, seq int64) target.Outcome {
	p.f.mu.Lock()
	attempt := p.f.attempt
	p.f.mu.Unlock()
	if attempt != nil {
		if o := attempt(ctx, p.s, seq); o.Result != target.OK {
			return o
		}
	}
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	l := p.f.ledgers[p.s.Ledger()]
	if l == nil {
		l = map[int64]int64{}
		p.f.ledgers[p.s.Ledger()] = l
	}
	l[seq]++
	return target.Outcome{Result: target.OK, Observed: seq}
}

// rig is a NATS server, the observers under test, and a script that plays the
// other services.
type rig struct {
	t      *testing.T
	server *bus.Embedded
	keys   *keys.Set
	inject *bus.Bus
	report *bus.Bus
	fake   *fake
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	set, err := keys.LoadOrCreate(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: filepath.Join(dir, "nats"), Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	r := &rig{t: t, server: server, keys: set, fake: newFake(t)}
	r.inject = r.connect(event.Injector, "i1", clock.System())
	r.report = r.connect(event.Reporter, "r1", clock.System())
	if err := r.inject.Bootstrap(t.Context(), bus.BootstrapOptions{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) connect(service, instance string, c bus.Clock) *bus.Bus {
	r.t.Helper()
	return r.connectTo("", service, instance, c)
}

// connectTo connects by way of an address; without one it needs no socket.
func (r *rig) connectTo(url, service, instance string, c bus.Clock) *bus.Bus {
	r.t.Helper()
	signer, err := r.keys.Signer(service)
	if err != nil {
		r.t.Fatal(err)
	}
	o := bus.Options{
		Embedded: r.server, URL: url, Keyring: r.keys.Keyring, Log: slog.New(slog.DiscardHandler),
		Identity: bus.Identity{Service: service, Instance: instance, Signer: signer, Clock: c},
	}
	if url != "" {
		o.Embedded = nil
	}
	b, err := bus.Connect(r.t.Context(), o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(b.Close)
	return b
}

// observe runs an observer until the returned function is called or the test ends.
func (r *rig) observe(instance string, mod ...func(*observer.Config)) (stop func()) {
	r.t.Helper()
	cancel, wait := r.run(instance, mod...)
	return func() { cancel(); wait() }
}

// run runs an observer until cancel is called or the test ends; wait waits for
// its end.
func (r *rig) run(instance string, mod ...func(*observer.Config)) (cancel, wait func()) {
	r.t.Helper()
	c := observer.Config{
		Bus: r.connect(event.Observer, instance, clock.System()), Registry: target.NewRegistry(r.fake),
		Log: slog.New(slog.NewTextHandler(r.t.Output(), nil)).With("observer", instance), Clock: clock.System(),
	}
	for _, m := range mod {
		m(&c)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- observer.Run(ctx, c) }()
	wait = sync.OnceFunc(func() {
		if err := <-done; err != nil {
			r.t.Errorf("observer %s: %v", instance, err)
		}
	})
	r.t.Cleanup(func() { cancel(); wait() })
	return cancel, wait
}

const phaseName = "p"

// aPhase is a phase with times that suit a test.
func aPhase() drill.Phase {
	ms := func(n int) event.Duration { return event.Duration(n) * event.Duration(time.Millisecond) }
	return drill.Phase{
		Name: phaseName, Objective: drill.Objective{RTO: ms(10_000)},
		Probes: []drill.Probe{
			{Name: "w", Target: "t", Probe: "write", Interval: ms(40), Burst: ms(10), Fresh: ms(50), Deadline: ms(200)},
			{Name: "r", Target: "t", Probe: "read", Interval: ms(40), Burst: ms(20), Fresh: ms(50), Deadline: ms(200)},
		},
		SteadyState: drill.SteadyState{Window: ms(500), Timeout: ms(10_000)},
		Faults:      []drill.Fault{{Name: "break", Target: "t", Fault: "break"}},
		Recovery:    []drill.Action{{Name: "mend", Target: "t", Action: "mend"}},
		Stable:      drill.Stable{Window: ms(600), Timeout: ms(15_000)},
		Checks:      []drill.Check{{Name: "ledger", Target: "t", Check: "ledger"}},
		Restore:     drill.Restore{Checks: []drill.Check{{Name: "ledger", Target: "t", Check: "ledger"}}},
	}
}

// play is one drill, whose injector is the test.
type play struct {
	r    *rig
	id   string
	mu   sync.Mutex
	seen []bus.Stored
	more chan struct{}
}

// accept stores a drill with the phases and follows its history.
func (r *rig) accept(id string, phases ...drill.Phase) *play {
	r.t.Helper()
	d := drill.WithDefaults(drill.Drill{
		APIVersion: drill.APIVersion, Kind: drill.Kind, Metadata: drill.Metadata{Name: id},
		Spec: drill.Spec{Targets: []drill.Target{
			{Name: "t", Driver: "fake", Config: json.RawMessage(`{}`)}, {Name: "u", Driver: "fake", Config: json.RawMessage(`{}`)},
		}, Phases: phases},
	})
	spec, err := json.Marshal(d)
	if err != nil {
		r.t.Fatal(err)
	}
	p := &play{r: r, id: id, more: make(chan struct{}, 1)}
	p.say(event.TypeDrillAccepted, event.DrillAccepted{Requester: "me", Spec: spec})
	p.say(event.TypeLeaseTaken, event.LeaseTaken{Holder: "i1", Epoch: 1})
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	follower := r.inject
	go func() {
		defer close(done)
		_ = follower.Follow(ctx, id, func(s bus.Stored) error { // ends with the test
			p.mu.Lock()
			p.seen = append(p.seen, s)
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	r.t.Cleanup(func() { cancel(); <-done })
	return p
}

// say appends an event of the injector.
func (p *play) say(t event.Type, data any) bus.Stored {
	p.r.t.Helper()
	return p.sayAs(p.r.inject, t, data)
}

func (p *play) sayAs(b *bus.Bus, t event.Type, data any) bus.Stored {
	p.r.t.Helper()
	st, err := b.Append(p.r.t.Context(), p.id, event.Draft{Type: t, Data: data})
	if err != nil {
		p.r.t.Fatalf("append %s: %v", t, err)
	}
	return st[0]
}

func (p *play) history() []bus.Stored {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]bus.Stored(nil), p.seen...)
}

// await waits until an event fits and returns the first such.
func (p *play) await(what string, fits func(payload any) bool) bus.Stored {
	p.r.t.Helper()
	deadline := time.After(30 * time.Second)
	for from := 0; ; {
		h := p.history()
		for ; from < len(h); from++ {
			if fits(h[from].Payload) {
				return h[from]
			}
		}
		select {
		case <-p.more:
		case <-deadline:
			p.r.t.Fatalf("no %s within 30 s; so far: %s", what, kinds(h))
		}
	}
}

// await waits for an event with a payload of type P that fits.
func await[P any](p *play, what string, fits func(*P) bool) *P {
	p.r.t.Helper()
	st := p.await(what, func(payload any) bool {
		x, ok := payload.(*P)
		return ok && (fits == nil || fits(x))
	})
	return st.Payload.(*P)
}

func kinds(h []bus.Stored) string {
	out := ""
	for _, s := range h {
		if s.Event.Type != event.TypeProbeBatch {
			out += " " + string(s.Event.Type)
		}
	}
	return fmt.Sprintf("%d events:%s", len(h), out)
}

// count is how many events so far have a payload of type P that fits.
func count[P any](p *play, fits func(*P) bool) int {
	n := 0
	for _, s := range p.history() {
		if x, ok := s.Payload.(*P); ok && (fits == nil || fits(x)) {
			n++
		}
	}
	return n
}

func step(kind drill.StepKind, name string) string { return drill.StepID(phaseName, kind, name) }

// begin takes the drill to its steady state.
func (p *play) begin() {
	p.r.t.Helper()
	p.say(event.TypePhaseStarted, event.PhaseStarted{Phase: phaseName})
	p.say(event.TypeBaselineRequested, event.BaselineRequested{Step: step(drill.StepBaseline, "")})
	p.sayAs(p.r.connect(event.Validator, "v1", clock.System()), event.TypeBaselineRecorded, event.BaselineRecorded{Step: step(drill.StepBaseline, "")})
	p.askSteady(drill.Before)
}

func (p *play) askSteady(moment string) *event.SteadyEstablished {
	p.r.t.Helper()
	id := step(drill.StepSteady, moment)
	p.say(event.TypeSteadyRequested, event.SteadyRequested{Step: id})
	return await(p, "steady.established", func(e *event.SteadyEstablished) bool { return e.Step == id })
}

// hit injects the phase's fault by setting the service's behaviour.
func (p *play) hit(a func(context.Context, target.ProbeSpec, int64) target.Outcome) {
	p.r.t.Helper()
	id := step(drill.StepFault, "break")
	p.say(event.TypeFaultIntended, event.FaultIntended{Effect: event.Effect{Step: id, Target: "t", Operation: "break"}})
	f0 := clock.System().Now()
	p.r.fake.set(a)
	p.say(event.TypeFaultInjected, event.FaultInjected{Step: id, F0: f0, F1: clock.System().Now(), Proof: event.Proof{Proven: true, How: "test"}})
}

// mend takes the phase's recovery action.
func (p *play) mend() {
	p.r.t.Helper()
	id := step(drill.StepRecovery, "mend")
	p.say(event.TypeActionIntended, event.ActionIntended{Effect: event.Effect{Step: id, Target: "t", Operation: "mend"}})
	now := clock.System().Now()
	p.r.fake.set(nil)
	p.say(event.TypeActionDone, event.ActionDone{Step: id, Began: now, Ended: clock.System().Now()})
}

// cut asks for checks and returns the observer's cut.
func (p *play) cut(moment string) *event.LedgerCut {
	p.r.t.Helper()
	id := step(drill.StepChecks, moment)
	p.say(event.TypeChecksRequested, event.ChecksRequested{Step: id})
	return await(p, "ledger.cut", func(e *event.LedgerCut) bool { return e.Step == id })
}

// finish ends the phase and the drill, and publishes its report.
func (p *play) finish() {
	p.r.t.Helper()
	p.say(event.TypePhaseFinished, event.PhaseFinished{Phase: phaseName, Complete: true})
	p.say(event.TypeDrillFinished, event.DrillFinished{Complete: true})
}

func (p *play) publish() {
	p.r.t.Helper()
	p.sayAs(p.r.report, event.TypeReportPublished, event.ReportPublished{Verdict: "PASS"})
}

// lanes unpacks what was published, which fails on any gap or overlap.
func (p *play) lanes() map[string]verdict.Lane {
	p.r.t.Helper()
	var batches []event.ProbeBatch
	for _, s := range p.history() {
		if b, ok := s.Payload.(*event.ProbeBatch); ok {
			batches = append(batches, *b)
		}
	}
	lanes, err := verdict.LanesFromBatches(batches)
	if err != nil {
		p.r.t.Fatalf("the published attempts: %v", err)
	}
	out := map[string]verdict.Lane{}
	for _, l := range lanes {
		out[fmt.Sprintf("%s/%s/%s/%d", l.Phase, l.Probe, l.Name, l.Epoch)] = l
	}
	return out
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if cond() {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Fatalf("not within 20 s: %s", what)
}

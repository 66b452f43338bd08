package injector

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/target"
)

// fakeDriver shows what a real server cannot be made to do on demand: hang,
// fail, panic. It counts what was done.
type fakeDriver struct {
	mu     sync.Mutex
	faults map[string]int
	broken map[string]bool
	// system is the identity of its targets.
	system string
	// anonymous driver's targets cannot say which system they are.
	anonymous bool
	// opened are the configurations that targets were opened with.
	opened []string
	// do is called by Do, undo by Undo, and so on; nil means success.
	do    func(ctx context.Context, op target.Operation) error
	undo  func(ctx context.Context, op target.Operation) error
	plan  func(op target.Operation) error
	check func(config json.RawMessage) error
	// identify is called by Identify, survey by Survey.
	identify func()
	survey   func(ctx context.Context, ops []target.Operation) error
}

func newFakeDriver() *fakeDriver {
	return &fakeDriver{faults: map[string]int{}, broken: map[string]bool{}, system: "fake/1"}
}

func (d *fakeDriver) Name() string { return "fake" }

func (d *fakeDriver) Check(config json.RawMessage) error {
	if d.check == nil {
		return nil
	}
	return d.check(config)
}

func (d *fakeDriver) Describe() target.Description {
	return target.Description{
		Faults:  []target.OperationInfo{{Name: "break"}},
		Actions: []target.OperationInfo{{Name: "mend"}},
		Probes:  []target.OperationInfo{{Name: "write", Writes: true}, {Name: "read"}},
		Checks:  []target.OperationInfo{{Name: "look"}},
	}
}

func (d *fakeDriver) Open(_ context.Context, c target.Config) (*target.Target, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened = append(d.opened, string(c.Raw))
	if d.anonymous {
		return &target.Target{Injector: d}, nil
	}
	return &target.Target{Injector: d, Identity: d}, nil
}

func (d *fakeDriver) Identify(context.Context) (string, error) {
	if d.identify != nil {
		d.identify()
	}
	if d.system == "" {
		return "", errFake
	}
	return d.system, nil
}

func (d *fakeDriver) Survey(ctx context.Context, ops []target.Operation) (target.Survey, error) {
	sv := target.Survey{Parts: []event.Part{{ID: "fake:1", Kind: "thing"}, {ID: "fake:2", Kind: "thing", Labels: map[string]string{"role": "spare"}}}}
	if d.survey == nil {
		return sv, nil
	}
	return sv, d.survey(ctx, ops)
}

func (d *fakeDriver) Plan(_ context.Context, op target.Operation) (target.Plan, error) {
	if d.plan != nil {
		if err := d.plan(op); err != nil {
			return target.Plan{}, err
		}
	}
	return target.Plan{Parts: []event.Part{{ID: "fake:1", Kind: "thing"}}, Does: []string{"does " + op.Name}, Undo: json.RawMessage(`{"home":1}`), Undoes: "puts it back"}, nil
}

func (d *fakeDriver) Do(ctx context.Context, op target.Operation, _ target.Plan) (target.Effect, error) {
	began := clock.System().Now()
	d.mu.Lock()
	d.broken[op.Step] = true
	d.faults[op.Step]++
	d.mu.Unlock()
	if d.do != nil {
		if err := d.do(ctx, op); err != nil {
			return target.Effect{Began: began, Ended: clock.System().Now()}, err
		}
	}
	return target.Effect{Began: began, Ended: clock.System().Now(), Proof: event.Proof{Proven: true, How: "it said so"}}, nil
}

func (d *fakeDriver) Undo(ctx context.Context, op target.Operation, _ json.RawMessage) (map[string]string, error) {
	if d.undo != nil {
		if err := d.undo(ctx, op); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.broken, op.Step)
	return map[string]string{"done": "yes"}, nil
}

func (d *fakeDriver) stillBroken() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.broken)
}

// rig is a NATS server, keys, and the other services played by a script.
type rig struct {
	t      *testing.T
	server *bus.Embedded
	ring   *keys.Set
	dir    string
	bus    *bus.Bus // as the test's reader
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	ring, err := keys.LoadOrCreate(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := bus.StartEmbedded(bus.EmbeddedOptions{StoreDir: filepath.Join(dir, "nats"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	r := &rig{t: t, server: server, ring: ring, dir: dir}
	r.bus = r.connect("cli", "test")
	if err := r.bus.Bootstrap(t.Context(), bus.BootstrapOptions{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) connect(service, instance string) *bus.Bus {
	r.t.Helper()
	id := bus.Identity{Service: service, Instance: instance, Clock: clock.System()}
	if service != "cli" {
		signer, err := r.ring.Signer(service)
		if err != nil {
			r.t.Fatal(err)
		}
		id.Signer = signer
	}
	b, err := bus.Connect(r.t.Context(), bus.Options{Embedded: r.server, Identity: id, Keyring: r.ring.Keyring, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(b.Close)
	return b
}

// inject runs an injector, which lets drills bring everything, until the returned
// function is called or the test ends.
func (r *rig) inject(instance string, d target.Driver, ttl time.Duration) (stop func()) {
	r.t.Helper()
	return r.injectFrom(drill.OpenInventory(), instance, d, ttl)
}

func (r *rig) injectFrom(inv drill.Inventory, instance string, d target.Driver, ttl time.Duration) (stop func()) {
	r.t.Helper()
	return r.injectWith(Config{Registry: target.NewRegistry(d), Inventory: inv, Clock: clock.System(), LeaseTTL: ttl}, instance)
}

// injectWith fills in the bus and the log.
func (r *rig) injectWith(c Config, instance string) (stop func()) {
	r.t.Helper()
	c.Bus = r.connect(event.Injector, instance)
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	c.Log = cmp.Or(c.Log, r.log()).With("instance", instance)
	go func() { done <- Run(ctx, c) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("injector %s: %v", instance, err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// playOthers answers what the injector asks the observer, validator and mirror,
// until the drill is finished. It returns the history.
func (r *rig) playOthers(id string, each func(bus.Stored)) []bus.Stored {
	r.t.Helper()
	observer, validator := r.connect(event.Observer, "o"), r.connect(event.Validator, "v")
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	var history []bus.Stored
	answer := func(b *bus.Bus, t event.Type, data any) error {
		_, err := b.Append(ctx, id, event.Draft{Type: t, Data: data})
		return err
	}
	err := r.bus.Follow(ctx, id, func(s bus.Stored) error {
		history = append(history, s)
		if each != nil {
			each(s)
		}
		switch p := s.Payload.(type) {
		case *event.BaselineRequested:
			return answer(validator, event.TypeBaselineRecorded, event.BaselineRecorded{Step: p.Step})
		case *event.SteadyRequested:
			return answer(observer, event.TypeSteadyEstablished, event.SteadyEstablished{Step: p.Step})
		case *event.ActionDone:
			if p.Step == "p/recovery/mend" {
				return answer(observer, event.TypeRecoveryStable, event.RecoveryStable{Step: "p/settle"})
			}
		case *event.ChecksRequested:
			return answer(validator, event.TypeChecksCompleted, event.ChecksCompleted{Step: p.Step, Passed: true})
		case *event.DrillFinished:
			return bus.Stop
		}
		return nil
	})
	if err != nil {
		r.t.Fatalf("drill %s: %v; so far: %v", id, err, types(history))
	}
	return history
}

func types(h []bus.Stored) []event.Type {
	out := make([]event.Type, len(h))
	for i, s := range h {
		out[i] = s.Event.Type
	}
	return out
}

const fakeDrill = `
apiVersion: firedrill/v1
kind: Drill
metadata: {name: d}
spec:
  targets: [{name: t, driver: fake, config: {}}]
  phases:
    - name: p
      objective: {rto: 1m}
      probes: [{name: w, target: t, probe: write}]
      faults: [{name: break, target: t, fault: break}]
      recovery: [{name: mend, target: t, action: mend}]
      checks: [{name: look, target: t, check: look}]
`

// ask publishes a drill and returns the answer to it.
func (r *rig) ask(raw string) Result {
	r.t.Helper()
	ack, err := r.bus.Publish(r.t.Context(), "drill.req.me.d", []byte(raw), "")
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 15*time.Second)
	defer cancel()
	var out Result
	err = r.bus.FollowResults(ctx, "me", "d", func(data []byte) error {
		out = Result{} // an earlier answer leaves nothing in it
		if err := json.Unmarshal(data, &out); err != nil {
			return err
		}
		if out.Request.Sequence == ack.Seq {
			return bus.Stop
		}
		return nil
	})
	if err != nil {
		r.t.Fatalf("no answer to the request: %v", err)
	}
	return out
}

func (r *rig) accepted(raw string) string {
	r.t.Helper()
	res := r.ask(raw)
	if res.State != "accepted" {
		r.t.Fatalf("answer: %+v", res)
	}
	return res.Drill
}

// outcome folds a history and checks what must hold after any drill.
func (r *rig) outcome(history []bus.Stored, d *fakeDriver) drill.State {
	r.t.Helper()
	raws := make([][]byte, len(history))
	for i, h := range history {
		raws[i] = h.Raw
	}
	if v := event.VerifyHistory(raws, r.ring.Keyring); len(v.Findings) > 0 {
		r.t.Fatalf("the history does not verify: %+v", v)
	}
	st := fold(history)
	if st.Finished == nil {
		r.t.Fatal("not finished")
	}
	if n := d.stillBroken(); n > 0 && len(st.Finished.Outstanding) == 0 {
		r.t.Fatalf("%d effects are still there and not named as outstanding", n)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.faults["p/fault/break"]; n > 1 {
		r.t.Fatalf("the fault was injected %d times", n)
	}
	return st
}

var errFake = errors.New("the fake says no")

func fakeError(op target.Operation, step string) error {
	if op.Step == step {
		return fmt.Errorf("%s: %w", step, errFake)
	}
	return nil
}

func (r *rig) log() *slog.Logger { return slog.New(slog.NewTextHandler(r.t.Output(), nil)) }

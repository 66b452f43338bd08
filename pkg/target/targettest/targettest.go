// Package targettest is the contract that every driver passes, run against its
// real server. A driver's own tests describe the server in a Harness; what the
// roles promise in package target is checked here, once for all.
package targettest

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// Harness is a driver with a real server to try it on.
type Harness struct {
	Driver target.Driver
	// Config is a configuration of the server, healthy when Run begins.
	Config json.RawMessage
	// Secrets are the values behind the configuration's references: they must
	// appear in no record, error, property or artifact.
	Secrets []string
	// Bad are broken configurations.
	Bad []Bad
	// Blocked are configurations with which the faults could be injected and not all of
	// them be undone, or not be seen by the probes: no drill may begin with one.
	Blocked []Bad
	// Aliases are other configurations of the same system: its parts named
	// otherwise, listed in another order, reached by other ways. They must have
	// the identity of Config. A driver that injects has at least one.
	Aliases []json.RawMessage
	// Healthy returns nil when the server is as it should be, and says what is
	// missing otherwise. It is polled after each undo.
	Healthy func(context.Context) error
	// Snapshot describes what a plan must not change.
	Snapshot func(context.Context) (string, error)
	Faults   []Fault
	// Write and Read name the probes; Read may be empty. ReadParams makes the
	// read probe's parameters for a write probe's name in the drill.
	Write, Read string
	ReadParams  func(of string) json.RawMessage
	// Hang names the fault under which the server accepts and never answers.
	Hang string
	// Duplicate stores a canary once more, past the driver.
	Duplicate func(ctx context.Context, ledger string, seq int64) error
	// Checks must pass on the healthy server, before and after.
	Checks []Check
}

// Bad is a broken configuration and the field that must be named.
type Bad struct {
	Name   string
	Config json.RawMessage
	Field  string
}

// Fault is a fault to try, with what shows that it is there.
type Fault struct {
	Name   string
	Params json.RawMessage
	// Broken returns nil while the effect shows.
	Broken func(context.Context) error
	// Outage is true when no write may succeed under it.
	Outage bool
	// DeadMan is true when the target must undo it by itself.
	DeadMan bool
}

// Check is a check to try.
type Check struct {
	Name   string
	Params json.RawMessage
}

// patience bounds every wait of the suite.
const patience = 60 * time.Second

const drill = "contract-0123456789"

// suite is a harness in use.
type suite struct {
	Harness
}

// Run runs the whole contract as subtests, one after the other.
func Run(t *testing.T, h Harness) {
	t.Helper()
	s := suite{h}
	t.Run("description", s.description)
	t.Run("configuration", s.configuration)
	s.expectHealthy(t)
	t.Run("identity", s.identity)
	t.Run("checks before", s.checks)
	t.Run("evidence", s.evidence)
	t.Run("probes", s.probes)
	t.Run("ledger", s.ledger)
	t.Run("unknown names", s.unknown)
	t.Run("survey", s.survey)
	for _, f := range h.Faults {
		t.Run("fault "+f.Name, func(t *testing.T) { s.fault(t, f) })
	}
	t.Run("checks after", s.checks)
	t.Run("close", s.closes)
}

func (s suite) ctx(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// open opens the target as a fresh process would.
func (s suite) open(t *testing.T) *target.Target {
	t.Helper()
	tg, err := s.Driver.Open(t.Context(), target.Config{Name: "contract", Raw: s.Config, Clock: clock.System()})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := tg.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return tg
}

func (s suite) noSecrets(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range s.Secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s holds a secret", where)
		}
	}
}

// eventually waits for f to return nil.
func eventually(t *testing.T, ctx context.Context, what string, f func(context.Context) error) {
	t.Helper()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited for %s: %v", what, err)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func (s suite) expectHealthy(t *testing.T) {
	t.Helper()
	eventually(t, s.ctx(t), "a healthy server", s.Healthy)
}

func (s suite) description(t *testing.T) {
	d := s.Driver.Describe()
	if s.Driver.Name() == "" || d.Sample == "" {
		t.Error("a driver has a name and a sample configuration")
	}
	for _, list := range [][]target.OperationInfo{d.Faults, d.Actions, d.Probes, d.Checks} {
		seen := map[string]bool{}
		for _, o := range list {
			if o.Name == "" || o.Doc == "" || seen[o.Name] {
				t.Errorf("operation %q: needs a name of its own and a word of documentation", o.Name)
			}
			seen[o.Name] = true
			if o.CheckParams == nil {
				continue
			}
			err := o.CheckParams(json.RawMessage(`{"no-such-parameter": 1}`))
			if e, ok := errors.AsType[*target.FieldError](err); !ok || !strings.Contains(e.Field, "no-such-parameter") {
				t.Errorf("operation %s takes an unknown parameter: %v", o.Name, err)
			}
		}
	}
}

func (s suite) configuration(t *testing.T) {
	if err := s.Driver.Check(s.Config); err != nil {
		t.Fatalf("a good configuration is refused: %v", err)
	}
	var m map[string]any
	if err := json.Unmarshal(s.Config, &m); err != nil {
		t.Fatal(err)
	}
	m["no-such-field"] = 1
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range append([]Bad{
		{"unknown field", raw, "no-such-field"}, {"not a mapping", json.RawMessage(`[1]`), ""}, {"broken", json.RawMessage(`{`), ""},
	}, s.Bad...) {
		t.Run(b.Name, func(t *testing.T) {
			err := s.Driver.Check(b.Config)
			if err == nil {
				t.Fatal("it is taken")
			}
			e, ok := errors.AsType[*target.FieldError](err)
			if !ok || e.Fix == "" {
				t.Fatalf("not a FieldError with a fix: %v", err)
			}
			if !strings.Contains(err.Error(), b.Field) {
				t.Fatalf("it does not name %s: %v", b.Field, err)
			}
			if _, err := s.Driver.Open(t.Context(), target.Config{Name: "bad", Raw: b.Config, Clock: clock.System()}); err == nil {
				t.Error("it can be opened")
			}
		})
	}
}

func (s suite) unknown(t *testing.T) {
	tg, ctx := s.open(t), s.ctx(t)
	_, err := tg.Injector.Plan(ctx, target.Operation{Drill: drill, Step: "x", Name: "no-such"})
	wantUnsupported(t, "plan", err)
	_, err = tg.Injector.Do(ctx, target.Operation{Drill: drill, Step: "x", Name: "no-such"}, target.Plan{})
	wantUnsupported(t, "do", err)
	_, err = tg.Observer.OpenProbe(ctx, target.ProbeSpec{Drill: drill, Probe: "no-such", Name: "x", Lane: target.LaneFresh})
	wantUnsupported(t, "probe", err)
	_, err = tg.Checker.Check(ctx, target.CheckSpec{Drill: drill, Check: "no-such"}, nil)
	wantUnsupported(t, "check", err)
	if _, err := tg.Injector.Undo(ctx, target.Operation{}, json.RawMessage(`{}`)); err == nil {
		t.Error("an empty undo record is taken")
	}
}

func wantUnsupported(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, target.ErrUnsupported) {
		t.Errorf("%s of an unknown name: %v, want ErrUnsupported", what, err)
	}
}

func (s suite) checks(t *testing.T) {
	tg, ctx := s.open(t), s.ctx(t)
	infos := map[string]target.OperationInfo{}
	for _, o := range s.Driver.Describe().Checks {
		infos[o.Name] = o
	}
	for _, c := range s.Checks {
		spec := target.CheckSpec{Drill: drill, Step: "contract", Check: c.Name, Name: c.Name, Params: c.Params}
		baseline, err := tg.Checker.Baseline(ctx, spec)
		if err != nil {
			t.Errorf("baseline of %s: %v", c.Name, err)
			continue
		}
		props, err := tg.Checker.Check(ctx, spec, baseline)
		if err != nil || len(props) == 0 {
			t.Errorf("check %s: %d properties, %v", c.Name, len(props), err)
		}
		for _, p := range props {
			if p.Name == "" || p.Found == "" || p.Result != event.ResultPass && p.Result != event.ResultInfo {
				t.Errorf("check %s on a healthy server: %+v", c.Name, p)
			}
			s.noSecrets(t, "check "+c.Name, p.Found+p.Wanted+strings.Join(p.Samples, "\n"))
		}
		s.noSecrets(t, "baseline of "+c.Name, string(baseline))
		if !infos[c.Name].NeedsBaseline || len(baseline) == 0 || string(baseline) == "null" {
			continue
		}
		props, err = tg.Checker.Check(ctx, spec, nil)
		if err != nil {
			t.Errorf("check %s without a baseline: %v", c.Name, err)
		}
		if !hasResult(props, event.ResultInconclusive) {
			t.Errorf("check %s without a baseline is not inconclusive: %+v", c.Name, props)
		}
	}
}

func hasResult(props []event.Property, result string) bool {
	for _, p := range props {
		if p.Result == result {
			return true
		}
	}
	return false
}

func (s suite) evidence(t *testing.T) {
	items, err := s.open(t).Evidence.Collect(s.ctx(t))
	if err != nil || len(items) == 0 {
		t.Fatalf("%d artifacts, %v", len(items), err)
	}
	for _, a := range items {
		if a.Name == "" || a.Text == "" {
			t.Errorf("empty artifact %q", a.Name)
		}
		s.noSecrets(t, "artifact "+a.Name, a.Text)
	}
}

// closes opens a target with lanes, uses them, closes, and looks for leftovers.
func (s suite) closes(t *testing.T) {
	before := goleak.IgnoreCurrent()
	tg, err := s.Driver.Open(t.Context(), target.Config{Name: "close", Raw: s.Config, Clock: clock.System()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := s.ctx(t)
	for _, lane := range []string{target.LanePooled, target.LaneFresh} {
		p, err := tg.Observer.OpenProbe(ctx, s.spec("close", lane))
		if err != nil {
			t.Fatal(err)
		}
		if o := p.Attempt(ctx, 1); o.Result != target.OK {
			t.Fatalf("attempt: %+v", o)
		}
	}
	if err := tg.Observer.DropLedgers(ctx, drill); err != nil {
		t.Error(err)
	}
	if err := tg.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := goleak.Find(before); err != nil {
		t.Errorf("after close: %v", err)
	}
}

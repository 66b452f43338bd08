package validator

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// onCut runs a step's checks once the observer has settled its ledgers.
func (c Config) onCut(ctx context.Context, m bus.Message) error {
	st, err := m.Event()
	if err != nil {
		return bus.Poison(err)
	}
	cut, ok := st.Payload.(*event.LedgerCut)
	if !ok {
		return bus.Poison(fmt.Errorf("%s is not a ledger cut", st.Event.Type))
	}
	id := st.Event.Subject
	v, err := c.load(ctx, id)
	if err != nil {
		return err
	}
	phase, err := v.phase(cut.Step)
	if err != nil {
		return bus.Poison(err)
	}
	if v.completed[cut.Step] || !v.open[phase.Name] {
		return nil
	}
	s := stepRun{c: c, id: id, view: v, phase: phase, cut: cut}
	if err := s.checks(ctx); err != nil {
		return err
	}
	return s.complete(ctx)
}

// stepRun is one run of a step's checks.
type stepRun struct {
	c     Config
	id    string
	view  view
	phase drill.Phase
	cut   *event.LedgerCut
}

// checks runs what has no result yet, and stores each result as soon as it is there.
func (s *stepRun) checks(ctx context.Context) error {
	var todo []drill.Check
	for _, k := range checks(s.phase, s.cut.Step) {
		if s.view.checked[s.cut.Step][k.Name] == nil {
			todo = append(todo, k)
		}
	}
	var mu sync.Mutex
	var errs []error
	s.c.perTarget(ctx, s.view.drill, todo, func(k drill.Check, t *target.Target, err error) {
		out := s.check(ctx, k, t, err)
		if ctx.Err() != nil {
			return // cut short by the end of the process, which says nothing about the data
		}
		err = s.c.say(ctx, s.id, func(v view) bool { return v.checked[s.cut.Step][k.Name] != nil },
			event.Draft{Type: event.TypeCheckCompleted, Data: out})
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	})
	return errors.Join(append(errs, ctx.Err())...)
}

// complete closes the step with what all its results come to.
func (s *stepRun) complete(ctx context.Context) error {
	v, err := s.c.load(ctx, s.id)
	if err != nil {
		return err
	}
	passed := true
	for _, k := range checks(s.phase, s.cut.Step) {
		got := v.checked[s.cut.Step][k.Name]
		if got == nil {
			if v.published {
				return nil
			}
			return fmt.Errorf("check %s of step %s has no result", k.Name, s.cut.Step)
		}
		passed = passed && passes(got.Properties)
	}
	return s.c.say(ctx, s.id, func(v view) bool { return v.completed[s.cut.Step] },
		event.Draft{Type: event.TypeChecksCompleted, Data: event.ChecksCompleted{Step: s.cut.Step, Passed: passed}})
}

// passes is true when every property passed; having none is not passing.
func passes(ps []event.Property) bool {
	for _, p := range ps {
		if p.Result != event.ResultPass && p.Result != event.ResultInfo {
			return false
		}
	}
	return len(ps) > 0
}

// check makes one check. Whatever keeps it from being made is its result.
func (s *stepRun) check(ctx context.Context, k drill.Check, t *target.Target, opened error) event.CheckCompleted {
	out := event.CheckCompleted{Step: s.cut.Step, Check: k.Name, Target: k.Target, Kind: k.Check, Began: s.c.Clock.Now()}
	var err error
	switch {
	case opened != nil:
		err = opened
	case k.Check == kindLedger:
		out.Properties, out.Ledgers, err = s.ledger(ctx, k, t)
	default:
		out.Properties, err = s.byDriver(ctx, k, t)
	}
	if err != nil {
		out.Properties = append(out.Properties, inconclusive(k.Check, err.Error()))
	}
	if len(out.Properties) == 0 {
		out.Properties = []event.Property{inconclusive(k.Check, "the check said nothing")}
	}
	for i := range out.Properties {
		out.Properties[i] = tidy(out.Properties[i])
	}
	out.Ended = s.c.Clock.Now()
	return out
}

func inconclusive(name, why string) event.Property {
	return event.Property{Name: name, Result: event.ResultInconclusive, Found: why}
}

// maxSamples and maxFound keep results readable, and small enough for an event.
const (
	maxSamples = 20
	maxFound   = 2000
)

// tidy brings a driver's property into the form that readers rely on.
func tidy(p event.Property) event.Property {
	switch p.Result {
	case event.ResultPass, event.ResultFail, event.ResultInconclusive, event.ResultInfo:
	default:
		p.Found = fmt.Sprintf("the driver gave the unknown result %q: %s", p.Result, p.Found)
		p.Result = event.ResultInconclusive
	}
	if p.Found == "" {
		p.Found = "nothing was said"
	}
	p.Found = head(p.Found, maxFound)
	if len(p.Samples) > maxSamples {
		p.Samples = p.Samples[:maxSamples:maxSamples]
	}
	for i := range p.Samples {
		p.Samples[i] = head(p.Samples[i], maxFound)
	}
	return p
}

// byDriver makes a check of the driver's own.
func (s *stepRun) byDriver(ctx context.Context, k drill.Check, t *target.Target) ([]event.Property, error) {
	info, ok := target.Find(t.Driver.Describe().Checks, k.Check)
	if !ok || t.Checker == nil {
		return nil, fmt.Errorf("driver %s has no check %q", t.Driver.Name(), k.Check)
	}
	spec := target.CheckSpec{Drill: s.id, Step: s.cut.Step, Check: k.Check, Name: k.Name, Params: k.Params}
	var base []byte
	if info.NeedsBaseline {
		rec := s.view.baselines[drill.StepID(s.phase.Name, drill.StepBaseline, "")]
		if rec == nil || rec.Checks[k.Name] == nil {
			return nil, fmt.Errorf("no baseline was recorded before the fault%s", whyNoBaseline(rec, k.Name))
		}
		base = rec.Checks[k.Name]
	}
	return target.Call(ctx, s.c.CheckTime, "check", func(ctx context.Context) ([]event.Property, error) {
		return t.Checker.Check(ctx, spec, base)
	}, nil)
}

package validator

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// kindLedger is the check that is built in: canaries against what is there.
const kindLedger = "ledger"

// onBaseline records what the phase's checks compare with later.
func (c Config) onBaseline(ctx context.Context, m bus.Message) error {
	st, err := m.Event()
	if err != nil {
		return bus.Poison(err)
	}
	p, ok := st.Payload.(*event.BaselineRequested)
	if !ok {
		return bus.Poison(fmt.Errorf("%s is not a request for a baseline", st.Event.Type))
	}
	id := st.Event.Subject
	v, err := c.load(ctx, id)
	if err != nil {
		return err
	}
	phase, err := v.phase(p.Step)
	if err != nil {
		return bus.Poison(err)
	}
	said := func(v view) bool { return v.baselines[p.Step] != nil || !v.open[phase.Name] }
	if said(v) {
		return nil
	}
	out := event.BaselineRecorded{Step: p.Step, Checks: map[string]json.RawMessage{}}
	var mu sync.Mutex
	c.perTarget(ctx, v.drill, checks(phase, p.Step), func(k drill.Check, t *target.Target, err error) {
		base, needed, err := c.baseline(ctx, id, p.Step, k, t, err)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			out.Problems = append(out.Problems, fmt.Sprintf("%s: %v", k.Name, err))
		case needed:
			out.Checks[k.Name] = base
		}
	})
	if ctx.Err() != nil {
		return ctx.Err() // the process stops; another one starts over
	}
	slices.Sort(out.Problems)
	return c.say(ctx, id, said, event.Draft{Type: event.TypeBaselineRecorded, Data: out})
}

// baseline asks the driver for one check's baseline, where it needs one.
func (c Config) baseline(ctx context.Context, id, step string, k drill.Check, t *target.Target, opened error) (json.RawMessage, bool, error) {
	if k.Check == kindLedger {
		return nil, false, nil
	}
	if opened != nil {
		return nil, false, opened
	}
	info, ok := target.Find(t.Driver.Describe().Checks, k.Check)
	if !ok || t.Checker == nil {
		return nil, false, fmt.Errorf("driver %s has no check %q", t.Driver.Name(), k.Check)
	}
	if !info.NeedsBaseline {
		return nil, false, nil
	}
	base, err := target.Call(ctx, c.CheckTime, "baseline", func(ctx context.Context) (json.RawMessage, error) {
		return t.Checker.Baseline(ctx, target.CheckSpec{Drill: id, Step: step, Check: k.Check, Name: k.Name, Params: k.Params})
	}, nil)
	if err == nil && !json.Valid(base) {
		err = fmt.Errorf("baseline: driver %s returned something that is not JSON", t.Driver.Name())
	}
	return base, true, err
}

// perTarget calls fn for every check, target beside target and one after the
// other within one. fn gets the error where the target could not be opened.
func (c Config) perTarget(ctx context.Context, d drill.Drill, ks []drill.Check, fn func(k drill.Check, t *target.Target, err error)) {
	byTarget := map[string][]drill.Check{}
	for _, k := range ks {
		byTarget[k.Target] = append(byTarget[k.Target], k)
	}
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for name, group := range byTarget {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t, err := c.openTarget(ctx, d, name)
			for _, k := range group {
				fn(k, t, err)
			}
			if err == nil {
				if err := t.Release(ctx); err != nil {
					c.Log.WarnContext(ctx, "a target did not close cleanly", "target", name, "error", err)
				}
			}
		})
	}
	wg.Wait()
}

package injector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// surveyTime bounds the look at one target: what answers no faster than that would not
// be undone in any reasonable time either.
const surveyTime = 30 * time.Second

// survey looks at every target for all that the drill, and undoing it, will need there,
// and whether its protect list protects anything.
func (e *effects) survey(ctx context.Context, s drill.State, now event.Reading) drill.Surveyed {
	targets := s.Drill.Spec.Targets
	found, errs := make([]target.Survey, len(targets)), make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			errs[i] = safely(e.log, theDriver, func() (err error) {
				found[i], err = e.surveyTarget(ctx, s, t.Name, now)
				return err
			})
			errs[i] = target.InTarget(t.Name, errs[i])
		})
	}
	wg.Wait()
	if e.Room != nil {
		errs = append(errs, e.Room())
	}
	if err := errors.Join(errs...); err != nil {
		return drill.Surveyed{Problem: err.Error()}
	}
	var parts []event.Part
	for _, f := range found {
		parts = append(parts, f.Parts...)
	}
	return drill.Surveyed{Problem: drill.Unmatched(e.ownProtect(s), append(parts, e.hit(s)...))}
}

// surveyTarget asks a target's driver, with all operations that the drill has for it.
func (e *effects) surveyTarget(ctx context.Context, s drill.State, name string, now event.Reading) (target.Survey, error) {
	t, err := e.open(ctx, s, name)
	if err != nil || t.Injector == nil {
		return target.Survey{}, err
	}
	var ops []target.Operation
	for _, st := range s.Program {
		if st.Target == name && st.Operation != "" {
			ops = append(ops, e.operation(s, st, now))
		}
	}
	// Call would not give what was found along with an error, and no error is needed
	// that says again whose driver it was.
	limit := surveyTime
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end).Round(100*time.Millisecond))
	}
	late := fmt.Errorf("it did not answer the survey in %v", limit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	sv, err := t.Injector.Survey(ctx, ops)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, late) {
		err = errors.Join(late, err)
	}
	return sv, err
}

// ownProtect are the patterns that the drill brings itself. An inventory's guard every
// drill, and most of them have nothing that one is about.
func (e *effects) ownProtect(s drill.State) []string {
	return slices.DeleteFunc(slices.Clone(s.Drill.Spec.Guards.Protect), func(p string) bool {
		return slices.Contains(e.Inventory.Spec.Guards.Protect, p)
	})
}

// hit are the parts that the planned steps hit: their labels may say more than a survey.
func (e *effects) hit(s drill.State) []event.Part {
	var out []event.Part
	for _, p := range e.plans {
		out = append(out, p.Parts...)
	}
	if s.Planned != nil {
		for _, st := range s.Planned.Steps {
			out = append(out, st.Parts...)
		}
	}
	return out
}

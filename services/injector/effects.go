package injector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// undoTimeout bounds one try of an undo, unless the drill's deadline is longer:
// an undo must end even when the deadline is over, and a base backup takes long.
const undoTimeout = 2 * time.Hour

// effects carries out moves on the drill's targets, which it opens when first
// needed. run is called by one goroutine at a time.
type effects struct {
	Config
	drill string
	log   *slog.Logger

	mu      sync.Mutex
	targets map[string]*target.Target
	// plans remembers what was resolved, so that Do gets the very plan that was
	// stored with the intent.
	plans map[string]target.Plan
	// ahead is when a step was prepared.
	ahead map[string]event.Reading
	// holds are the drill's systems on this machine.
	holds holds
}

// theDriver is whose panics are caught around a target.
const theDriver = "the driver"

// freshFor is how long a plan made ahead may be used: it was made while the
// system was watched and found steady.
const freshFor = 2 * time.Second

func newEffects(c Config, id string, log *slog.Logger) *effects {
	return &effects{Config: c, drill: id, log: log, targets: map[string]*target.Target{}, plans: map[string]target.Plan{}, ahead: map[string]event.Reading{}}
}

func (e *effects) close(ctx context.Context) {
	if err := e.holds.release(); err != nil {
		e.log.Warn("locks of the drill's systems", "error", err)
	}
	for name, t := range e.targets {
		if err := t.Release(ctx); err != nil {
			e.log.Warn("target not closed", "target", name, "error", err)
		}
	}
}

// run carries out one move and returns the command that records its outcome. A
// panic in a driver becomes that outcome's error.
//
// fence is asked right before something is done to a target.
func (e *effects) run(ctx context.Context, s drill.State, m drill.Move, now event.Reading, fence func() error) (out drill.Command) {
	err := safely(e.log, theDriver, func() error {
		out = e.move(ctx, s, m, now, fence)
		return nil
	})
	if err != nil {
		return failed(m, err, now)
	}
	return out
}

func (e *effects) move(ctx context.Context, s drill.State, m drill.Move, now event.Reading, fence func() error) drill.Command {
	switch m.Kind {
	case drill.MovePlan:
		return e.plan(ctx, s)
	case drill.MoveSurvey:
		return e.survey(ctx, s, now)
	case drill.MovePrepare:
		if _, err := e.resolve(ctx, s, m.Step, now); err == nil {
			e.ahead[m.Step.ID] = now
		}
		return drill.Prepared{}
	case drill.MoveResolve:
		p, err := e.resolve(ctx, s, m.Step, now)
		return drill.Resolved{Step: m.Step, Parts: p.Parts, Undo: p.Undo, DeadMan: p.DeadMan, Err: err}
	case drill.MovePerform:
		return e.perform(ctx, s, m.Step, now, fence)
	}
	return e.undo(ctx, s, m.Debt, now, fence)
}

func failed(m drill.Move, err error, now event.Reading) drill.Command {
	switch m.Kind {
	case drill.MovePlan:
		return drill.Planned{Problem: err.Error()}
	case drill.MoveSurvey:
		return drill.Surveyed{Problem: err.Error()}
	case drill.MovePrepare:
		return drill.Prepared{}
	case drill.MoveResolve:
		return drill.Resolved{Step: m.Step, Err: err}
	case drill.MovePerform:
		return drill.Performed{Step: m.Step, Began: now, Ended: now, Err: err}
	}
	return drill.Undone{Debt: m.Debt, Began: now, Ended: now, Err: err}
}

// plan takes the targets for the drill and resolves every fault and action,
// without touching anything.
func (e *effects) plan(ctx context.Context, s drill.State) drill.Planned {
	var systems map[string]string
	claimed := make(chan error, 1)
	go func() {
		claimed <- safely(e.log, theDriver, func() (err error) {
			systems, err = e.claimTargets(ctx, s)
			return err
		})
	}()
	var steps []event.PlannedStep
	err := safely(e.log, theDriver, func() error {
		steps = e.planAll(ctx, s)
		return nil
	})
	if err := errors.Join(<-claimed, err); err != nil {
		return drill.Planned{Steps: steps, Problem: err.Error()}
	}
	return drill.Planned{Steps: steps, Systems: systems}
}

// planAll resolves every fault and action.
func (e *effects) planAll(ctx context.Context, s drill.State) []event.PlannedStep {
	var out []event.PlannedStep
	for _, st := range s.Program {
		if st.Kind != drill.StepFault && st.Kind != drill.StepRecovery && st.Kind != drill.StepRestore {
			continue
		}
		ps := event.PlannedStep{Step: st.ID, Target: st.Target, Operation: st.Operation}
		op := e.operation(s, st, e.Clock.Now())
		op.CanariesToCome = e.canariesToCome(s, st)
		p, err := e.ask(ctx, s, st, op)
		if err == nil && st.Kind == drill.StepFault {
			err = drill.GuardParts(s.Drill.Spec.Guards, p.Parts)
		}
		if err != nil {
			ps.Problem = err.Error()
		}
		ps.Parts, ps.Does, ps.Undo, ps.DeadMan = p.Parts, p.Does, p.Undoes, event.Duration(p.DeadMan)
		out = append(out, ps)
	}
	return out
}

// canariesToCome reports whether a probe writes canaries by the time of the step, on a target
// of the same driver: two of them may be one system, reached in two ways.
func (e *effects) canariesToCome(s drill.State, st drill.Step) bool {
	writes := func(p drill.Probe) bool {
		on, err := s.Drill.Target(p.Target)
		hit, herr := s.Drill.Target(st.Target)
		driver, known := e.Registry.Driver(on.Driver)
		if err != nil || herr != nil || !known || on.Driver != hit.Driver {
			return false
		}
		info, _ := target.Find(driver.Describe().Probes, p.Probe)
		return info.Writes
	}
	for _, phase := range s.Drill.Spec.Phases {
		if slices.ContainsFunc(phase.Probes, writes) {
			return true
		}
		if phase.Name == st.Phase {
			break
		}
	}
	return false
}

func (e *effects) resolve(ctx context.Context, s drill.State, st drill.Step, now event.Reading) (target.Plan, error) {
	if at, ok := e.ahead[st.ID]; ok && drill.Elapsed(at, now) < freshFor {
		return e.plans[st.ID], nil
	}
	return e.ask(ctx, s, st, e.operation(s, st, now))
}

// ask asks the step's driver for its plan.
func (e *effects) ask(ctx context.Context, s drill.State, st drill.Step, op target.Operation) (target.Plan, error) {
	inj, err := e.injector(ctx, s, st.Target)
	if err != nil {
		return target.Plan{}, err
	}
	p, err := inj.Plan(ctx, op)
	if err != nil {
		return target.Plan{}, fmt.Errorf("planning %s on %s: %w", st.Operation, st.Target, err)
	}
	e.plans[st.ID] = p
	return p, nil
}

func (e *effects) perform(ctx context.Context, s drill.State, st drill.Step, now event.Reading, fence func() error) drill.Command {
	op := e.operation(s, st, now)
	ctx, cancel := context.WithTimeout(ctx, op.Limit)
	defer cancel()
	inj, err := e.injector(ctx, s, st.Target)
	if err == nil {
		err = fence()
	}
	if err != nil {
		return drill.Performed{Step: st, Began: now, Ended: now, Err: err}
	}
	eff, err := inj.Do(ctx, op, e.plans[st.ID])
	if err != nil {
		err = fmt.Errorf("%s on %s: %w", st.Operation, st.Target, err)
	}
	return drill.Performed{Step: st, Began: eff.Began, Ended: eff.Ended, Proof: eff.Proof, Details: eff.Details, Err: err}
}

func (e *effects) undo(ctx context.Context, s drill.State, d drill.Debt, now event.Reading, fence func() error) drill.Command {
	// An abort cancels what is under way, never the clean-up; only losing the
	// lease or the process ends an undo early.
	ctx, cancel := context.WithTimeout(ctx, max(undoTimeout, s.Drill.Spec.Guards.Deadline.D()))
	defer cancel()
	inj, err := e.injector(ctx, s, d.Target)
	if err == nil {
		err = e.sameSystem(ctx, s, d.Target)
	}
	if err == nil {
		err = fence()
	}
	if err != nil {
		return drill.Undone{Debt: d, Began: now, Ended: now, Err: err}
	}
	op := target.Operation{Drill: s.ID, Run: runOf(s), Step: d.Step, Name: d.Operation, Seed: s.Seed, Fence: s.Lease.Epoch}
	details, err := inj.Undo(ctx, op, d.Undo)
	if err != nil {
		err = fmt.Errorf("undoing %s on %s: %w", d.Operation, d.Target, err)
	}
	return drill.Undone{Debt: d, Began: now, Ended: e.Clock.Now(), Details: details, Err: err, Permanent: target.IsPermanent(err)}
}

// runOf tells a drill from those of the same id in other event stores: by the millisecond
// in which it was accepted.
func runOf(s drill.State) string { return strconv.FormatInt(s.Accepted.Wall.UnixMilli(), 36) }

func (e *effects) operation(s drill.State, st drill.Step, now event.Reading) target.Operation {
	return target.Operation{
		Drill: s.ID, Run: runOf(s), Step: st.ID, Name: st.Operation, Params: st.Params, Hold: st.Hold,
		Limit: max(time.Second, s.Drill.Spec.Guards.Deadline.D()-drill.Elapsed(s.Accepted, now)),
		Seed:  s.Seed, Fence: s.Lease.Epoch,
	}
}

// injector returns the injector role of a target.
func (e *effects) injector(ctx context.Context, s drill.State, name string) (target.Injector, error) {
	t, err := e.open(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if t.Injector == nil {
		return nil, fmt.Errorf("target %q: its driver cannot inject faults or take actions", name)
	}
	return t.Injector, nil
}

// open opens a target once.
func (e *effects) open(ctx context.Context, s drill.State, name string) (*target.Target, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t, ok := e.targets[name]; ok {
		return t, nil
	}
	asked, err := s.Drill.Target(name)
	if err != nil {
		return nil, err
	}
	t, err := e.Registry.Open(ctx, asked.Driver, target.Config{Name: name, Raw: asked.Config, Clock: e.Clock, Log: e.log.With("target", name)})
	if err != nil {
		return nil, err
	}
	e.targets[name] = t
	return t, nil
}

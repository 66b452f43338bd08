package observer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
)

// Canaries are removed once the report is out: until then the validator may be
// reading them, also after drill.finished when the drill was aborted. The history
// is closed by then, so nothing records that it was done. It is done again
// instead, which does no harm: at a start for the drills of the last day, and
// before a drill for the last drills of the same targets.
const (
	// cleanTime bounds the removal of a drill's canaries.
	cleanTime = 15 * time.Second
	// cleanAge is how long ago a report may have been published for its drill's
	// canaries to be looked for at the start.
	cleanAge = 24 * time.Hour
	// cleanLast is how many earlier drills of a target are cleaned up after.
	cleanLast = 20
)

// cleanUp removes the drill's canaries from its targets. Every observer that
// followed the drill does it: the one that made them may be gone. It goes on when
// ctx ends, because a process that runs one drill stops on its report. What cannot
// be removed is logged: the drill is over. A drill that ended before its first phase,
// because its targets could not be reached for example, has left nothing there.
func (s *session) cleanUp(ctx context.Context) {
	if !slices.ContainsFunc(s.state.Program, func(st drill.Step) bool {
		return st.Kind == drill.StepBegin && s.state.Steps[st.ID].Status == drill.Done
	}) {
		return
	}
	if err := s.c.clean(context.WithoutCancel(ctx), s.state.Drill, s.id); err != nil {
		s.log.WarnContext(ctx, "canaries may be left in a target", "error", err)
	}
}

// clean drops the drill's ledgers from the targets that it probed.
func (c Config) clean(ctx context.Context, d drill.Drill, id string) error {
	ctx, cancel := context.WithTimeout(ctx, cleanTime)
	defer cancel()
	names := probed(d)
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = c.dropLedgers(ctx, d, name, []string{id}) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (c Config) dropLedgers(ctx context.Context, d drill.Drill, name string, drills []string) error {
	began := c.Clock.Now().Mono
	t, err := c.openTarget(ctx, d, name)
	if err != nil {
		return err
	}
	// A process that was suspended here may have been taken over, and would delete
	// its successor's canaries before it hears of it.
	if late := c.Clock.Now().Mono - began; late > int64(cleanTime) {
		return errors.Join(fmt.Errorf("not done: %v went by since it was begun", time.Duration(late)), t.Release(ctx))
	}
	_, err = target.Call(ctx, cleanTime, "drop the ledgers in target "+name, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, t.Observer.DropLedgers(ctx, drills...)
	}, nil)
	return errors.Join(err, t.Release(ctx))
}

// probed are the names of the targets that the drill leaves canaries in.
func probed(d drill.Drill) []string {
	var names []string
	for _, p := range d.Spec.Phases {
		for _, pr := range p.Probes {
			if !slices.Contains(names, pr.Target) {
				names = append(names, pr.Target)
			}
		}
	}
	return names
}

// takeOld sees to the drills that were there before this process: it follows those
// without a report, and cleans up after those whose report is new.
func (w *watcher) takeOld(ctx context.Context) error {
	drills, err := w.c.Bus.List(ctx)
	if err != nil {
		return fmt.Errorf("list the drills: %w", err)
	}
	var over []bus.Summary
	for _, d := range drills {
		if d.Published == nil {
			w.take(ctx, d.Drill)
		} else if time.Since(d.Published.Stored) < cleanAge {
			over = append(over, d)
		}
	}
	w.wg.Go(func() { w.c.cleanOld(ctx, over) })
	return nil
}

// cleanOld removes what may be left of drills that are over. Most of it is gone,
// and so may be the target: a failure is no reason for a warning.
func (c Config) cleanOld(ctx context.Context, over []bus.Summary) {
	for _, s := range over {
		d, ok := definitionOf(*s.Accepted)
		if !ok || ctx.Err() != nil {
			continue
		}
		if err := c.clean(ctx, d, s.Drill); err != nil {
			c.Log.InfoContext(ctx, "an earlier drill's canaries may be left in a target", "drill", s.Drill, "error", err)
		}
	}
}

func definitionOf(accepted bus.Stored) (drill.Drill, bool) {
	var d drill.Drill
	p, ok := accepted.Payload.(*event.DrillAccepted)
	return d, ok && json.Unmarshal(p.Spec, &d) == nil
}

// cleanBefore removes what the last drills of the same targets may have left, and
// what bears the drill's own id: an installation that lost its store has given
// the id before, and its canaries would be taken for duplicates. It is for the
// first claim of a drill, and all of it is over before the first lane in any target
// opens: two targets may be one system, and hold the same canaries.
func (o opening) cleanBefore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cleanTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, name := range probed(o.drill) {
		wg.Go(func() {
			// The last drills with a report: those under way have canaries of their own.
			old, err := o.c.Bus.LastPublished(ctx, cleanLast, func(accepted bus.Stored) bool {
				other, ok := definitionOf(accepted)
				return ok && sameTarget(other, o.drill, name)
			})
			if err != nil {
				o.c.Log.InfoContext(ctx, "earlier drills' canaries are not looked for", "drill", o.id, "target", name, "error", err)
			}
			old = append(old, o.id)
			if err := o.c.dropLedgers(ctx, o.drill, name, old); err != nil {
				o.c.Log.InfoContext(ctx, "earlier drills' canaries may be left in a target", "drill", o.id, "drills", old, "error", err)
			}
		})
	}
	wg.Wait()
}

// sameTarget reports whether another drill probed a target of that name and driver. Its
// configuration may have changed since.
func sameTarget(other, d drill.Drill, name string) bool {
	here, err := d.Target(name)
	there, terr := other.Target(name)
	return err == nil && terr == nil && there.Driver == here.Driver && slices.Contains(probed(other), name)
}

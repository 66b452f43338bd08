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
// is closed by then, so nothing records that it was done. It is done again at a
// start for the drills of the last day, which does no harm, and what failed is
// tried again before the next drill of the same target.
const (
	// cleanTime bounds the removal of a drill's canaries.
	cleanTime = 15 * time.Second
	// cleanAge is how long ago a report may have been published for its drill's
	// canaries to be looked for at the start.
	cleanAge = 24 * time.Hour
)

// cleanUp removes the drill's canaries from its targets. Every observer that
// followed the drill does it: the one that made them may be gone. It goes on when
// ctx ends, because a process that runs one drill stops on its report. What cannot
// be removed is logged: the drill is over.
func (s *session) cleanUp(ctx context.Context) {
	if err := s.c.clean(context.WithoutCancel(ctx), s.state.Drill, s.id); err != nil {
		s.log.WarnContext(ctx, "canaries are left in a target", "error", err)
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
		wg.Go(func() {
			t, err := c.openTarget(ctx, d, name)
			if err == nil {
				err = errors.Join(c.dropLedgers(ctx, t, placeOf(d, name), id), t.Release(ctx))
			}
			if err != nil {
				c.left.add(placeOf(d, name), id)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// dropLedgers removes a drill's canaries, and those of earlier drills that could
// not be removed from the same place.
func (c Config) dropLedgers(ctx context.Context, t *target.Target, p place, id string) error {
	drills := c.left.with(p, id)
	_, err := target.Call(ctx, cleanTime, "drop the ledgers in a target of driver "+p.driver, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, t.Observer.DropLedgers(ctx, drills...)
	}, nil)
	if err == nil {
		c.left.remove(p, drills)
	}
	return err
}

// place is where canaries lie, under whatever name a drill has for it.
type place struct{ driver, config string }

func placeOf(d drill.Drill, name string) place {
	t, _ := d.Target(name) // a drill names no target that it does not have
	return place{t.Driver, string(t.Config)}
}

// leftovers are the finished drills whose canaries this process could not remove.
// One that runs is never among them: somebody else's cleaning would take its
// canaries away. It is safe for concurrent use.
type leftovers struct {
	mu     sync.Mutex
	drills map[place][]string
}

func (l *leftovers) add(p place, drill string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.drills[p], drill) {
		l.drills[p] = append(l.drills[p], drill)
	}
}

func (l *leftovers) remove(p place, drills []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drills[p] = slices.DeleteFunc(l.drills[p], func(d string) bool { return slices.Contains(drills, d) })
}

// with is the drill and what is left of others in the same place.
func (l *leftovers) with(p place, drill string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(slices.DeleteFunc(slices.Clone(l.drills[p]), func(d string) bool { return d == drill }), drill)
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
		d, ok := definitionOf(s)
		if !ok || ctx.Err() != nil {
			continue
		}
		if err := c.clean(ctx, d, s.Drill); err != nil {
			c.Log.InfoContext(ctx, "an earlier drill's canaries may be left in a target", "drill", s.Drill, "error", err)
		}
	}
}

func definitionOf(s bus.Summary) (drill.Drill, bool) {
	var d drill.Drill
	p, ok := s.Accepted.Payload.(*event.DrillAccepted)
	return d, ok && json.Unmarshal(p.Spec, &d) == nil
}

// cleanBefore removes what earlier drills have left in a target, and what bears
// the drill's own id: an installation that lost its store has given the id before,
// and its canaries would be taken for duplicates. It is for the first claim of a
// drill, before its first lane in the target.
func (o opening) cleanBefore(ctx context.Context, t *target.Target, name string) {
	if err := o.c.dropLedgers(ctx, t, placeOf(o.drill, name), o.id); err != nil {
		o.c.Log.InfoContext(ctx, "earlier drills' canaries may be left in a target", "drill", o.id, "target", name, "error", err)
	}
}

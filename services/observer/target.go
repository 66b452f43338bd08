package observer

import (
	"context"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
)

// driverTime bounds each call of a driver that is not an attempt.
const driverTime = 10 * time.Second

// openTarget opens one of the drill's targets for observing.
func (c Config) openTarget(ctx context.Context, d drill.Drill, name string) (*target.Target, error) {
	t, err := d.Target(name)
	if err != nil {
		return nil, err
	}
	open, err := c.Registry.Open(ctx, t.Driver, target.Config{Name: name, Raw: t.Config, Clock: c.Clock, Log: c.Log.With("target", name)})
	if err != nil {
		return nil, err
	}
	if open.Observer == nil {
		_ = open.Release(ctx)
		return nil, fmt.Errorf("target %s: driver %s cannot observe", name, t.Driver)
	}
	return open, nil
}

// kindOf says whether a probe's attempts are canary writes.
func kindOf(d target.Driver, probe string) string {
	if o, ok := target.Find(d.Describe().Probes, probe); ok && o.Writes {
		return kindWrite
	}
	return kindRead
}

// Kinds of lanes, as in event.ProbeBatch.
const (
	kindWrite = "write"
	kindRead  = "read"
)

// cleanUp removes the drill's canaries from its targets, once nobody reads them
// any more. What cannot be removed is logged: the drill is over.
func (s *session) cleanUp(ctx context.Context) {
	names := map[string]bool{}
	for _, p := range s.state.Drill.Spec.Phases {
		for _, pr := range p.Probes {
			names[pr.Target] = true
		}
	}
	for name := range names {
		if err := s.dropLedgers(ctx, name); err != nil {
			s.log.WarnContext(ctx, "canaries are left in a target", "target", name, "error", err)
		}
	}
}

func (s *session) dropLedgers(ctx context.Context, name string) error {
	t, err := s.c.openTarget(ctx, s.state.Drill, name)
	if err != nil {
		return err
	}
	_, err = target.Call(ctx, time.Minute, "drop the ledgers", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, t.Observer.DropLedgers(ctx, s.id)
	}, nil)
	if cerr := t.Release(ctx); err == nil {
		err = cerr
	}
	return err
}

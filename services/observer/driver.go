package observer

import (
	"context"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
)

// bounded calls a driver so that neither its panic nor its hanging reaches the
// service: both become errors. A result that comes too late is handed to late.
func bounded[T any](ctx context.Context, limit time.Duration, what string, call func(context.Context) (T, error), late func(T)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("the driver panicked: %v", p)
			}
			done <- r
		}()
		r.v, r.err = call(ctx)
	}()
	var none T
	select {
	case r := <-done:
		cancel()
		if r.err != nil {
			return none, fmt.Errorf("%s: %w", what, r.err)
		}
		return r.v, nil
	case <-ctx.Done():
	}
	// A driver that keeps to its context gets a moment to say why it failed.
	defer cancel()
	grace := time.NewTimer(time.Second)
	defer grace.Stop()
	select {
	case r := <-done:
		if r.err == nil {
			return r.v, nil
		}
		return none, fmt.Errorf("%s: %w", what, r.err)
	case <-grace.C:
		go func() {
			if r := <-done; r.err == nil && late != nil {
				late(r.v)
			}
		}()
		return none, fmt.Errorf("%s: the driver did not return within %v: %w", what, limit, ctx.Err())
	}
}

// driverTime bounds each call of a driver that is not an attempt.
const driverTime = 10 * time.Second

// openTarget opens one of the drill's targets for observing.
func (c Config) openTarget(ctx context.Context, d drill.Drill, name string) (*target.Target, target.Driver, error) {
	for _, t := range d.Spec.Targets {
		if t.Name != name {
			continue
		}
		drv, ok := c.Registry.Driver(t.Driver)
		if !ok {
			return nil, nil, fmt.Errorf("target %s: no driver %q in this process; it has %v", name, t.Driver, c.Registry.Names())
		}
		open, err := bounded(ctx, driverTime, "open target "+name, func(ctx context.Context) (*target.Target, error) {
			return drv.Open(ctx, target.Config{Name: name, Raw: t.Config, Clock: c.Clock, Log: c.Log.With("target", name)})
		}, func(t *target.Target) { _ = closeTarget(ctx, t) })
		if err != nil {
			return nil, nil, err
		}
		if open.Observer == nil {
			_ = closeTarget(ctx, open)
			return nil, nil, fmt.Errorf("target %s: driver %s cannot observe", name, t.Driver)
		}
		return open, drv, nil
	}
	return nil, nil, fmt.Errorf("target %s: the drill has none of this name", name)
}

func closeTarget(ctx context.Context, t *target.Target) error {
	if t.Close == nil {
		return nil
	}
	_, err := bounded(context.WithoutCancel(ctx), driverTime, "close target", func(context.Context) (struct{}, error) {
		return struct{}{}, t.Close()
	}, nil)
	return err
}

// kindOf says whether a probe's attempts are canary writes.
func kindOf(d target.Driver, probe string) string {
	for _, o := range d.Describe().Probes {
		if o.Name == probe && o.Writes {
			return kindWrite
		}
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
	t, _, err := s.c.openTarget(ctx, s.state.Drill, name)
	if err != nil {
		return err
	}
	_, err = bounded(ctx, time.Minute, "drop the ledgers", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, t.Observer.DropLedgers(ctx, s.id)
	}, nil)
	if cerr := closeTarget(ctx, t); err == nil {
		err = cerr
	}
	return err
}

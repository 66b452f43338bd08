package validator

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

// openTime bounds opening and closing a target.
const openTime = 30 * time.Second

// openTarget opens one of the drill's targets.
func (c Config) openTarget(ctx context.Context, d drill.Drill, name string) (*target.Target, target.Driver, error) {
	for _, t := range d.Spec.Targets {
		if t.Name != name {
			continue
		}
		drv, ok := c.Registry.Driver(t.Driver)
		if !ok {
			return nil, nil, fmt.Errorf("target %s: no driver %q in this process; it has %v", name, t.Driver, c.Registry.Names())
		}
		open, err := bounded(ctx, openTime, "open target "+name, func(ctx context.Context) (*target.Target, error) {
			return drv.Open(ctx, target.Config{Name: name, Raw: t.Config, Clock: c.Clock, Log: c.Log.With("target", name)})
		}, func(t *target.Target) { _ = closeTarget(ctx, t) })
		return open, drv, err
	}
	return nil, nil, fmt.Errorf("target %s: the drill has none of this name", name)
}

func closeTarget(ctx context.Context, t *target.Target) error {
	if t.Close == nil {
		return nil
	}
	_, err := bounded(context.WithoutCancel(ctx), openTime, "close target", func(context.Context) (struct{}, error) {
		return struct{}{}, t.Close()
	}, nil)
	return err
}

// checkInfo finds a kind of check in a driver's catalogue.
func checkInfo(d target.Driver, kind string) (target.OperationInfo, bool) {
	for _, o := range d.Describe().Checks {
		if o.Name == kind {
			return o, true
		}
	}
	return target.OperationInfo{}, false
}

// writes reports whether a kind of probe makes canary writes.
func writes(d target.Driver, probe string) bool {
	for _, o := range d.Describe().Probes {
		if o.Name == probe {
			return o.Writes
		}
	}
	return false
}

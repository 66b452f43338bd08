package observer

import (
	"context"
	"fmt"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
)

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

package validator

import (
	"context"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
)

// openTarget opens one of the drill's targets by its name in the drill.
func (c Config) openTarget(ctx context.Context, d drill.Drill, name string) (*target.Target, error) {
	t, err := d.Target(name)
	if err != nil {
		return nil, err
	}
	return c.Registry.Open(ctx, t.Driver, target.Config{Name: name, Raw: t.Config, Clock: c.Clock, Log: c.Log.With("target", name)})
}

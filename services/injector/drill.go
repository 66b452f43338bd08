package injector

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
)

// ReadDrill parses a drill, checks it against the drivers and fills in its
// defaults. Mistakes come back as *drill.Problems, all of them at once.
func ReadDrill(data []byte, r target.Registry) (drill.Drill, error) {
	d, err := drill.Parse(data)
	if err != nil {
		return d, err
	}
	if err := drill.CheckTargets(d, Catalogue(r)); err != nil {
		return d, err
	}
	return drill.WithDefaults(d), nil
}

// Catalogue shows a registry to drill.CheckTargets.
func Catalogue(r target.Registry) func(driver string) (drill.Catalogue, bool) {
	return func(name string) (drill.Catalogue, bool) {
		d, ok := r.Driver(name)
		if !ok {
			return drill.Catalogue{Drivers: r.Names()}, false
		}
		desc := d.Describe()
		return drill.Catalogue{
			Drivers: r.Names(), CheckConfig: d.Check,
			Faults: operations(desc.Faults), Actions: operations(desc.Actions), Probes: operations(desc.Probes), Checks: operations(desc.Checks),
		}, true
	}
}

func operations(infos []target.OperationInfo) map[string]func(json.RawMessage) error {
	out := make(map[string]func(json.RawMessage) error, len(infos))
	for _, i := range infos {
		out[i.Name] = i.CheckParams
	}
	return out
}

// openTarget opens one of a drill's targets by its name in the drill.
func openTarget(ctx context.Context, r target.Registry, d drill.Drill, name string, clock target.Clock, log *slog.Logger) (*target.Target, error) {
	for _, t := range d.Spec.Targets {
		if t.Name == name {
			return r.Open(ctx, t.Driver, target.Config{Name: name, Raw: t.Config, Clock: clock, Log: log.With("target", name)})
		}
	}
	return nil, fmt.Errorf("the drill has no target %q", name)
}

package injector

import (
	"encoding/json"

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

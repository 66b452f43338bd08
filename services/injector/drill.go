package injector

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
)

// ReadDrill parses a drill, resolves it with the inventory, checks it against the
// drivers and fills in its defaults. Mistakes come back as *drill.Problems with
// their positions.
func ReadDrill(data []byte, r target.Registry, inv drill.Inventory) (drill.Drill, error) {
	d, err := drill.Parse(data)
	if err != nil {
		return d, err
	}
	if d, err = inv.Resolve(d); err != nil {
		return d, drill.Locate(data, err)
	}
	if err := drill.CheckTargets(d, Catalogue(r)); err != nil {
		return d, drill.Locate(data, err)
	}
	return drill.WithDefaults(d), nil
}

// ReadInventory reads an operator's inventory and checks every entry against its
// driver. No path gives the empty inventory, which lets nothing be drilled.
func ReadInventory(path string, r target.Registry) (drill.Inventory, error) {
	if path == "" {
		return drill.Inventory{}, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return drill.Inventory{}, fmt.Errorf("inventory: %w", err)
	}
	inv, err := drill.ParseInventory(data)
	if err == nil {
		err = drill.CheckEntries(inv, Catalogue(r))
	}
	if err != nil {
		return drill.Inventory{}, fmt.Errorf("inventory %s: %w", path, err)
	}
	return inv, nil
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

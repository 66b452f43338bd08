package injector

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
)

// ReadDrill reads a drill that may be run with the inventory and the drivers, and
// fills in its defaults. All mistakes come back as *drill.Problems with their
// positions.
func ReadDrill(data []byte, r target.Registry, inv drill.Inventory) (drill.Drill, error) {
	d, err := drill.Read(data, inv, Catalogue(r))
	if err != nil {
		return drill.Drill{}, err
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
	inv, err := drill.ReadInventory(data, Catalogue(r))
	if err != nil {
		return drill.Inventory{}, fmt.Errorf("inventory %s: %w", path, err)
	}
	return inv, nil
}

// Catalogue shows a registry to drill.Read.
func Catalogue(r target.Registry) func(driver string) (drill.Catalogue, bool) {
	return func(name string) (drill.Catalogue, bool) {
		d, ok := r.Driver(name)
		if !ok {
			return drill.Catalogue{Drivers: r.Names()}, false
		}
		desc := d.Describe()
		return drill.Catalogue{
			Drivers: r.Names(), CheckConfig: guarded(d.Check),
			Faults: operations(desc.Faults), Actions: operations(desc.Actions), Probes: operations(desc.Probes), Checks: operations(desc.Checks),
		}, true
	}
}

func operations(infos []target.OperationInfo) map[string]func(json.RawMessage) error {
	out := make(map[string]func(json.RawMessage) error, len(infos))
	for _, i := range infos {
		out[i.Name] = guarded(i.CheckParams)
	}
	return out
}

// guarded keeps a driver that stumbles over what a request says from ending the
// process, and with it every drill that is conducted here.
func guarded(check func(json.RawMessage) error) func(json.RawMessage) error {
	if check == nil {
		return nil
	}
	return func(raw json.RawMessage) error {
		return safely(slog.Default(), theDriver, func() error { return check(raw) })
	}
}

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
	return readDrill(data, r, inv, slog.Default())
}

func readDrill(data []byte, r target.Registry, inv drill.Inventory, log *slog.Logger) (drill.Drill, error) {
	d, err := drill.Read(data, inv, catalogue(r, log))
	if err != nil {
		return drill.Drill{}, err
	}
	return drill.WithDefaults(d), nil
}

// ReadInventory reads an operator's inventory and checks every entry against its
// driver. No path gives the empty inventory, which lets nothing be drilled.
func ReadInventory(path string, r target.Registry, checks ...drill.InventoryCheck) (drill.Inventory, error) {
	if path == "" {
		return drill.Inventory{}, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return drill.Inventory{}, fmt.Errorf("inventory: %w", err)
	}
	inv, err := drill.ReadInventory(data, Catalogue(r), checks...)
	if err != nil {
		return drill.Inventory{}, fmt.Errorf("inventory %s: %w", path, err)
	}
	return inv, nil
}

// nodeNamer is a driver whose params mean one of its configuration's nodes by node.
// Only such a driver's are compared: to another one, node may be anything.
type nodeNamer interface {
	// NodeNames lists the nodes; none when they cannot be read.
	NodeNames(config json.RawMessage) []string
}

// Catalogue shows a registry to drill.Read.
func Catalogue(r target.Registry) func(driver string) (drill.Catalogue, bool) {
	return catalogue(r, slog.Default())
}

// catalogue is Catalogue for a service: the drivers' panics go to its log.
func catalogue(r target.Registry, log *slog.Logger) func(driver string) (drill.Catalogue, bool) {
	return func(name string) (drill.Catalogue, bool) {
		d, ok := r.Driver(name)
		if !ok {
			return drill.Catalogue{Drivers: r.Names()}, false
		}
		desc := d.Describe()
		return drill.Catalogue{
			Drivers: r.Names(), CheckConfig: guarded(log, d.Check), Nodes: nodesOf(log, d),
			Faults: operations(log, desc.Faults), Actions: operations(log, desc.Actions),
			Probes: operations(log, desc.Probes), Checks: operations(log, desc.Checks),
		}, true
	}
}

// nodesOf is nil for a driver that names no nodes.
func nodesOf(log *slog.Logger, d target.Driver) func(json.RawMessage) []string {
	n, ok := d.(nodeNamer)
	if !ok {
		return nil
	}
	return func(config json.RawMessage) (names []string) {
		// One that stumbles gives none; its Check says what is wrong.
		_ = safely(log, theDriver, func() error { names = n.NodeNames(config); return nil })
		return names
	}
}

func operations(log *slog.Logger, infos []target.OperationInfo) map[string]func(json.RawMessage) error {
	out := make(map[string]func(json.RawMessage) error, len(infos))
	for _, i := range infos {
		out[i.Name] = guarded(log, i.CheckParams)
	}
	return out
}

// guarded keeps a driver that stumbles over what a request says from ending the
// process, and with it every drill that is conducted here.
func guarded(log *slog.Logger, check func(json.RawMessage) error) func(json.RawMessage) error {
	if check == nil {
		return nil
	}
	return func(raw json.RawMessage) error {
		return safely(log, theDriver, func() error { return check(raw) })
	}
}

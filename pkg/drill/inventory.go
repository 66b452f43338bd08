package drill

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

// InventoryKind is the kind of an inventory's document.
const InventoryKind = "Inventory"

// Inventory is what the operator of firedrill lets requests drill. Whoever may
// publish a request only names entries of it; the commands, hosts and references
// to secrets in their configurations come from the operator alone. The zero value
// lets nothing.
type Inventory struct {
	APIVersion string        `json:"apiVersion" jsonschema:"const=firedrill/v1"`
	Kind       string        `json:"kind" jsonschema:"const=Inventory"`
	Spec       InventorySpec `json:"spec"`
}

// InventorySpec is what an inventory holds.
type InventorySpec struct {
	Targets []Entry `json:"targets,omitempty"`
	// KeepFrom and KeepTo are where a drill may copy evidence from and to: each
	// place itself and everything below it, such as dir:/var/lib/postgresql. They
	// are apart because one is only read, and the other is written to.
	KeepFrom []string `json:"keepFrom,omitempty"`
	KeepTo   []string `json:"keepTo,omitempty"`
	// Stores are object stores that mirrors name.
	Stores []Store `json:"stores,omitempty"`
	// Mirrors are the mirrors that requests may ask for by their names, and that
	// run by themselves where they say when.
	Mirrors []Mirror `json:"mirrors,omitempty"`
	// Guards bind every drill, whatever its own say: its protected parts are
	// added, and a drill that asks for more parts, a longer deadline or windows of
	// its own is refused. A protected part that no target of a drill has is another
	// drill's, and no mistake.
	Guards Guards `json:"guards,omitempty"`
	// InlineTargets lets requests bring drivers' configurations and locations of
	// their own, and with them commands that run as firedrill: only where everyone
	// who may publish requests may also do that.
	InlineTargets bool `json:"inlineTargets,omitempty"`
}

// Entry is a system that requests may drill by its name.
type Entry struct {
	Name   string `json:"name"`
	Driver string `json:"driver"`
	// Config is the driver's own; it holds references to secrets, never secrets.
	Config json.RawMessage `json:"config"`
}

// OpenInventory lets a drill bring everything itself, for somebody who runs his
// own.
func OpenInventory() Inventory {
	return Inventory{APIVersion: APIVersion, Kind: InventoryKind, Spec: InventorySpec{InlineTargets: true}}
}

// InventoryCheck finds what only a service can tell to be wrong with an inventory.
// Each problem names its Field; where that stands is filled in.
type InventoryCheck func(Inventory) []Problem

// ParseInventory reads an inventory from YAML or JSON, as strictly as Parse reads
// a drill, and makes the checks. The error is *Problems. ReadInventory does the rest.
func ParseInventory(raw []byte, checks ...InventoryCheck) (Inventory, error) {
	inv, f := parseInventory(raw, checks)
	if err := f.err(); err != nil {
		return Inventory{}, err
	}
	return inv, nil
}

// ReadInventory is ParseInventory, and checks the configuration of every entry
// against its driver. The error is *Problems and lists what both find.
func ReadInventory(raw []byte, lookup func(driver string) (Catalogue, bool), checks ...InventoryCheck) (Inventory, error) {
	inv, f := parseInventory(raw, checks)
	if f.decoded {
		c := &targetChecker{findings: f}
		for i, e := range inv.Spec.Targets {
			c.config(fmt.Sprintf("spec.targets[%d]", i), e.Driver, e.Config, lookup)
		}
	}
	if err := f.err(); err != nil {
		return Inventory{}, err
	}
	return inv, nil
}

func parseInventory(raw []byte, checks []InventoryCheck) (Inventory, *findings) {
	var inv Inventory
	f := decode(raw, "an inventory is a mapping that begins with apiVersion, kind and spec", &inv)
	if f.decoded {
		(&checker{findings: f, drill: &Drill{}}).checkInventory(inv)
		for _, check := range checks {
			for _, p := range check(inv) {
				f.add(p.Field, p.Value, p.Fix)
			}
		}
	}
	return inv, f
}

func (c *checker) checkInventory(inv Inventory) {
	if inv.APIVersion != APIVersion {
		c.add("apiVersion", inv.APIVersion, "this build reads only "+APIVersion)
	}
	if inv.Kind != InventoryKind {
		c.add("kind", inv.Kind, "this must be "+InventoryKind)
	}
	c.unique("spec.targets", "target", namesOf(inv.Spec.Targets, func(e Entry) string { return e.Name }))
	for i, e := range inv.Spec.Targets {
		c.operation(fmt.Sprintf("spec.targets[%d].driver", i), "driver", e.Driver)
	}
	for field, list := range map[string][]string{"keepFrom": inv.Spec.KeepFrom, "keepTo": inv.Spec.KeepTo} {
		for i, l := range list {
			if !locationPattern().MatchString(l) {
				c.add(fmt.Sprintf("spec.%s[%d]", field, i), l, "this is no location: write scheme:path, such as dir:/var/lib/postgresql")
			}
		}
	}
	c.checkStores(inv.Spec.Stores)
	c.checkMirrors(inv.Spec.Mirrors)
	c.checkGuards(inv.Spec.Guards)
}

// Resolve returns the drill as it may be run: each target that names an entry has
// that entry's driver and configuration, and the inventory's guards are added to
// the drill's own. What the inventory does not let is *Problems, without
// positions. d is left as it was.
func (inv Inventory) Resolve(d Drill) (Drill, error) {
	f := &findings{}
	d = inv.resolve(f, d)
	return d, f.err()
}

// resolve does the work of Resolve and notes what the inventory does not let.
func (inv Inventory) resolve(f *findings, d Drill) Drill {
	d.Spec.Targets = slices.Clone(d.Spec.Targets)
	for i := range d.Spec.Targets {
		inv.resolveTarget(f, fmt.Sprintf("spec.targets[%d]", i), &d.Spec.Targets[i])
	}
	for i, p := range d.Spec.Phases {
		for j, k := range p.Keep {
			at := fmt.Sprintf("spec.phases[%d].keep[%d]", i, j)
			if k.Mirror != "" {
				inv.checkMirrorName(f, at+".mirror", k.Mirror)
				continue
			}
			inv.checkPlace(f, at+".from", k.From, "keepFrom", inv.Spec.KeepFrom)
			inv.checkPlace(f, at+".to", k.To, "keepTo", inv.Spec.KeepTo)
		}
	}
	inv.resolveGuards(f, &d.Spec.Guards)
	(&checker{findings: f, drill: &d}).checkDeadline()
	return d
}

func (inv Inventory) resolveTarget(f *findings, at string, t *Target) {
	names := namesOf(inv.Spec.Targets, func(e Entry) string { return e.Name })
	if t.Inventory != "" {
		i := slices.Index(names, t.Inventory)
		if i < 0 {
			f.add(at+".inventory", t.Inventory, "the inventory has no such entry: "+suggest(t.Inventory, names))
			return
		}
		t.Driver, t.Config = inv.Spec.Targets[i].Driver, inv.Spec.Targets[i].Config
		return
	}
	if !inv.Spec.InlineTargets {
		f.add(at+".config", "", "requests bring no configuration of their own here: name an entry of the operator's inventory with inventory:, "+suggest(t.Name, names))
	}
}

// checkMirrorName refuses mirrors that the operator has not set up.
func (inv Inventory) checkMirrorName(f *findings, at, name string) {
	names := namesOf(inv.Spec.Mirrors, func(m Mirror) string { return m.Name })
	if !slices.Contains(names, name) {
		f.add(at, name, "the inventory has no such mirror: "+suggest(name, names))
	}
}

// checkPlace refuses to read or write outside the inventory's places. It
// compares names: whoever may put a symbolic link into one of the places can lead
// out of it.
func (inv Inventory) checkPlace(f *findings, at, location, list string, places []string) {
	if inv.Spec.InlineTargets && len(places) == 0 {
		return
	}
	scheme, rest, _ := strings.Cut(location, ":")
	rest = path.Clean(rest)
	for _, l := range places {
		s, root, _ := strings.Cut(l, ":")
		root = path.Clean(root)
		if s == scheme && (rest == root || strings.HasPrefix(rest, strings.TrimSuffix(root, "/")+"/")) {
			return
		}
	}
	f.addf(at, location, "this is in none of the places of the inventory's %s: use one of them, or have the operator add it", list)
}

func (inv Inventory) resolveGuards(f *findings, g *Guards) {
	own := inv.Spec.Guards
	g.Protect = append(slices.Clone(g.Protect), own.Protect...)
	g.Approval = g.Approval || own.Approval
	if own.MaxParts > 0 && g.MaxParts > own.MaxParts {
		f.addf("spec.guards.maxParts", fmt.Sprint(g.MaxParts), "the inventory allows %d: hit fewer parts at a time", own.MaxParts)
	}
	switch {
	case own.Deadline == 0:
	case g.Deadline == 0:
		g.Deadline = own.Deadline
	case g.Deadline > own.Deadline:
		f.addf("spec.guards.deadline", g.Deadline.String(), "the inventory allows %s: ask for less", brief(own.Deadline.D()))
	}
	switch {
	case len(own.Windows) == 0:
	case len(g.Windows) > 0:
		f.add("spec.guards.windows", "", "the inventory has the maintenance windows: leave these out")
	default:
		g.Windows = own.Windows
	}
}

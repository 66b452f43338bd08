package drill

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/firedrill/firedrill/pkg/joined"
)

// Catalogue is what Read needs to know of a driver. Services fill it from the
// driver's description; the core does not know drivers.
type Catalogue struct {
	// Drivers names every driver of the process, also when the one looked up is
	// not among them.
	Drivers []string
	// CheckConfig reads a target's configuration without touching anything; nil
	// takes any.
	CheckConfig func(json.RawMessage) error
	// Nodes lists the names of a configuration's nodes, for a driver whose params
	// mean one of them by node; none when they cannot be read. It is nil for every
	// other driver: its params may say node and mean something else.
	Nodes func(config json.RawMessage) []string
	// Faults, Actions, Probes and Checks map each name to the check of its
	// params; nil means that it takes none.
	Faults  map[string]func(json.RawMessage) error
	Actions map[string]func(json.RawMessage) error
	Probes  map[string]func(json.RawMessage) error
	Checks  map[string]func(json.RawMessage) error
}

// FieldProblem is an error of a driver about one field of its configuration.
// Its field is a path within the configuration.
type FieldProblem interface {
	error
	FieldProblem() (field, value, fix string)
}

// EntriesOf lists the entries of an inventory that a drill's targets name, as far
// as it can be read, whatever else is wrong with it. Who has that inventory can
// say the rest.
func EntriesOf(raw []byte) []string {
	d, _ := parse(raw)
	var out []string
	for _, t := range d.Spec.Targets {
		if t.Inventory != "" {
			out = append(out, t.Inventory)
		}
	}
	return out
}

// targetChecker checks a resolved drill against the drivers that it names.
type targetChecker struct {
	*findings
	known map[string]knownTarget
}

// knownTarget is a target whose driver is known.
type knownTarget struct {
	Catalogue
	// nodes are the names that params.node may have; nil when any will do.
	nodes []string
}

func (c *targetChecker) check(d Drill, lookup func(driver string) (Catalogue, bool)) {
	for i, t := range d.Spec.Targets {
		if t.Driver == "" {
			continue // it is missing, or the inventory has no such entry: that has been said
		}
		if cat, ok := c.config(fmt.Sprintf("spec.targets[%d]", i), t.Driver, t.Config, lookup); ok {
			known := knownTarget{Catalogue: cat}
			if cat.Nodes != nil {
				known.nodes = cat.Nodes(t.Config)
			}
			c.known[t.Name] = known
		}
	}
	for i, p := range d.Spec.Phases {
		c.phase(fmt.Sprintf("spec.phases[%d]", i), p)
	}
}

// config checks the driver's name and the configuration at a target or an entry.
func (c *targetChecker) config(at, driver string, config json.RawMessage, lookup func(driver string) (Catalogue, bool)) (Catalogue, bool) {
	cat, ok := lookup(driver)
	if !ok {
		c.add(at+".driver", driver, "there is no such driver: "+suggest(driver, cat.Drivers))
		return cat, false
	}
	if cat.CheckConfig != nil {
		c.driver(at+".config", cat.CheckConfig(config))
	}
	return cat, true
}

func (c *targetChecker) phase(at string, p Phase) {
	for i, q := range p.Probes {
		at := fmt.Sprintf("%s.probes[%d]", at, i)
		c.operation(at, "probe", q.Target, q.Probe, q.Params)
		c.of(at+".params.of", q, p.Probes)
	}
	for i, f := range p.Faults {
		c.operation(fmt.Sprintf("%s.faults[%d]", at, i), "fault", f.Target, f.Fault, f.Params)
	}
	for i, a := range p.Recovery {
		c.operation(fmt.Sprintf("%s.recovery[%d]", at, i), "action", a.Target, a.Action, a.Params)
	}
	for i, a := range p.Restore.Actions {
		c.operation(fmt.Sprintf("%s.restore.actions[%d]", at, i), "action", a.Target, a.Action, a.Params)
	}
	for i, k := range p.Checks {
		c.operation(fmt.Sprintf("%s.checks[%d]", at, i), "check", k.Target, k.Check, k.Params)
	}
	for i, k := range p.Restore.Checks {
		c.operation(fmt.Sprintf("%s.restore.checks[%d]", at, i), "check", k.Target, k.Check, k.Params)
	}
}

// operation checks one fault, action, probe or check. kind is also the name of
// the field that holds it.
func (c *targetChecker) operation(at, kind, target, name string, params json.RawMessage) {
	t, ok := c.known[target]
	if !ok {
		// The target itself is wrong, and that has been said.
		return
	}
	all := map[string]map[string]func(json.RawMessage) error{
		"fault": t.Faults, "action": t.Actions, "probe": t.Probes, "check": t.Checks,
	}[kind]
	check, ok := all[name]
	if kind == "check" && name == LedgerCheck && !ok {
		check, ok = nil, true
	}
	if !ok {
		names := slices.Sorted(maps.Keys(all))
		if kind == "check" && !slices.Contains(names, LedgerCheck) {
			names = append(names, LedgerCheck)
		}
		c.addf(at+"."+kind, name, "the driver of target %s has no such %s: %s", target, kind, suggest(name, names))
		return
	}
	switch {
	case check != nil:
		c.driver(at+".params", check(params))
		c.node(at+".params.node", target, t.nodes, params)
	case len(params) > 0 && string(params) != "{}":
		c.addf(at+".params", "", "%s %s takes no params: remove them", kind, name)
	}
}

// of checks the probe whose canaries another reads. With a misspelt one, every read
// would look stale.
func (c *targetChecker) of(path string, p Probe, probes []Probe) {
	if p.Of() == "" {
		return
	}
	var others []string
	for _, q := range probes {
		if q.Name != p.Name && q.Target == p.Target {
			others = append(others, q.Name)
		}
	}
	switch {
	case slices.Contains(others, p.Of()):
	case len(others) == 0:
		c.addf(path, p.Of(), "no other probe of this phase watches target %s: add the write probe whose canaries are to be read", p.Target)
	default:
		c.addf(path, p.Of(), "no other probe of this phase that watches target %s has this name: %s", p.Target, suggest(p.Of(), others))
	}
}

// node checks the node that params name. Without it a misspelt one would be found
// only when the plan asks the target.
func (c *targetChecker) node(path, target string, nodes []string, params json.RawMessage) {
	var p struct {
		Node string `json:"node"`
	}
	if len(nodes) == 0 || json.Unmarshal(params, &p) != nil || p.Node == "" || slices.Contains(nodes, p.Node) {
		return
	}
	c.addf(path, p.Node, "target %s has no such node: %s", target, suggest(p.Node, nodes))
}

// driver notes a driver's errors about the subtree at path, each on its field.
func (c *targetChecker) driver(path string, err error) {
	for e := range joined.Leaves(err) {
		var f FieldProblem
		if !errors.As(e, &f) {
			c.add(path, "", e.Error())
			continue
		}
		at := path
		field, value, fix := f.FieldProblem()
		if field != "" {
			at += "." + field
		}
		c.add(at, value, fix)
	}
}

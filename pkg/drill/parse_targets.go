package drill

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Catalogue is what CheckTargets needs to know of a driver. Services fill it
// from the driver's description; the core does not know drivers.
type Catalogue struct {
	// Drivers names every driver of the process, also when the one looked up is
	// not among them.
	Drivers []string
	// CheckConfig reads a target's configuration without touching anything; nil
	// takes any.
	CheckConfig func(json.RawMessage) error
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

// CheckTargets checks a drill against the drivers that it names: drivers, their
// configurations, faults, actions, probes, checks and their params. The error is
// *Problems without positions; Locate adds them.
func CheckTargets(d Drill, lookup func(driver string) (Catalogue, bool)) error {
	c := &targetChecker{findings: &findings{}, known: map[string]Catalogue{}}
	for i, t := range d.Spec.Targets {
		if cat, ok := c.config(fmt.Sprintf("spec.targets[%d]", i), t.Driver, t.Config, lookup); ok {
			c.known[t.Name] = cat
		}
	}
	for i, p := range d.Spec.Phases {
		c.phase(fmt.Sprintf("spec.phases[%d]", i), p)
	}
	return c.err()
}

type targetChecker struct {
	*findings
	known map[string]Catalogue
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
		c.operation(fmt.Sprintf("%s.probes[%d]", at, i), "probe", q.Target, q.Probe, q.Params)
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
	cat, ok := c.known[target]
	if !ok {
		// The target itself is wrong, and that has been said.
		return
	}
	all := map[string]map[string]func(json.RawMessage) error{
		"fault": cat.Faults, "action": cat.Actions, "probe": cat.Probes, "check": cat.Checks,
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
	case len(params) > 0 && string(params) != "{}":
		c.addf(at+".params", "", "%s %s takes no params: remove them", kind, name)
	}
}

// driver notes a driver's errors about the subtree at path, each on its field.
func (c *targetChecker) driver(path string, err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			c.driver(path, e)
		}
		return
	}
	var f FieldProblem
	if errors.As(err, &f) {
		field, value, fix := f.FieldProblem()
		if field != "" {
			path += "." + field
		}
		c.add(path, value, fix)
		return
	}
	c.add(path, "", err.Error())
}

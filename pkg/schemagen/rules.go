package schemagen

import (
	"encoding/json"
	"maps"
	"strconv"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/invopop/jsonschema"
)

func constant(v string) Rule { return func(s *jsonschema.Schema) { s.Const = v } }

func pattern(p string) Rule { return func(s *jsonschema.Schema) { s.Pattern = p } }

func object(s *jsonschema.Schema) { s.Type = "object" }

func between(lo, hi int64) Rule {
	return func(s *jsonschema.Schema) {
		s.Minimum, s.Maximum = number(lo), number(hi)
	}
}

func atLeast(lo int64) Rule { return func(s *jsonschema.Schema) { s.Minimum = number(lo) } }

func number(v int64) json.Number { return json.Number(strconv.FormatInt(v, 10)) }

// length bounds a text, in characters.
func length(lo, hi uint64) Rule {
	return func(s *jsonschema.Schema) { s.MinLength, s.MaxLength = &lo, &hi }
}

// entries bounds a list.
func entries(lo, hi uint64) Rule {
	return func(s *jsonschema.Schema) {
		if lo > 0 {
			s.MinItems = &lo
		}
		s.MaxItems = &hi
	}
}

func itemsPattern(p string) Rule { return func(s *jsonschema.Schema) { s.Items.Pattern = p } }

// envelopeRules are what event.Open asks of an envelope's fields, as far as a
// schema can say it.
func envelopeRules() map[string]Rule {
	const token = `^[A-Za-z0-9._:-]{1,128}$`
	return map[string]Rule{
		"event.Event.specversion":     constant(event.SpecVersion),
		"event.Event.id":              pattern(token),
		"event.Event.source":          pattern(`^/firedrill/[a-z]+/[A-Za-z0-9._:-]{1,128}$`),
		"event.Event.type":            pattern(`^[a-z0-9]+(\.[a-z0-9]+)+$`),
		"event.Event.subject":         pattern(`^[A-Za-z0-9_-]{1,100}$`),
		"event.Event.datacontenttype": constant(event.DataContentType),
		"event.Event.dataschema":      func(s *jsonschema.Schema) { s.Format = "uri" },
		"event.Event.traceparent":     pattern(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`),
		"event.Event.clock":           pattern(token),
		"event.Event.chainindex":      between(1, 1<<31-1),
		"event.Event.prevhash":        pattern(`^[0-9a-f]{64}$`),
		"event.Event.signer":          pattern(`^U[A-Z2-7]{55}$`),
		"event.Event.data":            object,
		"event.Event.signature":       pattern(`^[A-Za-z0-9_-]{86}$`),
	}
}

// drillRules are what drill.Parse asks of a drill's fields, as far as a schema
// can say it.
func drillRules() map[string]Rule {
	rules := map[string]Rule{
		"drill.Drill.apiVersion":  constant(drill.APIVersion),
		"drill.Drill.kind":        constant(drill.Kind),
		"drill.Metadata.title":    length(0, 200),
		"drill.Metadata.labels":   labels,
		"drill.Spec.description":  length(0, 8<<10),
		"drill.Spec.participants": entries(0, 100),
		"drill.Spec.targets":      targets,
		"drill.Spec.phases":       entries(1, 100),
		"drill.Target.config":     object,
		"drill.Objective.rpo": func(s *jsonschema.Schema) {
			one := uint64(1)
			s.MinProperties = &one
		},
		"drill.RPO.records":          atLeast(0),
		"drill.Phase.title":          length(0, 200),
		"drill.Phase.probes":         entries(1, 100),
		"drill.Phase.faults":         entries(1, 100),
		"drill.Phase.recovery":       entries(0, 100),
		"drill.Phase.checks":         entries(0, 100),
		"drill.Phase.keep":           entries(0, 100),
		"drill.Restore.actions":      entries(0, 100),
		"drill.Restore.checks":       entries(0, 100),
		"drill.Keep.from":            pattern(drill.LocationPattern),
		"drill.Keep.to":              pattern(drill.LocationPattern),
		"drill.Target.driver":        pattern(drill.OperationPattern),
		"drill.Probe.probe":          pattern(drill.OperationPattern),
		"drill.Fault.fault":          pattern(drill.OperationPattern),
		"drill.Action.action":        pattern(drill.OperationPattern),
		"drill.Check.check":          pattern(drill.OperationPattern),
		"drill.Phase.stopConditions": entries(0, 100),
	}
	maps.Copy(rules, guardRules())
	rules["drill.Target.inventory"] = pattern(drill.NamePattern)
	for _, named := range []string{"Metadata", "Target", "Phase", "Probe", "Fault", "Action", "Check", "Keep"} {
		rules["drill."+named+".name"] = pattern(drill.NamePattern)
	}
	for _, ref := range []string{"Probe.target", "Fault.target", "Action.target", "Check.target", "StopCondition.probe"} {
		rules["drill."+ref] = pattern(drill.NamePattern)
	}
	for _, free := range []string{"Probe", "Fault", "Action", "Check"} {
		rules["drill."+free+".params"] = object
	}
	return rules
}

// guardRules are those of the guard rails, which drills and inventories have.
func guardRules() map[string]Rule {
	return map[string]Rule{
		"drill.Guards.protect":  itemsPattern(`\S`),
		"drill.Guards.maxParts": between(1, 1000),
		"drill.Guards.windows":  entries(0, 100),
		"drill.Window.days":     days,
		"drill.Window.from":     pattern(drill.ClockPattern),
		"drill.Window.to":       pattern(drill.ClockPattern),
	}
}

// inventoryRules are what drill.ParseInventory asks.
func inventoryRules() map[string]Rule {
	rules := guardRules()
	maps.Copy(rules, map[string]Rule{
		"drill.Inventory.apiVersion":   constant(drill.APIVersion),
		"drill.Inventory.kind":         constant(drill.InventoryKind),
		"drill.InventorySpec.targets":  entries(0, 100),
		"drill.InventorySpec.keepFrom": itemsPattern(drill.LocationPattern),
		"drill.InventorySpec.keepTo":   itemsPattern(drill.LocationPattern),
		"drill.Entry.name":             pattern(drill.NamePattern),
		"drill.Entry.driver":           pattern(drill.OperationPattern),
		"drill.Entry.config":           object,
	})
	return rules
}

// targets name an entry of the inventory, or bring a driver and its configuration.
func targets(s *jsonschema.Schema) {
	entries(1, 100)(s)
	s.Items.AnyOf = []*jsonschema.Schema{{Required: []string{"inventory"}}, {Required: []string{"driver", "config"}}}
}

func labels(s *jsonschema.Schema) {
	s.PropertyNames = &jsonschema.Schema{Pattern: drill.OperationPattern}
	hi := uint64(200)
	s.AdditionalProperties = &jsonschema.Schema{Type: "string", MaxLength: &hi}
}

func days(s *jsonschema.Schema) {
	s.Items = &jsonschema.Schema{Type: "string", Enum: []any{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}}
	s.UniqueItems = true
}

package drill

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/firedrill/firedrill/pkg/event"
)

// UndoKind is the kind of a request to undo what an earlier drill left.
const UndoKind = "Undo"

// Undo asks for what an earlier drill could not undo to be tried again. It
// becomes a drill of its own, a settlement, with a report of its own: the earlier
// history is closed and stays as it is.
type Undo struct {
	APIVersion string   `json:"apiVersion" jsonschema:"const=firedrill/v1"`
	Kind       string   `json:"kind" jsonschema:"const=Undo"`
	Metadata   Metadata `json:"metadata"`
	Spec       UndoSpec `json:"spec"`
}

// UndoSpec says what is to be undone.
type UndoSpec struct {
	// Drill is the id of the earlier drill.
	Drill string `json:"drill"`
	// Targets describe targets of that drill anew, by their names in it, where what it
	// brought was wrong or does not hold any more. The others are as they were. Each must
	// still be the system that the drill changed.
	Targets []Target `json:"targets,omitempty"`
	// LetGo, if not empty, has nothing undone: what is owed was seen to by hand, or will
	// be, and this says how. Whatever the systems look like, drills may then have them
	// again.
	LetGo string `json:"letGo,omitempty"`
}

// KindOf reads a document's kind without checking anything else; empty when it
// cannot be read.
func KindOf(raw []byte) string {
	return kindOf(readDocument(raw, &findings{places: map[string]position{}}))
}

func kindOf(root *yaml.Node) string {
	if root == nil {
		return ""
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "kind" {
			return root.Content[i+1].Value
		}
	}
	return ""
}

// ParseUndo reads a request to undo from YAML or JSON, as strictly as Parse reads
// a drill. The error is *Problems.
func ParseUndo(raw []byte) (Undo, error) {
	u, f := parseUndo(raw)
	if err := f.err(); err != nil {
		return Undo{}, err
	}
	return u, nil
}

func parseUndo(raw []byte) (Undo, *findings) {
	var u Undo
	f := decode(raw, "a request to undo is a mapping that begins with apiVersion, kind, metadata and spec", &u)
	if f.decoded {
		c := &checker{findings: f, drill: &Drill{}}
		if u.APIVersion != APIVersion {
			c.add("apiVersion", u.APIVersion, "this build reads only "+APIVersion)
		}
		c.name("metadata.name", u.Metadata.Name)
		if !event.IsDrillID(u.Spec.Drill) {
			c.add("spec.drill", u.Spec.Drill, "this is no drill's id: `firedrill list` shows them")
		}
		c.reason("spec.letGo", u.Spec.LetGo)
		if u.Spec.LetGo != "" && len(u.Spec.Targets) > 0 {
			c.add("spec.targets", "", "with letGo nothing is done to them: leave one of the two out")
		}
		c.unique("spec.targets", "target", namesOf(u.Spec.Targets, func(t Target) string { return t.Name }))
		for i, t := range u.Spec.Targets {
			c.checkTarget(fmt.Sprintf("spec.targets[%d]", i), t)
		}
	}
	return u, f
}

// reason checks a text that stays in the history and the report as somebody's word.
func (c *checker) reason(at, s string) {
	c.line(at, s)
	if s != "" && strings.TrimSpace(s) == "" {
		c.add(at, "", "blanks are no reason: say what was done by hand, or will be")
	}
	if holdsSecret(s) {
		c.add(at, "", "this text holds what looks like a password, and would be kept in the history and the report: leave it out")
	}
}

// Settle returns an earlier drill as what it left may be undone now, on the targets
// that owe something. They get the configuration that the inventory has today: what
// is run is the operator's word of today, and a host may have moved meanwhile. One that
// the request describes anew gets that, under the rules by which a drill may bring it.
// The error says what has to be in the inventory, or is *Problems with the request. d
// is left as it was.
func (inv Inventory) Settle(d Drill, owing []string, r Request, lookup func(driver string) (Catalogue, bool)) (Drill, error) {
	d.Spec.Targets = slices.Clone(d.Spec.Targets)
	anew, err := inv.describedAnew(d, r, lookup)
	if err != nil {
		return d, err
	}
	var errs []error
	for i := range d.Spec.Targets {
		t := &d.Spec.Targets[i]
		if described, ok := anew[t.Name]; ok {
			*t = described
		} else if slices.Contains(owing, t.Name) {
			errs = append(errs, inv.settleTarget(t))
		}
	}
	return d, errors.Join(errs...)
}

// describedAnew resolves and checks what a request to undo says of the drill's targets.
// The error is *Problems.
func (inv Inventory) describedAnew(d Drill, r Request, lookup func(driver string) (Catalogue, bool)) (map[string]Target, error) {
	found := *r.found
	found.list = slices.Clone(found.list)
	f := &found
	names := namesOf(d.Spec.Targets, func(t Target) string { return t.Name })
	out := map[string]Target{}
	for i, t := range r.undo.Spec.Targets {
		at := fmt.Sprintf("spec.targets[%d]", i)
		was, err := d.Target(t.Name)
		if err != nil {
			f.add(at+".name", t.Name, "the drill has no such target: "+suggest(t.Name, names))
			continue
		}
		inv.resolveTarget(f, at, &t)
		switch {
		case t.Driver == "": // the inventory has no such entry: that has been said
		case t.Driver != was.Driver:
			f.add(at+".driver", t.Driver, "the drill changed this target by driver "+was.Driver+", which alone can undo it")
		default:
			(&targetChecker{findings: f}).config(at, t.Driver, t.Config, lookup)
		}
		out[t.Name] = t
	}
	return out, f.err()
}

func (inv Inventory) settleTarget(t *Target) error {
	i := slices.IndexFunc(inv.Spec.Targets, func(e Entry) bool { return e.Name == t.Inventory })
	switch {
	case i >= 0 && inv.Spec.Targets[i].Driver != t.Driver:
		return fmt.Errorf("target %q: the inventory's entry %q is of driver %q now, and was of %q: give it back its driver until the undo has succeeded",
			t.Name, t.Inventory, inv.Spec.Targets[i].Driver, t.Driver)
	case i >= 0:
		t.Config = inv.Spec.Targets[i].Config
	case inv.Spec.InlineTargets: // then anybody may bring that configuration
	case t.Inventory != "":
		return fmt.Errorf("target %q: the inventory has no entry %q any more: put it back until the undo has succeeded", t.Name, t.Inventory)
	default:
		return fmt.Errorf("target %q: it brought a configuration of its own, which the inventory does not let any more: set inlineTargets: true until the undo has succeeded", t.Name)
	}
	return nil
}

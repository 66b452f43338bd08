package drill

import "github.com/firedrill/firedrill/pkg/event"

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
}

// KindOf reads a document's kind without checking anything else; empty when it
// cannot be read.
func KindOf(raw []byte) string {
	root := readDocument(raw, &findings{places: map[string]position{}})
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

// CheckRequest reads a request of either kind, a drill or an undo, as far as that
// can be done without drivers and inventory. The error is *Problems.
func CheckRequest(raw []byte) (kind, name string, err error) {
	if KindOf(raw) == UndoKind {
		u, err := ParseUndo(raw)
		return UndoKind, u.Metadata.Name, err
	}
	d, err := Parse(raw)
	return Kind, d.Metadata.Name, err
}

// ParseUndo reads a request to undo from YAML or JSON, as strictly as Parse reads
// a drill. The error is *Problems.
func ParseUndo(raw []byte) (Undo, error) {
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
	}
	if err := f.err(); err != nil {
		return Undo{}, err
	}
	return u, nil
}

package drill

import "slices"

// Request is a request for a drill or for an undo, parsed and not judged yet: what
// is wrong with it is told by Drill and Undo.
type Request struct {
	drill Drill
	undo  *Undo
	found *findings
}

// ParseRequest reads a request of either kind from YAML or JSON. It keeps nothing of
// raw.
func ParseRequest(raw []byte) Request {
	d, f := parse(raw)
	if f.kind != UndoKind {
		return Request{drill: d, found: f}
	}
	u, f := parseUndo(raw)
	return Request{undo: &u, found: f}
}

// Kind is UndoKind for a request to undo, and Kind for everything else.
func (r Request) Kind() string {
	if r.undo != nil {
		return UndoKind
	}
	return Kind
}

// Name is the name that the request gives its drill, as far as it could be read.
func (r Request) Name() string {
	if r.undo != nil {
		return r.undo.Metadata.Name
	}
	return r.drill.Metadata.Name
}

// Drill is the drill that is asked for, as Read reads it from the same text.
func (r Request) Drill(inv Inventory, lookup func(driver string) (Catalogue, bool)) (Drill, error) {
	// What this inventory and these drivers find is no property of the request.
	found := *r.found
	found.list = slices.Clone(found.list)
	d, f := r.drill, &found
	if f.decoded {
		d = inv.resolve(f, d)
		(&targetChecker{findings: f, known: map[string]knownTarget{}}).check(d, lookup)
	}
	if err := f.err(); err != nil {
		return Drill{}, err
	}
	return d, nil
}

// Undo is what a request of UndoKind asks for, as ParseUndo reads it.
func (r Request) Undo() (Undo, error) {
	if err := r.found.err(); err != nil {
		return Undo{}, err
	}
	return *r.undo, nil
}

// CheckRequest reads a request of either kind as far as that can be done without
// drivers and inventory. The error is *Problems.
func CheckRequest(raw []byte) (kind, name string, err error) {
	r := ParseRequest(raw)
	return r.Kind(), r.Name(), r.found.err()
}

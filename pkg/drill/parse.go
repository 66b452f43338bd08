package drill

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Limits of a drill's text.
const (
	// MaxSize is the largest text that is read, in bytes.
	MaxSize = 1 << 20
	// MaxDepth is how deep its mappings and lists may nest.
	MaxDepth = 32
	// MaxNodes is how many values it may hold.
	MaxNodes = 20_000
)

// Parse reads a drill from YAML or JSON and checks all that can be checked
// without an inventory and the drivers (Read does the rest). It is strict: what
// it does not understand is refused, never passed over. The error is *Problems
// and lists everything that is wrong, with line and column. Parse keeps nothing
// of raw.
func Parse(raw []byte) (Drill, error) {
	d, f := parse(raw)
	if err := f.err(); err != nil {
		return Drill{}, err
	}
	return d, nil
}

// Read is Parse and then all else that can be said of a drill without asking its
// targets: it resolves the drill with the inventory and checks it against the
// drivers that it names. The error is *Problems and lists what each of the three
// finds, so that whoever mends a drill sees everything at once.
func Read(raw []byte, inv Inventory, lookup func(driver string) (Catalogue, bool)) (Drill, error) {
	d, f := parse(raw)
	return Request{drill: d, found: f}.Drill(inv, lookup)
}

// parse does the work of Parse and keeps the positions.
func parse(raw []byte) (Drill, *findings) {
	var d Drill
	f := decode(raw, "a drill is a mapping that begins with apiVersion, kind, metadata and spec", &d)
	if f.decoded {
		(&checker{findings: f, drill: &d}).check()
	}
	return d, f
}

// decode reads a document into v, a pointer to a struct. what says what such a
// document looks like.
func decode(raw []byte, what string, v any) *findings {
	f := &findings{places: map[string]position{}}
	root := readDocument(raw, f)
	if root == nil || !(&tree{findings: f}).screen(root, "", 0) {
		return f
	}
	if root.Kind != yaml.MappingNode {
		f.add("", "", what+"; this is "+kindName(root))
		return f
	}
	f.kind = kindOf(root)
	if (&decoder{findings: f}).otherKind(root, v) {
		return f
	}
	(&decoder{findings: f}).value(root, "", reflect.ValueOf(v).Elem())
	f.decoded = true
	return f
}

// readDocument turns the text into nodes; nil means that it could not, and that
// the findings say why.
func readDocument(raw []byte, f *findings) *yaml.Node {
	top := position{1, 1}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	switch {
	case len(raw) > MaxSize:
		f.addAt(top, "", "", fmt.Sprintf("the text has %d bytes; a drill may have %d: split it into several drills", len(raw), MaxSize))
		return nil
	case !utf8.Valid(raw):
		f.addAt(badText(raw), "", "", "the text is not UTF-8 here: save the file as UTF-8")
		return nil
	case len(bytes.TrimSpace(raw)) == 0:
		f.addAt(top, "", "", "the text is empty: begin it with apiVersion: "+APIVersion)
		return nil
	}
	if n, ok := readJSON(raw); ok {
		return n
	}
	return readYAML(raw, f)
}

func readYAML(raw []byte, f *findings) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, next yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		f.addAt(position{1, 1}, "", "", "the text holds nothing but comments: begin it with apiVersion: "+APIVersion)
		return nil
	case err != nil:
		addSyntax(raw, err, f)
		return nil
	}
	switch err := dec.Decode(&next); {
	case err == nil:
		f.addAt(position{next.Line, next.Column}, "", "", "a second document begins here: put each into a file of its own")
		return nil
	case !errors.Is(err, io.EOF):
		addSyntax(raw, err, f)
		return nil
	}
	if len(doc.Content) == 0 {
		f.addAt(position{1, 1}, "", "", "the text is empty: begin it with apiVersion: "+APIVersion)
		return nil
	}
	return doc.Content[0]
}

// positionOf turns an offset into a position.
func positionOf(raw []byte, offset int) position {
	before := raw[:min(max(offset, 0), len(raw))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return position{bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1}
}

// badText finds the first byte that is not UTF-8.
func badText(raw []byte) position {
	offset := 0
	for offset < len(raw) {
		r, n := utf8.DecodeRune(raw[offset:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		offset += n
	}
	return positionOf(raw, offset)
}

// kindName says in words what a node is.
func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	}
	return "text"
}

package drill

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/lazy"

	"go.yaml.in/yaml/v3"
)

// tree screens a document before anything reads it: only plain mappings, lists
// and values, each key once, nothing too deep or too many, no secrets.
type tree struct {
	*findings
	nodes int
}

// screen walks the node at path. false means that the document must not be read
// any further.
func (t *tree) screen(n *yaml.Node, path string, depth int) bool {
	t.nodes++
	if _, ok := t.places[path]; !ok {
		t.places[path] = position{n.Line, n.Column}
	}
	at := position{n.Line, n.Column}
	switch {
	case t.nodes > MaxNodes:
		t.list = nil
		t.addAt(at, path, "", "the drill has more than "+strconv.Itoa(MaxNodes)+" values: split it into several drills")
		return false
	case depth > MaxDepth:
		t.addAt(at, path, "", "mappings and lists nest more than "+strconv.Itoa(MaxDepth)+" deep: flatten them")
		return false
	case n.Kind == yaml.AliasNode:
		t.addAt(at, path, "", "aliases are not read: write the value out, or put a text that begins with * into quotes")
		return true
	case n.Anchor != "":
		t.addAt(at, path, "", "anchors are not read: write the value out, or put a text that begins with & into quotes")
		return true
	case !plainTag(n):
		t.addAt(at, path, "", "YAML tags are not read: remove it, or put a text that begins with ! into quotes")
		return true
	}
	switch n.Kind {
	case yaml.MappingNode:
		return t.screenMapping(n, path, depth)
	case yaml.SequenceNode:
		for i, c := range n.Content {
			if !t.screen(c, path+"["+strconv.Itoa(i)+"]", depth+1) {
				return false
			}
		}
	}
	return true
}

func (t *tree) screenMapping(n *yaml.Node, path string, depth int) bool {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		t.nodes++
		if t.nodes > MaxNodes {
			return t.screen(v, path, depth+1)
		}
		at := position{k.Line, k.Column}
		if k.ShortTag() == "!!merge" {
			t.addAt(at, path, "", "merge keys are not read: write the fields out")
			continue
		}
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" || k.Anchor != "" {
			t.addAt(at, path, "", "a field's name must be plain text: put it into quotes")
			continue
		}
		child := join(path, k.Value)
		if line, dup := seen[k.Value]; dup {
			t.addAt(at, child, "", "this field was already set on line "+strconv.Itoa(line)+": keep one of the two")
			continue
		}
		seen[k.Value] = k.Line
		if !t.screen(v, child, depth+1) {
			return false
		}
	}
	return true
}

// plainTag reports whether a node has no tag beyond those that its own shape
// gives it.
func plainTag(n *yaml.Node) bool {
	if n.Style&yaml.TaggedStyle != 0 {
		return false
	}
	switch n.ShortTag() {
	case "!!map", "!!seq", "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp":
		return true
	}
	return false
}

var simpleKey = lazy.Regexp(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// join adds a field's name to a path.
func join(path, key string) string {
	switch {
	case !simpleKey().MatchString(key):
		return path + "[" + strconv.Quote(clip(key, maxValue)) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// free turns a driver's own subtree (config or params) into JSON. It refuses
// values that YAML and JSON read differently, and inline secrets.
type free struct{ *findings }

// value returns what encoding/json marshals to the node's JSON. key is the
// nearest field's name; secret says that a field around it is named like a
// secret, so that key may only be part of a reference.
func (f free) value(n *yaml.Node, path, key string, secret bool) any {
	switch n.Kind {
	case yaml.MappingNode:
		secret = secret || secretKey(key)
		out := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i].Value
			out[k] = f.value(n.Content[i+1], join(path, k), k, secret)
		}
		return out
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		ended := false // the options, by "--"
		for i, c := range n.Content {
			of := key
			if ended = ended || c.Value == "--"; i > 0 && !ended && secretAfter(n.Content[i-1].Value, c.Value) {
				of = n.Content[i-1].Value
			}
			out = append(out, f.value(c, path+"["+strconv.Itoa(i)+"]", of, secret))
		}
		return out
	case yaml.ScalarNode:
		return f.scalar(n, path, key, secret)
	}
	return nil
}

func (f free) scalar(n *yaml.Node, path, key string, secret bool) any {
	tag := n.ShortTag()
	if tag == "!!null" {
		f.add(path, "", "this field is empty: give it a value or remove it")
		return nil
	}
	if tag == "!!bool" {
		return strings.EqualFold(n.Value, "true")
	}
	inline := secret && !referenceKey(key) || !secret && secretKey(key)
	if n.Value != "" && (inline || holdsSecret(n.Value)) {
		f.add(path, "", "a drill never holds a secret: refer to it by {env: NAME} or {file: /path}")
		return nil
	}
	if tag == "!!int" || tag == "!!float" {
		return f.number(n, path)
	}
	if n.Style == 0 && looksNumber().MatchString(n.Value) {
		f.add(path, n.Value, "this number is too large: put it into quotes if it is text")
	}
	return n.Value
}

var (
	looksNumber  = lazy.Regexp(`^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
	plainInteger = lazy.Regexp(`^(0|-?[1-9][0-9]*)$`)
	plainFloat   = lazy.Regexp(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
)

// number reads a number that YAML, JSON and people read alike.
func (f free) number(n *yaml.Node, path string) any {
	switch {
	case plainInteger().MatchString(n.Value):
		if v, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			return v
		}
		f.add(path, n.Value, "this number has more than 64 bits: put it into quotes if it is text")
	case plainFloat().MatchString(n.Value):
		if v, err := strconv.ParseFloat(n.Value, 64); err == nil && !math.IsInf(v, 0) {
			return v
		}
		f.add(path, n.Value, "this number is too large: put it into quotes if it is text")
	case strings.Contains(strings.ToLower(n.Value), "nan") || strings.Contains(strings.ToLower(n.Value), "inf"):
		f.add(path, n.Value, "this is not a finite number: write a number in decimal digits")
	default:
		f.add(path, n.Value, "this number can be read in two ways: write it in plain decimal digits, or put it into quotes if it is text")
	}
	return nil
}

// raw is value as JSON text, with sorted fields.
func (f free) raw(n *yaml.Node, path string) json.RawMessage {
	b, err := json.Marshal(f.value(n, path, "", false))
	if err != nil {
		f.add(path, "", "this cannot be written as JSON: "+err.Error())
		return nil
	}
	return b
}

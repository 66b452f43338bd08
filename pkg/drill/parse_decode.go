package drill

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lazy"
	"go.yaml.in/yaml/v3"
)

// decoder fills Go values from screened nodes and notes every mismatch.
type decoder struct{ *findings }

var (
	durationType = reflect.TypeFor[event.Duration]()
	rawType      = reflect.TypeFor[json.RawMessage]()
	secretType   = reflect.TypeFor[SecretSource]()
)

// otherKind notes a document that is another of firedrill's kinds than the wanted
// one, which v points at. Nothing else is said of it then: every further problem
// would be one of the wrong kind.
func (d *decoder) otherKind(root *yaml.Node, v any) bool {
	type document struct{ name, use string }
	kinds := map[string]document{
		Kind:          {"a drill", "give it to `firedrill run`"},
		InventoryKind: {"an inventory", "give it to firedrill with --inventory"},
		UndoKind:      {"a request to undo", "publish it as a request, or use `firedrill undo`"},
	}
	want := map[reflect.Type]string{
		reflect.TypeFor[*Drill](): Kind, reflect.TypeFor[*Inventory](): InventoryKind, reflect.TypeFor[*Undo](): UndoKind,
	}[reflect.TypeOf(v)]
	for i := 0; i+1 < len(root.Content); i += 2 {
		found, known := kinds[root.Content[i+1].Value]
		if root.Content[i].Value == "kind" && known && root.Content[i+1].Value != want {
			d.addf("kind", root.Content[i+1].Value, "this is %s, not %s: %s", found.name, kinds[want].name, found.use)
			return true
		}
	}
	return false
}

// value decodes the node at path into v.
func (d *decoder) value(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		d.add(path, "", "this field is empty: give it a value or remove it")
		return
	}
	switch v.Type() {
	case durationType:
		d.duration(n, path, v)
		return
	case rawType:
		if d.kind(n, path, yaml.MappingNode, "a mapping") {
			v.SetBytes(free{d.findings}.raw(n, path))
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.value(n, path, p.Elem())
		v.Set(p)
	case reflect.Struct:
		d.structure(n, path, v)
	case reflect.Slice:
		d.list(n, path, v)
	case reflect.Map:
		d.labels(n, path, v)
	default:
		d.scalar(n, path, v)
	}
}

// kind notes a node of another kind than the wanted.
func (d *decoder) kind(n *yaml.Node, path string, want yaml.Kind, name string) bool {
	if n.Kind == want {
		return true
	}
	d.addf(path, n.Value, "this must be %s, not %s", name, kindName(n))
	return false
}

func (d *decoder) structure(n *yaml.Node, path string, v reflect.Value) {
	if v.Type() == secretType && n.Kind == yaml.ScalarNode {
		d.add(path, "", "the secret itself never stands here: say where it is found, {env: NAME} or {file: PATH}")
		return
	}
	if !d.kind(n, path, yaml.MappingNode, "a mapping") {
		return
	}
	fields := fieldsOf(v.Type())
	set := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		f, ok := fields[k.Value]
		if !ok {
			// Looking for the nearest name costs too much to do it for what is
			// not going to be listed.
			fix := "there is no such field here"
			if len(d.findings.list) < MaxProblems {
				fix += ": " + elsewhere(k.Value, fields)
			}
			d.addAt(position{k.Line, k.Column}, join(path, k.Value), "", fix)
			continue
		}
		if set[k.Value] {
			continue
		}
		set[k.Value] = true
		d.value(n.Content[i+1], join(path, k.Value), v.Field(f.index))
	}
	for _, name := range requiredOf(v.Type()) {
		if !set[name] {
			d.addAt(position{n.Line, n.Column}, join(path, name), "", "this field is missing: "+fields[name].hint(name))
		}
	}
}

func (d *decoder) list(n *yaml.Node, path string, v reflect.Value) {
	if !d.kind(n, path, yaml.SequenceNode, "a list") {
		return
	}
	if len(n.Content) > maxItems {
		d.addf(path, "", "this list has %d entries; %d are allowed: split the drill", len(n.Content), maxItems)
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		d.value(c, path+"["+strconv.Itoa(i)+"]", out.Index(i))
	}
	if len(n.Content) > 0 {
		v.Set(out)
	}
}

func (d *decoder) labels(n *yaml.Node, path string, v reflect.Value) {
	if !d.kind(n, path, yaml.MappingNode, "a mapping") || len(n.Content) == 0 {
		return
	}
	out := reflect.MakeMap(v.Type())
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i].Value
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], join(path, k), e)
		out.SetMapIndex(reflect.ValueOf(k), e)
	}
	v.Set(out)
}

func (d *decoder) duration(n *yaml.Node, path string, v reflect.Value) {
	if !d.kind(n, path, yaml.ScalarNode, "a duration such as 30s") {
		return
	}
	t, err := time.ParseDuration(n.Value)
	switch tag := n.ShortTag(); {
	case tag == "!!int" || tag == "!!float":
		d.addf(path, n.Value, "a duration needs a unit: write %ss or %sms, in quotes in JSON", n.Value, n.Value)
	case tag != "!!str" || err != nil:
		d.add(path, n.Value, "this must be a duration: a number with a unit, such as 500ms, 30s, 5m or 2h")
	case t < 0:
		d.add(path, n.Value, "a duration cannot be negative: remove the minus sign")
	case t > maxDuration:
		d.addf(path, n.Value, "this is too long: the longest is %dh", int(maxDuration.Hours()))
	default:
		v.SetInt(int64(t))
	}
}

func (d *decoder) scalar(n *yaml.Node, path string, v reflect.Value) {
	names := map[reflect.Kind]string{reflect.String: "text", reflect.Bool: "true or false", reflect.Float64: "a number"}
	want, ok := names[v.Kind()]
	if !ok {
		want = "a whole number"
	}
	if !d.kind(n, path, yaml.ScalarNode, want) {
		return
	}
	tag := n.ShortTag()
	switch v.Kind() {
	case reflect.String:
		if tag != "!!str" && tag != "!!timestamp" {
			d.addf(path, n.Value, "this must be text, not %s: put it into quotes", kindName(n))
			return
		}
		d.text(n.Value, path, v)
	case reflect.Bool:
		if tag != "!!bool" {
			d.add(path, n.Value, "this must be true or false, without quotes")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Float64:
		d.float(n, path, v)
	default:
		i, err := strconv.ParseInt(n.Value, 10, v.Type().Bits())
		if tag != "!!int" || !plainInteger().MatchString(n.Value) || err != nil {
			fix := "this must be a whole number in decimal digits, without quotes"
			if errors.Is(err, strconv.ErrRange) {
				fix = fmt.Sprintf("this number has more than %d bits: use a smaller one", v.Type().Bits())
			}
			d.add(path, n.Value, fix)
			return
		}
		v.SetInt(i)
	}
}

func (d *decoder) text(s, path string, v reflect.Value) {
	for _, r := range s {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			d.add(path, "", "this text holds a control character: remove it")
			return
		}
	}
	if len(s) > maxText {
		d.addf(path, s, "this text has %d bytes; %d are allowed: shorten it", len(s), maxText)
		return
	}
	v.SetString(s)
}

func (d *decoder) float(n *yaml.Node, path string, v reflect.Value) {
	tag := n.ShortTag()
	f, err := strconv.ParseFloat(n.Value, 64)
	switch {
	case tag == "!!str" && strings.HasSuffix(n.Value, "%"):
		d.add(path, n.Value, "write the number without the % sign")
	case tag == "!!float" && (math.IsNaN(f) || math.IsInf(f, 0) || !plainFloat().MatchString(n.Value)):
		d.add(path, n.Value, "this is not a finite number in decimal digits: write one such as 99.9")
	case (tag != "!!int" && tag != "!!float") || err != nil || !plainFloat().MatchString(n.Value):
		d.add(path, n.Value, "this must be a number, without quotes")
	default:
		v.SetFloat(f)
	}
}

// field is one field of a definition's struct.
type field struct {
	index    int
	required bool
	kind     reflect.Type
}

// hint shows how a missing field is written.
func (f field) hint(name string) string {
	switch {
	case f.kind == durationType:
		return fmt.Sprintf("add %s: 5m, with your own value", name)
	case f.kind == rawType:
		return fmt.Sprintf("add %s: with the driver's fields, or {} if it has none", name)
	case name == "apiVersion":
		return "add apiVersion: " + APIVersion
	case name == "kind":
		return "add kind: " + Kind
	case f.kind.Kind() == reflect.Slice:
		return fmt.Sprintf("add %s: with a list of at least one entry", name)
	case f.kind.Kind() == reflect.Struct:
		return fmt.Sprintf("add %s: with the fields %s", name, strings.Join(requiredOf(f.kind), ", "))
	}
	return fmt.Sprintf("add %s: and its value", name)
}

// elsewhere ends the fix of an unknown field: where it belongs, or what it could be.
func elsewhere(name string, fields map[string]field) string {
	known := slices.Sorted(maps.Keys(fields))
	for _, k := range known {
		if t := fields[k].kind; t.Kind() == reflect.Struct {
			if _, ok := fieldsOf(t)[name]; ok {
				return fmt.Sprintf("put it into %s", k)
			}
		}
	}
	return suggest(name, known)
}

// fieldsOf maps the JSON names of a struct's fields.
func fieldsOf(t reflect.Type) map[string]field {
	out := make(map[string]field, t.NumField())
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		out[name] = field{index: i, required: !strings.Contains(options, "omitempty"), kind: t.Field(i).Type}
	}
	return out
}

// requiredOf lists a struct's required fields in their order.
func requiredOf(t reflect.Type) []string {
	fields := fieldsOf(t)
	var out []string
	for name, f := range fields {
		if f.required {
			out = append(out, name)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return fields[a].index - fields[b].index })
	return out
}

// NamePattern is what the names of drills, targets, phases and their parts
// look like: DNS labels, because they become parts of ids and subjects.
const NamePattern = `^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`

// OperationPattern is what a driver and its faults, actions, probes and checks
// are called.
const OperationPattern = `^[A-Za-z0-9][-A-Za-z0-9._]{0,62}$`

// LocationPattern is a place to copy from or to.
const LocationPattern = `^[a-z][a-z0-9]*:\S.*$`

// ClockPattern is a time of day in a window.
const ClockPattern = `^([01][0-9]|2[0-3]):[0-5][0-9]$`

var (
	namePattern      = lazy.Regexp(NamePattern)
	operationPattern = lazy.Regexp(OperationPattern)
	locationPattern  = lazy.Regexp(LocationPattern)
	clockPattern     = lazy.Regexp(ClockPattern)
)

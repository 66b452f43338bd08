// Package schemagen derives the published contract from the Go types: the JSON
// Schemas of the envelope, of every event, of a drill and of a keyring, the
// AsyncAPI document, a golden example of each event, and the catalogue page. The
// results are committed; Check compares them.
package schemagen

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/invopop/jsonschema"
)

// DurationPattern is a duration that is not negative, as time.ParseDuration
// reads it.
const DurationPattern = `^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)$`

// Option changes how Schema derives.
type Option func(*options)

type options struct {
	closed   bool
	title    string
	about    string
	comments Comments
	rules    map[string]Rule
}

// Closed refuses fields that the type does not have. Without it they are
// allowed, so that an older reader accepts what a newer writer adds.
func Closed() Option { return func(o *options) { o.closed = true } }

// Titled sets the schema's title.
func Titled(title string) Option { return func(o *options) { o.title = title } }

// About sets the schema's description, in place of the type's comment.
func About(text string) Option { return func(o *options) { o.about = text } }

// WithComments describes types and fields by their Go comments.
func WithComments(c Comments) Option { return func(o *options) { o.comments = c } }

// WithRules adds constraints to fields, each under "package.Type.field" with the
// field's JSON name.
func WithRules(rules map[string]Rule) Option { return func(o *options) { o.rules = rules } }

// Rule constrains the schema of one field.
type Rule func(*jsonschema.Schema)

// Schema derives the JSON Schema (2020-12) of a type, with id as its $id,
// indented and with a final newline. Equal input gives equal bytes.
func Schema(id string, t reflect.Type, opts ...Option) ([]byte, error) {
	var o options
	for _, f := range opts {
		f(&o)
	}
	r := &jsonschema.Reflector{
		Anonymous: true, ExpandedStruct: true, AllowAdditionalProperties: !o.closed,
		Mapper: mapType, Namer: defName, LookupComment: o.comments.lookup,
	}
	s := r.ReflectFromType(t)
	s.ID = jsonschema.ID(id)
	s.Title = o.title
	if o.about != "" {
		s.Description = o.about
	}
	f := finisher{options: o, used: map[string]bool{}}
	f.finish(t, s, s.Definitions, map[reflect.Type]bool{})
	for name := range o.rules {
		if !f.used[name] {
			return nil, fmt.Errorf("schema %s: the rule for %s fits no field", id, name)
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		return nil, fmt.Errorf("schema %s of %s: %w", id, t, err)
	}
	return b.Bytes(), nil
}

// defName keeps types of one name from two packages apart.
func defName(t reflect.Type) string {
	if t.Name() == "" || t.PkgPath() == "" {
		return t.Name()
	}
	return path.Base(t.PkgPath()) + "." + t.Name()
}

// mapType gives the schemas of types that travel in a form of their own.
func mapType(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[event.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: DurationPattern, Examples: []any{"500ms", "30s", "1h30m0s"}}
	case reflect.TypeFor[event.Nanos]():
		return &jsonschema.Schema{Type: "string", Pattern: `^-?[0-9]{1,19}$`}
	case reflect.TypeFor[event.Ranges]():
		two := uint64(2)
		pair := &jsonschema.Schema{Type: "array", Items: &jsonschema.Schema{Type: "integer"}, MinItems: &two, MaxItems: &two}
		return &jsonschema.Schema{Type: "array", Items: pair}
	case reflect.TypeFor[time.Time](): // It has a format.
		return nil
	}
	if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) && !t.Implements(reflect.TypeFor[json.Marshaler]()) {
		return &jsonschema.Schema{Type: "string"}
	}
	return nil
}

// finisher adds to a derived schema what invopop cannot know.
type finisher struct {
	options
	used map[string]bool
}

// finish walks the Go type beside its schema: it applies the rules and, in open
// schemas, allows null for lists and maps, because Go writes an empty one so.
func (f *finisher) finish(t reflect.Type, s *jsonschema.Schema, defs jsonschema.Definitions, seen map[reflect.Type]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Array {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || mapType(t) != nil || seen[t] {
		return
	}
	seen[t] = true
	if def, ok := defs[defName(t)]; ok {
		s = def
	}
	if s == nil || s.Properties == nil {
		return
	}
	for _, field := range flatFields(t) {
		name, opts, _ := strings.Cut(field.Tag.Get("json"), ",")
		prop, ok := s.Properties.Get(name)
		if !ok {
			continue
		}
		kind := field.Type.Kind()
		list := (kind == reflect.Slice || kind == reflect.Map) && prop.Type != ""
		if list && !f.closed && !strings.Contains(opts, "omitempty") {
			prop.Extras = map[string]any{"type": []string{prop.Type, "null"}}
			prop.Type = ""
		}
		key := defName(field.owner) + "." + name
		if rule, ok := f.rules[key]; ok {
			rule(prop)
			f.used[key] = true
		}
		f.finish(field.Type, s, defs, seen)
	}
}

type ownedField struct {
	reflect.StructField
	owner reflect.Type
}

// flatFields lists a struct's fields, those of embedded structs in their place.
func flatFields(t reflect.Type) []ownedField {
	var out []ownedField
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && f.Tag.Get("json") == "" && f.Type.Kind() == reflect.Struct {
			out = append(out, flatFields(f.Type)...)
			continue
		}
		out = append(out, ownedField{f, t})
	}
	return out
}

package schemagen

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
)

// CataloguePage is the page for people, relative to the repository's root.
const CataloguePage = "docs/events.md"

// catalogue writes the page that lists every event.
func catalogue(c Comments, examples map[string][]byte) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `# Events

<!-- Generated from the Go types by schemagen: do not edit. -->

A drill is a stream of events on NATS JetStream, on subjects of the form
`+"`drill.evt.<drill>.<service>.<kind>`"+`. Each is a
[CloudEvents](https://cloudevents.io) %s envelope in JSON, signed by the service
that wrote it and chained to the one before by `+"`prevhash`"+`. There are %d types.

- Schemas: [`+"`schemas/%s`"+`](../schemas/%s), JSON Schema 2020-12. An event's
  `+"`dataschema`"+` is the `+"`$id`"+` of the schema of its `+"`data`"+`.
- Subjects and messages: [`+"`schemas/asyncapi.yaml`"+`](../schemas/asyncapi.yaml).
- Examples: [`+"`schemas/examples`"+`](../schemas/examples), one of each type, truly
  signed. Without its white space, a file is byte by byte an event as stored;
  in the order of this page they form one chain under the keyring beside them.

Readers pass over fields and types that they do not know. A released schema does
not change: a type that must change gets a new version, and with it another
`+"`dataschema`"+`.

## The envelope

`, event.SpecVersion, len(event.Table()), Version, Version)
	writeFields(&b, c, reflect.TypeFor[event.Event]())
	b.WriteString("\n## The types\n\n| type | written by | what happened |\n|---|---|---|\n")
	for _, i := range event.Table() {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s |\n", i.Type, anchor(string(i.Type)), i.Service, i.Summary)
	}
	parts := map[reflect.Type]bool{}
	var order []reflect.Type
	for _, i := range event.Table() {
		writeType(&b, c, i, examples)
		order = collect(i.PayloadType(), parts, order)
	}
	b.WriteString("\n## Parts of events\n")
	for _, t := range order {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n", t.Name(), cell(c.lookup(t, "")))
		writeFields(&b, c, t)
	}
	b.WriteString(mirrors)
	return []byte(b.String())
}

// mirrors is the part of the page on the messages of mirrors, whose types are the mirror
// service's.
const mirrors = `
## Mirrors

A run of a mirror is no drill, and its events are neither signed nor chained. Their
forms are in the schemas; ` + "`at`" + `, ` + "`mirror`" + ` and ` + "`run`" + ` come with each.

| subject | schema | what it is |
|---|---|---|
| ` + "`mirror.req.<who>.<mirror>`" + ` | [mirror-request](../schemas/v1/mirror-request.json) | Asks for a run: a sync, or a comparison. |
| ` + "`mirror.cmd.<mirror>.cancel`" + ` | [mirror-cancel](../schemas/v1/mirror-cancel.json) | Calls a run off. |
| ` + "`mirror.evt.<mirror>.waiting`" + ` | [mirror-event](../schemas/v1/mirror-event.json) | It waits for others, ` + "`since`" + ` when and why. |
| ` + "`mirror.evt.<mirror>.started`" + ` | | It began. |
| ` + "`mirror.evt.<mirror>.progress`" + ` | | How far it is. |
| ` + "`mirror.evt.<mirror>.stalled`" + ` | | It stands still: an alarm, once. |
| ` + "`mirror.evt.<mirror>.drift`" + ` | | A comparison has seen that a side is not what the last run left there: an alarm. |
| ` + "`mirror.evt.<mirror>.finished`" + ` | | It came to its end: ` + "`result`" + ` of a sync, ` + "`outcome`" + ` of a comparison. |
| ` + "`mirror.evt.<mirror>.failed`" + ` | | It could not go on: an alarm. |
| ` + "`mirror.evt.<mirror>.cancelled`" + ` | | It was called off. |
| ` + "`mirror.evt.<mirror>.rejected`" + ` | | The request cannot be met as it is. |
`

func writeType(b *strings.Builder, c Comments, i event.Info, examples map[string][]byte) {
	t := i.PayloadType()
	fmt.Fprintf(b, "\n## %s\n\n%s %s\n\n", i.Type, i.Summary, cell(c.lookup(t, "")))
	fmt.Fprintf(b, "Subject `drill.evt.<drill>.%s.%s` · [schema](../schemas/%s)", i.Service, i.Type.Kind(), SchemaFile(string(i.Type)))
	if _, ok := examples[ExampleFile(i.Type)]; ok {
		fmt.Fprintf(b, " · [example](../schemas/%s)", ExampleFile(i.Type))
	}
	b.WriteString("\n\n")
	writeFields(b, c, t)
}

// writeFields writes the table of a struct's fields.
func writeFields(b *strings.Builder, c Comments, t reflect.Type) {
	b.WriteString("| field | form | meaning |\n|---|---|---|\n")
	for _, f := range flatFields(t) {
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		form := formOf(f.Type)
		if strings.Contains(opts, "string") {
			form = "decimal string"
		}
		if strings.Contains(opts, "omitempty") {
			form += ", optional"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, form, cell(c.lookup(t, f.Name)))
	}
}

// formOf says in words how a value looks in JSON.
func formOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[event.Duration]():
		return "duration"
	case reflect.TypeFor[event.Nanos]():
		return "nanoseconds, decimal string"
	case reflect.TypeFor[event.Ranges]():
		return "list of [first, last]"
	}
	switch t.String() {
	case "time.Time":
		return "time"
	case "json.RawMessage":
		return "JSON"
	}
	switch t.Kind() {
	case reflect.Struct:
		return fmt.Sprintf("[%s](#%s)", t.Name(), anchor(t.Name()))
	case reflect.Slice:
		return "list of " + formOf(t.Elem())
	case reflect.Map:
		return "map to " + formOf(t.Elem())
	case reflect.Pointer:
		return formOf(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	}
	return "integer"
}

// collect lists the structs that stand inside t, in order of appearance.
func collect(t reflect.Type, seen map[reflect.Type]bool, order []reflect.Type) []reflect.Type {
	for _, f := range flatFields(t) {
		e := f.Type
		for e.Kind() == reflect.Pointer || e.Kind() == reflect.Slice || e.Kind() == reflect.Map {
			e = e.Elem()
		}
		if e.Kind() != reflect.Struct || e.String() == "time.Time" || seen[e] {
			continue
		}
		seen[e] = true
		order = collect(e, seen, append(order, e))
	}
	return order
}

// cell makes a comment safe within Markdown and its tables.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text)
}

// anchor is the link target that GitHub makes of a heading.
func anchor(heading string) string {
	return strings.ToLower(strings.ReplaceAll(heading, ".", ""))
}

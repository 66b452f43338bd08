package schemagen

import (
	"path/filepath"
	"reflect"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// Version is the directory that new schemas are written to.
const Version = "v1"

const pkgPath = "github.com/firedrill/firedrill/pkg/"

// Extra is a schema of a type that this package does not know, such as the
// report's. It is written to <Version>/<Name>.json.
type Extra struct {
	Name string
	Type reflect.Type
	// Options are those of Schema.
	Options []Option
}

// Generate derives all files. The keys are paths below the schemas directory,
// but for the catalogue page, whose key is CataloguePage. src is the
// repository's root, for the comments.
func Generate(src string, extras ...Extra) (map[string][]byte, error) {
	comments, err := ReadComments(map[string]string{
		filepath.Join(src, "pkg", "event"): pkgPath + "event",
		filepath.Join(src, "pkg", "drill"): pkgPath + "drill",
	})
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	all := append(fixedSchemas(), extras...)
	for _, i := range event.Table() {
		all = append(all, Extra{Name: string(i.Type), Type: i.PayloadType(), Options: []Option{Titled(string(i.Type) + ": " + i.Summary)}})
	}
	for _, x := range all {
		opts := append([]Option{WithComments(comments)}, x.Options...)
		if out[SchemaFile(x.Name)], err = Schema(SchemaID(x.Name), x.Type, opts...); err != nil {
			return nil, err
		}
	}
	examples, err := Examples()
	if err != nil {
		return nil, err
	}
	for name, raw := range examples {
		out[name] = raw
	}
	if out["asyncapi.yaml"], err = asyncAPI(); err != nil {
		return nil, err
	}
	out[CataloguePage] = catalogue(comments, examples)
	return out, nil
}

// SchemaFile is the path of a schema below the schemas directory.
func SchemaFile(name string) string { return Version + "/" + name + ".json" }

// SchemaID is a schema's $id. An event's is its dataschema attribute.
func SchemaID(name string) string { return event.SchemaBase + SchemaFile(name) }

// fixedSchemas are those that are not in the table of events.
func fixedSchemas() []Extra {
	return []Extra{
		{"envelope", reflect.TypeFor[event.Event](), []Option{
			Titled("Envelope of every firedrill event"),
			About("A CloudEvents 1.0 event in structured JSON form. Its type names the schema of data: dataschema is that schema's $id."),
			WithRules(envelopeRules()),
		}},
		{"drill", reflect.TypeFor[drill.Drill](), []Option{Titled("firedrill drill"), Closed(), WithRules(drillRules())}},
		{"inventory", reflect.TypeFor[drill.Inventory](), []Option{Titled("firedrill inventory"), Closed(), WithRules(inventoryRules())}},
		{"problem", reflect.TypeFor[drill.Problem](), []Option{Titled("One mistake in a drill or a request")}},
		{"keyring", reflect.TypeFor[event.Keyring](), []Option{
			Titled("firedrill keyring"),
			About("Maps each service to the public nkeys that may sign its events."),
		}},
	}
}

package contract

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/firedrill/firedrill/schemas"
	"github.com/firedrill/firedrill/services/reporter/fold/foldtest"
)

// Every recorded report, of a real drill or of one made up for rendering, must be what
// the published schema says a report is.
func TestRecordedReportsFitTheirSchema(t *testing.T) {
	schema := compiled(t, "report")
	files, err := filepath.Glob("../../services/reporter/render/testdata/*/report.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("recorded reports: %v %v", files, err)
	}
	for _, r := range foldtest.Recordings(t, "../../services/reporter/fold") {
		files = append(files, filepath.Join(r.Dir, "report.json"))
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(instance(t, raw)); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// Every event that a real drill has left must be what the published schemas say of its
// envelope and of its type.
func TestRecordedEventsFitTheirSchemas(t *testing.T) {
	envelope, types := compiled(t, "envelope"), map[string]*jsonschema.Schema{}
	for _, r := range foldtest.Recordings(t, "../../services/reporter/fold") {
		for i, e := range opened(t, r) {
			kind := string(e.Type)
			if types[kind] == nil {
				types[kind] = compiled(t, kind)
			}
			if err := envelope.Validate(instance(t, r.Raws[i])); err != nil {
				t.Errorf("%s, event %d, %s: its envelope: %v", r.Name, i+1, kind, err)
			}
			if err := types[kind].Validate(instance(t, e.Data)); err != nil {
				t.Errorf("%s, event %d, %s: %v", r.Name, i+1, kind, err)
			}
		}
	}
}

// compiled is the published schema of a name.
func compiled(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	raw, ok := schemas.Named(name)
	if !ok {
		t.Fatalf("%s has no schema: run `make fix`", name)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(name+".json", instance(t, raw)); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instance reads JSON as schemas are applied to it.
func instance(t *testing.T, raw []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

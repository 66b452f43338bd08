package contract

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/firedrill/firedrill/schemas"
)

// Every recorded report must be what the published schema says a report is.
func TestRecordedReportsFitTheirSchema(t *testing.T) {
	raw, ok := schemas.Named("report")
	if !ok {
		t.Fatal("no schema of the report: run `make fix`")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("report.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("report.json")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../services/reporter/render/testdata/*/report.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("recorded reports: %v %v", files, err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		report, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(report); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

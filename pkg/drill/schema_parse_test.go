package drill_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/schemas"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func drillSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemas.Drill()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("drill.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("drill.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An editor checks with the schema, firedrill with the parser: what the parser
// takes the schema must take, and what the schema refuses the parser must refuse.
func TestSchemaAgreesWithTheParser(t *testing.T) {
	s := drillSchema(t)
	files, err := filepath.Glob("testdata/good/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		d, err := drill.Parse(read(t, f))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []drill.Drill{d, drill.WithDefaults(d)} {
			raw, _, err := drill.JSON(d)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Validate(doc); err != nil {
				t.Errorf("%s: the schema refuses what the parser takes: %v", f, err)
			}
		}
	}
	refused := 0
	for _, c := range badCases(t) {
		var doc any
		if err := yaml.Unmarshal(c.raw, &doc); err != nil || strings.Contains(string(c.raw), ".nan") || strings.Contains(string(c.raw), ".inf") {
			continue
		}
		err := s.Validate(doc)
		if (err != nil) != c.schema {
			t.Errorf("%s: the schema says %v, and the file expects refused=%t", c.name, err, c.schema)
		}
		if err != nil {
			refused++
		}
	}
	if refused < 50 {
		t.Errorf("the schema refuses only %d of the bad drills", refused)
	}
}

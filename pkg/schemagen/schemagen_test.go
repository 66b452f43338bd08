package schemagen_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/schemagen"
	"github.com/firedrill/firedrill/schemas"
	"go.yaml.in/yaml/v3"
)

const root = "../.."

func generate(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := schemagen.Generate(root)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCommittedFilesAreUpToDate(t *testing.T) {
	err := schemagen.Check(generate(t), schemagen.Targets{
		Schemas: filepath.Join(root, "schemas"), Page: filepath.Join(root, schemagen.CataloguePage)})
	if err != nil {
		t.Errorf("run `go run ./pkg/schemagen/cmd/schemagen -out schemas`:\n%v", err)
	}
}

func TestGenerationIsDeterministic(t *testing.T) {
	if a, b := generate(t), generate(t); !reflect.DeepEqual(a, b) {
		t.Error("two runs differ")
	}
}

func TestEveryTypeHasSchemaExampleMessageAndEntry(t *testing.T) {
	files := generate(t)
	for _, i := range event.Table() {
		var s struct {
			ID string `json:"$id"`
		}
		if err := json.Unmarshal(files[schemagen.SchemaFile(string(i.Type))], &s); err != nil || s.ID != i.Schema() {
			t.Errorf("%s: the schema's $id is %q, want %q (%v)", i.Type, s.ID, i.Schema(), err)
		}
		if len(files[schemagen.ExampleFile(i.Type)]) == 0 {
			t.Errorf("%s has no example", i.Type)
		}
		if !strings.Contains(string(files["asyncapi.yaml"]), "      name: "+string(i.Type)+"\n") {
			t.Errorf("%s is not in asyncapi.yaml", i.Type)
		}
		if !strings.Contains(string(files[schemagen.CataloguePage]), "\n## "+string(i.Type)+"\n") {
			t.Errorf("%s is not in the catalogue", i.Type)
		}
	}
}

// tree writes the generated files to a directory of the test.
func tree(t *testing.T, released string) (map[string][]byte, schemagen.Targets) {
	t.Helper()
	dir := t.TempDir()
	to := schemagen.Targets{Schemas: filepath.Join(dir, "schemas"), Page: filepath.Join(dir, "docs", "events.md")}
	if err := os.Mkdir(to.Schemas, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(to.Schemas, schemagen.ReleasedFile), released)
	files := generate(t)
	if err := schemagen.Write(files, to); err != nil {
		t.Fatal(err)
	}
	return files, to
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheckNamesEachFileThatIsWrong(t *testing.T) {
	files, to := tree(t, `{"releases": []}`)
	if err := schemagen.Check(files, to); err != nil {
		t.Fatalf("what was just written: %v", err)
	}
	put(t, filepath.Join(to.Schemas, "v1", "ledger.cut.json"), "{\n}\n")
	put(t, filepath.Join(to.Schemas, "v1", "old.type.json"), "{}")
	put(t, filepath.Join(to.Schemas, "v1", "report.json"), "{}") // another program's
	put(t, to.Page, "# Events\n\nedited\n")
	if err := os.Remove(filepath.Join(to.Schemas, "asyncapi.yaml")); err != nil {
		t.Fatal(err)
	}
	err := schemagen.Check(files, to)
	if err == nil {
		t.Fatal("nothing was found")
	}
	for _, want := range []string{"ledger.cut.json differs from the Go types, from line 2 on", "old.type.json is generated no longer",
		"events.md differs from the Go types, from line 3 on", "asyncapi.yaml is missing"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among\n%v", want, err)
		}
	}
	if n := len(strings.Split(err.Error(), "\n")); n != 4 {
		t.Errorf("%d problems, want 4:\n%v", n, err)
	}
	if err := schemagen.Write(files, to); err != nil {
		t.Fatal(err)
	}
	if err := schemagen.Check(files, to); err != nil {
		t.Errorf("after writing again: %v", err)
	}
}

func TestReleasedSchemasAreFrozen(t *testing.T) {
	files, to := tree(t, `{"releases": []}`)
	sum := sha256.Sum256(files["v1/ledger.cut.json"])
	list := func(hash string) string {
		return `{"releases": [{"version": "0.9.0", "files": {"v1/ledger.cut.json": "` + hash + `"}}]}`
	}
	put(t, filepath.Join(to.Schemas, schemagen.ReleasedFile), list(hex.EncodeToString(sum[:])))
	if err := schemagen.Check(files, to); err != nil {
		t.Errorf("an unchanged released schema: %v", err)
	}

	changed := maps.Clone(files)
	changed["v1/ledger.cut.json"] = append(slices.Clone(files["v1/ledger.cut.json"]), '\n')
	const want = "v1/ledger.cut.json was released with 0.9.0 and would change"
	if err := schemagen.Write(changed, to); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Write: got %v, want %q", err, want)
	}
	if err := schemagen.Check(changed, to); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Check: got %v, want %q", err, want)
	}

	put(t, filepath.Join(to.Schemas, schemagen.ReleasedFile), strings.ReplaceAll(list("00"), "ledger.cut", "gone.type"))
	if err := schemagen.Check(files, to); err == nil || !strings.Contains(err.Error(), "v1/gone.type.json was released with 0.9.0 and is gone") {
		t.Errorf("a released schema that is gone: %v", err)
	}
	for _, bad := range []string{"", "[]", `{"release": []}`} {
		put(t, filepath.Join(to.Schemas, schemagen.ReleasedFile), bad)
		if err := schemagen.Check(files, to); err == nil {
			t.Errorf("the unreadable list %q passes", bad)
		}
	}
}

// TestAReleaseFreezesItsSchemas: what was released stays as it was, the report's schema
// too, which another program writes; a new type may come, and change what lists them all.
func TestAReleaseFreezesItsSchemas(t *testing.T) {
	files, to := tree(t, `{"releases": []}`)
	report := filepath.Join(to.Schemas, "v1", "report.json")
	put(t, report, "{}")
	for _, version := range []string{"v1.0", "v1.1"} {
		if err := schemagen.Freeze(version, files, to); err != nil {
			t.Fatal(err)
		}
	}

	grown := maps.Clone(files)
	grown["v1/new.type.json"] = []byte("{}\n")
	grown["examples/new.type.json"] = []byte("{}\n")
	for _, list := range []string{"asyncapi.yaml", "examples/drill.accepted.json", schemagen.CataloguePage} {
		grown[list] = append(slices.Clone(files[list]), '\n')
	}
	if err := schemagen.Write(grown, to); err != nil {
		t.Errorf("a new type: %v", err)
	}
	if err := schemagen.Check(grown, to); err != nil {
		t.Errorf("a new type: %v", err)
	}

	for name := range files {
		if !strings.HasPrefix(name, "v1/") {
			continue
		}
		changed := maps.Clone(grown)
		changed[name] = append(slices.Clone(files[name]), '\n')
		wantFrozen(t, schemagen.Write(changed, to), name)
		wantFrozen(t, schemagen.Check(changed, to), name)
	}
	put(t, report, "{ }")
	wantFrozen(t, schemagen.Check(grown, to), "v1/report.json")
}

func wantFrozen(t *testing.T, err error, name string) {
	t.Helper()
	for _, version := range []string{"v1.0", "v1.1"} {
		if want := name + " was released with " + version + " and would change"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestWhatCannotBeReleased: a refused release leaves the list of releases as it was.
func TestWhatCannotBeReleased(t *testing.T) {
	files, to := tree(t, `{"releases": []}`)
	if err := schemagen.Freeze("v1.0", files, to); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(to.Schemas, schemagen.ReleasedFile)
	before, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	behind := maps.Clone(files)
	behind["v1/new.type.json"] = []byte("{}\n")
	for _, c := range []struct {
		version string
		files   map[string][]byte
		want    string
	}{
		{"1.1", files, `release "1.1": give a version of the form v1.0`},
		{"v1.1-rc", files, `release "v1.1-rc": give`},
		{"v1.0", files, "release v1.0 was made before"},
		{"v1.1", behind, "new.type.json is missing"},
	} {
		if err := schemagen.Freeze(c.version, c.files, to); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.version, err, c.want)
		}
	}
	if after, err := os.ReadFile(list); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the list of releases is now %s (%v)", after, err)
	}
}

func TestEveryReferenceOfAsyncAPIResolves(t *testing.T) {
	files := generate(t)
	var doc map[string]any
	if err := yaml.Unmarshal(files["asyncapi.yaml"], &doc); err != nil {
		t.Fatal(err)
	}
	refs := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for k, e := range v {
				if ref, ok := e.(string); ok && k == "$ref" {
					refs++
					if !resolves(ref, doc, files) {
						t.Errorf("%s leads nowhere", ref)
					}
				}
				walk(e)
			}
		}
	}
	walk(doc)
	if want := 4 * len(event.Table()); refs < want {
		t.Errorf("%d references, want at least %d", refs, want)
	}
}

func resolves(ref string, doc map[string]any, files map[string][]byte) bool {
	if file, ok := strings.CutPrefix(ref, "./"); ok {
		_, err := schemas.FS.ReadFile(file) // The mirror service writes those of its own messages.
		return len(files[file]) > 0 || err == nil && strings.HasPrefix(file, "v1/mirror-")
	}
	var v any = doc
	for step := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		m, ok := v.(map[string]any)
		if !ok {
			return false
		}
		if v, ok = m[step]; !ok {
			return false
		}
	}
	return true
}

// sample is a type of another package, as the report's will be.
type sample struct {
	Lanes []event.LaneCut `json:"lanes"`
	When  *event.Duration `json:"when,omitempty"`
}

// A description is read beside a field's name in JSON, and without the Go name that its
// comment begins with: "And To are locations" says nothing.
func TestDescriptionsKeepTheirSubject(t *testing.T) {
	lost := regexp.MustCompile(`"description": "(And|Has|Have|Was|Were|Then|Is,|Are,) .*`)
	for path, content := range generate(t) {
		for _, line := range lost.FindAll(content, -1) {
			t.Errorf("%s: %s", path, line)
		}
	}
}

func TestSchemaOfAnotherPackagesType(t *testing.T) {
	raw, err := schemagen.Schema("https://example.org/sample.json", reflect.TypeFor[sample](), schemagen.Closed(), schemagen.Titled("a sample"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"$id": "https://example.org/sample.json"`, `"title": "a sample"`, `"#/$defs/event.LaneCut"`, `"additionalProperties": false`} {
		if !bytes.Contains(raw, []byte(want)) {
			t.Errorf("%s is missing in\n%s", want, raw)
		}
	}
	rules := map[string]schemagen.Rule{"schemagen_test.sample.nothing": nil}
	if _, err := schemagen.Schema("x", reflect.TypeFor[sample](), schemagen.WithRules(rules)); err == nil || !strings.Contains(err.Error(), "sample.nothing") {
		t.Errorf("a rule without a field: %v", err)
	}
}

func TestMissingSourceIsExplained(t *testing.T) {
	_, err := schemagen.Generate(t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "-src") {
		t.Errorf("got %v", err)
	}
}

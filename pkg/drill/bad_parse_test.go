package drill_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
)

// badCase is one file of testdata/bad: a drill that must be refused, and with
// which words. A YAML file begins with its expectations, as comments; a JSON
// file has them beside it, in a .want file.
type badCase struct {
	name string
	raw  []byte
	want []string
	// schema is true when the JSON Schema of a drill refuses it as well.
	schema bool
}

func badCases(t testing.TB) []badCase {
	t.Helper()
	files, err := filepath.Glob("testdata/bad/*")
	if err != nil {
		t.Fatal(err)
	}
	var out []badCase
	for _, f := range files {
		if filepath.Ext(f) == ".want" {
			continue
		}
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		c := badCase{name: filepath.Base(f), raw: raw}
		expectations := string(raw)
		if filepath.Ext(f) == ".json" {
			w, err := os.ReadFile(strings.TrimSuffix(f, ".json") + ".want")
			if err != nil {
				t.Fatal(err)
			}
			expectations = string(w)
		}
		for line := range strings.Lines(expectations) {
			line = strings.TrimSuffix(strings.TrimPrefix(line, "# "), "\n")
			if want, ok := strings.CutPrefix(line, "want "); ok {
				c.want = append(c.want, want)
			}
			c.schema = c.schema || line == "schema refuses"
		}
		if len(c.want) == 0 {
			t.Fatalf("%s says nothing about what is expected", f)
		}
		out = append(out, c)
	}
	return out
}

func TestBadDrillsAreRefusedWithPlaceFieldAndFix(t *testing.T) {
	cases := badCases(t)
	if len(cases) < 60 {
		t.Fatalf("only %d broken drills in the table", len(cases))
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d, err := drill.Parse(c.raw)
			var ps *drill.Problems
			if !errors.As(err, &ps) {
				t.Fatalf("got error %v, want *Problems", err)
			}
			var got []string
			for _, p := range *ps {
				got = append(got, p.Error())
				if p.Line == 0 || p.Column == 0 || p.Fix == "" {
					t.Errorf("a problem without place or fix: %+v", p)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
			if d.Metadata.Name != "" || len(d.Spec.Phases) != 0 {
				t.Errorf("a refused drill was returned: %+v", d)
			}
			if wire, err := json.Marshal(ps); err != nil || strings.Contains(string(wire)+ps.Error(), "hunter2") {
				t.Errorf("the answer fails or gives a secret away: %v %s", err, wire)
			}
		})
	}
}

// Texts that would be unwieldy as files.
func TestBadTextsAreRefused(t *testing.T) {
	good := string(read(t, "testdata/good/postgres.yaml"))
	long := strings.Repeat("  - x\n", drill.MaxNodes)
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "1:1: the text is empty"},
		{"blank", " \n\t\n", "1:1: the text is empty"},
		{"only a byte order mark", "\ufeff", "1:1: the text is empty"},
		{"only a document mark", "---\n", "2:1: a drill is a mapping"},
		{"too large", good + strings.Repeat("#", drill.MaxSize), "1:1: the text has 1"},
		{"too many values", good + "many:\n" + long, "the drill has more than 20000 values"},
		{"one field again and again", strings.Repeat("a: b\n", 200_000), "the drill has more than 20000 values"},
		{"not UTF-8", "apiVersion: firedrill/v1\nkind: Dr\xefll\n", "2:9: the text is not UTF-8"},
		{"UTF-16", "\xff\xfea\x00", "1:1: the text is not UTF-8"},
		{"nested beyond the reader", strings.Repeat("[", 20_000), "not well-formed YAML: exceeded max depth"},
		{"nested JSON", `{"a":` + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000) + "}", "nest more than 32 deep"},
		{"nested JSON beyond its reader", `{"a":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}", "exceeded max depth"},
		{"a list too long", strings.Replace(good, "participants: [Ada Lovelace, Grace Hopper]",
			"participants: ["+strings.Repeat("x, ", 101)+"]", 1), "this list has 101 entries; 100 are allowed"},
		{"a description too long", strings.Replace(good, "    Kill", "    "+strings.Repeat("x", 9000)+" Kill", 1), "bytes; 8192 are allowed"},
		{"too many problems", good + func() string {
			var b strings.Builder
			for i := range 300 {
				b.WriteString(strings.Repeat("z", i+1) + ": 1\n")
			}
			return b.String()
		}(), "more problems are not listed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := drill.Parse([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %.300v, want %q", err, c.want)
			}
			if n := len(drill.AsProblems(err)); n > drill.MaxProblems+1 {
				t.Errorf("%d problems are listed", n)
			}
		})
	}
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

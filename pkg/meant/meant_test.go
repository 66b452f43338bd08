package meant_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/meant"
)

func TestOne(t *testing.T) {
	for _, c := range []struct{ name, known, want string }{
		{"node", "mode node", "node"},
		{"NODE", "mode node", "node"},
		{"data-dir", "dataDirs dataDir", "dataDir"},
		{"api.version", "apiVersion", "apiVersion"},
		{"nod", "mode node", "node"},
		{"noode", "mode node", "node"},
		{"relpay", "drop list replay", "replay"},
		{"p", "pg", "pg"},
		{"gp", "pg", ""},
		{"ss", "s", ""},
		{"bytes", "node mode", ""},
		{"write", "writer writes", "writer"},
		{"abcde", "abxye", "abxye"},
		{"abcde", "axyze", ""},
		{"abcdef", "axyzef", "axyzef"},
		{"abcdef", "wxyzef", ""},
		{"dry", "check dry-run", "dry-run"},
		{"DRY", "check Dry-run", "Dry-run"},
		{"acce", "accept-places accept-all", ""},
		{"", "pg-standby", ""},
		{"", "", ""},
		{strings.Repeat("a", 65), strings.Repeat("a", 64), ""},
	} {
		if got := meant.One(c.name, strings.Fields(c.known)); got != c.want {
			t.Errorf("%q of %s: %q, want %q", c.name, c.known, got, c.want)
		}
	}
}

func TestFix(t *testing.T) {
	var many []string
	for i := range 32 {
		many = append(many, fmt.Sprintf("n%02d-of-many", i))
	}
	for _, c := range []struct {
		name  string
		known []string
		want  string
	}{
		{"nod", []string{"node"}, `did you mean "node"?`},
		{"x", nil, "there is none"},
		{"bytes", []string{"node"}, "known is only node"},
		{"bytes", []string{"node", "mode"}, "known are node, mode"},
		{"bytes", many[:30], "known are " + strings.Join(many[:30], ", ")},
		{"bytes", many, "known are " + strings.Join(many[:30], ", ") + " and 2 more"},
	} {
		if got := meant.Fix(c.name, c.known); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// FuzzOne: what is named is known, a known name is meant by itself, and what has no byte
// of a name does not mean it, but for separators.
func FuzzOne(f *testing.F) {
	f.Add("relpay", "replay", "list")
	f.Add("-", "_", "")
	f.Add("\xff", "İ", "ß")
	f.Fuzz(func(t *testing.T, name, a, b string) {
		known := []string{a, b}
		got := meant.One(name, known)
		if got != "" && !slices.Contains(known, got) {
			t.Fatalf("%q of %q: %q is not known", name, known, got)
		}
		if one := meant.One(a, known); meant.Plain(one) != meant.Plain(a) {
			t.Fatalf("%q of %q: %q", a, known, one)
		}
		in := strings.ToLower(got)
		shared := slices.ContainsFunc([]byte(strings.ToLower(name)), func(c byte) bool { return strings.IndexByte(in, c) >= 0 })
		if got != "" && meant.Plain(got) != meant.Plain(name) && !shared {
			t.Fatalf("%q of %q: %q has nothing of it", name, known, got)
		}
	})
}

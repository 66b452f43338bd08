package mirror_test

import (
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror"
)

// files are rules for the modes of files, from patterns and modes in turn.
func files(side string, text ...string) (out []drill.Permission) {
	for i := 0; i < len(text); i += 2 {
		out = append(out, drill.Permission{Side: side, Match: text[i], Files: text[i+1]})
	}
	return out
}

// Two mirrors whose rules set the same otherwise are refused where that is certain, and doubted
// where it depends on what files there are.
func TestRulesThatContradictEachOther(t *testing.T) {
	const source, dest = drill.SideSource, drill.SideDestination
	out := func(from string, rules ...drill.Permission) drill.Mirror {
		return drill.Mirror{Name: "b", From: from, To: "s3:lab/bucket/b", Permissions: rules}
	}
	into := func(to string, rules ...drill.Permission) drill.Mirror {
		return drill.Mirror{Name: "b", From: "dir:/other", To: to, Permissions: rules}
	}
	with := func(m drill.Mirror, filter ...string) drill.Mirror {
		m.Filter = filter
		return m
	}
	both := drill.Permission{Side: source, Match: "**", Dirs: "0750", Owner: "app"}
	for name, c := range map[string]struct {
		a, b drill.Mirror
		// field is of b, sure and perhaps what is said of it.
		field, sure, perhaps string
	}{
		"the same pattern": {a: out("dir:/a", files(source, "**", "0640")...), b: out("dir:/a", files(source, "**", "0660")...),
			field: "permissions[0].files", sure: `mirror b sets this, and mirror a "0640" (spec.mirrors[0].permissions[0].files) for the same, such as "x" in dir:/a: each of the two would undo for ever what the other sets: write the same in both, or leave one out`},
		"the same mode":  {a: out("dir:/a", files(source, "**", "640")...), b: out("dir:/a", files(source, "**", "0640")...)},
		"the same rules": {a: out("dir:/a", files(source, "**", "0640", "*.key", "0600")...), b: out("dir:/a", files(source, "**", "0640", "*.key", "0600")...)},
		"other places":   {a: out("dir:/a", files(source, "**", "0640")...), b: out("dir:/ab", files(source, "**", "0660")...)},
		"where one goes to and the other comes from": {a: into("dir:/x", files(dest, "**", "0640")...), b: out("dir:/x", files(source, "**", "0660")...),
			field: "permissions[0].files", sure: `such as "x" in dir:/x`},
		"what the source's rules have made of a copy": {a: into("dir:/x", files(source, "**", "0640")...), b: out("dir:/x", files(source, "**", "0660")...),
			field: "permissions[0].files", sure: "spec.mirrors[0].permissions[0].files"},
		"as they have made it": {a: into("dir:/x", files(source, "**", "0640")...), b: out("dir:/x", files(source, "**", "0640")...)},
		"both into one place": {a: into("dir:/x", files(dest, "**", "0640")...), b: drill.Mirror{Name: "b", From: "dir:/b", To: "dir:/x", Permissions: files(dest, "**", "0600")},
			field: "permissions[0].files", sure: "for ever"},
		"one in the other": {a: out("dir:/a", files(source, "**", "0640")...), b: out("dir:/a/b", files(source, "**", "0660")...),
			field: "permissions[0].files", sure: `such as "x" in dir:/a/b`},
		"one in the other that is not meant": {a: out("dir:/a", files(source, "/c/**", "0640")...), b: out("dir:/a/b", files(source, "**", "0660")...)},
		"one around the other":               {a: out("dir:/a/b", files(source, "/c/*", "0640")...), b: out("dir:/a", files(source, "/b/c/d", "0600")...), field: "permissions[0].files", sure: `such as "c/d" in dir:/a/b`},
		"one in the other that is left out":  {a: with(out("dir:/a", files(source, "**", "0640")...), "- /b/"), b: out("dir:/a/b", files(source, "**", "0660")...)},
		"a part of the other's": {a: out("dir:/a", files(source, "**", "0640")...), b: out("dir:/a", files(source, "*.key", "0600")...),
			field: "permissions[0].files", sure: `such as ".key" in dir:/a`},
		"a part of the other's that it excepts": {a: out("dir:/a", files(source, "**", "0640", "*.key", "0600")...), b: out("dir:/a", files(source, "*.key", "0600")...)},
		"what another rule sets after all":      {a: out("dir:/a", files(source, "**", "0640")...), b: out("dir:/a", files(source, "**", "0660", "**", "0640")...)},
		"patterns that may meet": {a: out("dir:/a", files(source, "*.key", "0600")...), b: out("dir:/a", files(source, "/bin/**", "0755")...),
			field: "permissions[0].files", perhaps: `such as "bin/.key" in dir:/a: if there is such a one, each of the two undoes`},
		"patterns that do not meet": {a: out("dir:/a", files(source, "*.key", "0600")...), b: out("dir:/a", files(source, "*.sh", "0755")...)},
		"filters apart":             {a: with(out("dir:/a", files(source, "**", "0600")...), "+ *.a", "- **"), b: with(out("dir:/a", files(source, "**", "0640")...), "+ *.b", "- **")},
		"directories, and an owner": {a: out("dir:/a", both), b: out("dir:/a", drill.Permission{Side: source, Match: "**", Dirs: "0755", Owner: "app"}),
			field: "permissions[0].dirs", sure: `"0750" (spec.mirrors[0].permissions[0].dirs)`},
		"an owner": {a: out("dir:/a", both), b: out("dir:/a", drill.Permission{Side: source, Match: "**", Owner: "www"}),
			field: "permissions[0].owner", sure: `"app" (spec.mirrors[0].permissions[0].owner)`},
		"an owner by number": {a: out("dir:/a", both), b: out("dir:/a", drill.Permission{Side: source, Match: "**", Owner: "1000"}),
			field: "permissions[0].owner", perhaps: `"app"`},
		"a group that is inherited": {a: out("dir:/a", drill.Permission{Side: source, Match: "**", Group: "app"}), b: out("dir:/a", drill.Permission{Side: source, Match: "**", Group: drill.GroupInherit}),
			field: "permissions[0].group", perhaps: `"app"`},
		"one that copies there without a rule": {a: into("dir:/x"), b: out("dir:/x", files(source, "*.key", "0600")...),
			field: "permissions[0].files", perhaps: `mirror a brings ".key" to dir:/x as it is at dir:/other: unless it is the same there`},
		"one that brings it back": {a: drill.Mirror{Name: "a", From: "s3:lab/bucket/b", To: "dir:/x", Overwrite: drill.OverwriteUnedited}, b: out("dir:/x", files(source, "**", "0600")...)},
		"patterns without end": {a: out("dir:/a", files(source, strings.Repeat("a?", 12)+"*b"+strings.Repeat("?", 12), "0600")...), b: out("dir:/a", files(source, "x", "0755")...),
			field: "permissions", perhaps: "too many to tell"},
	} {
		if c.a.Name = "a"; c.a.To == "s3:lab/bucket/b" {
			c.a.To = "s3:lab/bucket/a"
		}
		var inv drill.Inventory
		inv.Spec.Mirrors, inv.Spec.Stores = []drill.Mirror{c.a, c.b}, []drill.Store{{Name: "lab"}}
		for what, found := range map[string]struct {
			got  []drill.Problem
			want string
		}{"refused": {mirror.CheckInventory(inv), c.sure}, "doubted": {mirror.Doubts(inv), c.perhaps}} {
			switch got := found.got; {
			case found.want == "" && len(got) == 0:
			case found.want == "" || len(got) != 1 || !strings.Contains(got[0].Fix, found.want) || got[0].Field != "spec.mirrors[1]."+c.field:
				t.Errorf("%s: it is %s: %+v", name, what, got)
			}
		}
	}
}

// Programs that run as somebody else may be meant.
func TestSetgidOnFilesIsDoubted(t *testing.T) {
	var inv drill.Inventory
	inv.Spec.Mirrors = []drill.Mirror{{Name: "a", From: "dir:/a", To: "dir:/b", Permissions: files("", "**", "2770", "*.txt", "0640")}}
	got := mirror.Doubts(inv)
	if len(mirror.CheckInventory(inv)) > 0 || len(got) != 1 || got[0].Field != "spec.mirrors[0].permissions[0].files" || got[0].Value != "2770" || !strings.Contains(got[0].Fix, `write it in dirs`) {
		t.Errorf("it says %+v", got)
	}
}

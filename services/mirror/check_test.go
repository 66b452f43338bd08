package mirror_test

import (
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror"
)

func TestCheckNamesTheFieldTheValueAndTheFix(t *testing.T) {
	stores := []drill.Store{{Name: "lab"}, {Name: "far"}}
	good := drill.Mirror{From: "dir:/a", To: "s3:lab/bucket", Filter: []string{"- *.tmp", "# a comment"}}
	if got := mirror.Check(good, stores); len(got) > 0 {
		t.Errorf("a good one: %v", got)
	}
	good.Permissions = []drill.Permission{{Side: drill.SideSource, Match: "**", Files: "0640", Group: drill.GroupInherit}}
	good.Overwrite = drill.OverwriteUnedited // which is about the destination
	if got := mirror.Check(good, stores); len(got) > 0 {
		t.Errorf("one with rules for its source: %v", got)
	}
	good.Permissions, good.Overwrite = nil, ""
	for _, c := range []struct {
		field, value, fix string
		spoil             func(*drill.Mirror)
	}{
		{"from", "dir:a", "absolute", func(m *drill.Mirror) { m.From = "dir:a" }},
		{"from", "", "no user or password", func(m *drill.Mirror) { m.From = "s3+https://me:secret@h/bucket" }},
		{"to", "s3:leb/bucket", "it has lab, far", func(m *drill.Mirror) { m.To = "s3:leb/bucket" }},
		{"to", "s3:lab/b", `the bucket's name "b" is too short`, func(m *drill.Mirror) { m.To = "s3:lab/b" }},
		{"to", "dir:/a/b", "within each other", func(m *drill.Mirror) { m.To = "dir:/a/b" }},
		{"to", "zfs:a", "mount point", func(m *drill.Mirror) { m.To = "zfs:a" }},
		{"from", "zfs:a", "mount point", func(m *drill.Mirror) { m.From, m.Mode = "zfs:a", drill.MirrorTwoWay }},
		{"mode", "both", "two-way", func(m *drill.Mirror) { m.Mode = "both" }},
		{"overwrite", "never", "always or unedited", func(m *drill.Mirror) { m.Overwrite = "never" }},
		{"overwrite", "unedited", "only a copy", func(m *drill.Mirror) { m.Mode, m.Overwrite = drill.MirrorTwoWay, drill.OverwriteUnedited }},
		{"keepDeleted", "1h", "a copy deletes nothing", func(m *drill.Mirror) { m.Mode, m.KeepDeleted = drill.MirrorCopy, event.Duration(time.Hour) }},
		{"keepDeleted", "-1h", "such as 168h", func(m *drill.Mirror) { m.Mode, m.KeepDeleted = drill.MirrorMirror, event.Duration(-time.Hour) }},
		{"permissions", "", "leave one of them out", func(m *drill.Mirror) {
			m.To, m.Overwrite, m.Permissions = "dir:/b", drill.OverwriteUnedited, []drill.Permission{{Match: "x", Files: "0600"}}
		}},
		{"filter[1]", "- [x", "close it with ]", func(m *drill.Mirror) { m.Filter = []string{"+ a", "- [x"} }},
		{"filter[0]", " ", "empty", func(m *drill.Mirror) { m.Filter = []string{" "} }},
		{"permissions[0].match", "[", "close it with ]", func(m *drill.Mirror) { m.To, m.Permissions = "dir:/b", []drill.Permission{{Match: "["}} }},
		{"permissions[0].match", "/a/../b", `no path holds the name ".."`, func(m *drill.Mirror) { m.To, m.Permissions = "dir:/b", []drill.Permission{{Match: "/a/../b"}} }},
		{"permissions[0].match", "//", "single slashes", func(m *drill.Mirror) { m.To, m.Permissions = "dir:/b", []drill.Permission{{Match: "//"}} }},
		{"permissions[0].match", "a ", "write [ ]", func(m *drill.Mirror) { m.To, m.Permissions = "dir:/b", []drill.Permission{{Match: "a "}} }},
		{"permissions[0].dirs", "0755", `write "*.sh/"`, func(m *drill.Mirror) {
			m.To, m.Permissions = "dir:/b", []drill.Permission{{Match: "*.sh", Dirs: "0755"}}
		}},
		{"filter[0]", "- ./a", `no path holds the name "."`, func(m *drill.Mirror) { m.Filter = []string{"- ./a"} }},
		{"permissions", "", "a bucket has none", func(m *drill.Mirror) { m.Permissions = []drill.Permission{{Match: "x"}} }},
		{"snapshots.keep", "yearly=1", "hourly, daily", func(m *drill.Mirror) {
			m.From, m.Filter, m.Snapshots = "zfs:a", nil, &drill.MirrorSnapshots{Keep: "yearly=1"}
		}},
		{"permissions", "", "one way", func(m *drill.Mirror) {
			m.To, m.Mode, m.Permissions = "dir:/b", drill.MirrorTwoWay, []drill.Permission{{Match: "x"}}
		}},
		{"permissions[1].side", "source", "side: destination", func(m *drill.Mirror) {
			m.From, m.To, m.Permissions = "s3:lab/bucket", "dir:/b", []drill.Permission{{Match: "x"}, {Side: drill.SideSource, Match: "x"}}
		}},
		{"permissions[0].side", "source", "mount point with dir:", func(m *drill.Mirror) {
			m.From, m.Permissions = "zfs:a", []drill.Permission{{Side: drill.SideSource, Match: "x"}}
		}},
		{"permissions[0].side", "source", "one way", func(m *drill.Mirror) {
			m.Mode, m.Permissions = drill.MirrorTwoWay, []drill.Permission{{Side: drill.SideSource, Match: "x"}}
		}},
		{"permissions[1].side", "destination", "side: source", func(m *drill.Mirror) {
			m.Permissions = []drill.Permission{{Side: drill.SideSource, Match: "x", Group: drill.GroupInherit}, {Side: drill.SideDestination, Match: "x"}}
		}},
	} {
		m := good
		c.spoil(&m)
		got := mirror.Check(m, stores)
		if len(got) != 1 || got[0].Field != c.field || got[0].Value != c.value || !strings.Contains(got[0].Fix, c.fix) {
			t.Errorf("%s %q: got %v", c.field, c.value, got)
		}
	}
}

// TestAnInventorysMirrorsAreChecked: with where the fault stands.
func TestMirrorsThatWorkAgainstEachOther(t *testing.T) {
	check := func(ms ...drill.Mirror) []drill.Problem {
		var inv drill.Inventory
		inv.Spec.Mirrors = ms
		return mirror.CheckInventory(inv)
	}
	a := drill.Mirror{Name: "a", From: "dir:/a", To: "dir:/x/y", Mode: drill.MirrorMirror}
	back := drill.Mirror{Name: "b", From: "dir:/x/y", To: "dir:/a"}
	in := func(mode, overwrite string) drill.Mirror {
		m := back
		m.Mode, m.Overwrite = mode, overwrite
		return m
	}
	for name, c := range map[string]struct {
		b          drill.Mirror
		field, fix string
	}{
		"into the same place":             {drill.Mirror{Name: "b", From: "dir:/b", To: "dir:/x/y"}, "to", "delete what the other brings"},
		"into a place in it":              {drill.Mirror{Name: "b", From: "dir:/b", To: "dir:/x/y/z", Mode: drill.MirrorMirror}, "to", "delete what the other brings"},
		"the other way":                   {in(drill.MirrorMirror, ""), "to", "goes the other way, and each would undo"},
		"a copy the other way":            {in(drill.MirrorCopy, drill.OverwriteUnedited), "", ""},
		"one that overwrites what is new": {in("", ""), "overwrite", "write overwrite: unedited"},
		"one that says so":                {in(drill.MirrorCopy, drill.OverwriteAlways), "overwrite", "what was changed at dir:/a"},
		"elsewhere":                       {drill.Mirror{Name: "b", From: "dir:/a", To: "dir:/x/yy", Mode: drill.MirrorMirror}, "", ""},
	} {
		got := check(a, c.b)
		if (len(got) > 0) != (c.fix != "") || len(got) > 1 {
			t.Errorf("%s: %+v", name, got)
		} else if c.fix != "" && (!strings.Contains(got[0].Fix, c.fix) || got[0].Field != "spec.mirrors[1]."+c.field || got[0].Value != map[string]string{"to": c.b.To, "overwrite": c.b.Overwrite}[c.field]) {
			t.Errorf("%s: %+v", name, got[0])
		}
	}
	if got := check(back, a); len(got) != 1 || got[0].Field != "spec.mirrors[0].overwrite" || !strings.Contains(got[0].Fix, "mirror a goes the other way") {
		t.Errorf("a copy back that stands first: %+v", got)
	}
	a.Mode = drill.MirrorCopy
	if got := check(a, drill.Mirror{Name: "b", From: "dir:/b", To: a.To}); len(got) > 0 {
		t.Errorf("two copies into one place: %+v", got)
	}
	if got := check(a, back); len(got) != 1 || got[0].Field != "spec.mirrors[1].overwrite" {
		t.Errorf("two copies that write over each other: %+v", got)
	}
	for i, one := range [][2]string{{"", drill.OverwriteUnedited}, {drill.OverwriteUnedited, ""}} {
		a.Overwrite = one[0]
		if got := check(a, in(drill.MirrorCopy, one[1])); len(got) > 0 {
			t.Errorf("two copies, of which one (%d) leaves edits alone: %+v", i, got)
		}
	}
}

func TestAnInventorysMirrorsAreChecked(t *testing.T) {
	text := `apiVersion: firedrill/v1
kind: Inventory
spec:
  mirrors:
    - {name: a, from: dir:/a, to: dir:/b}
    - {name: b, from: dir:/a, to: "s3+http://127.0.0.1:9000/bucket"}
    - name: c
      from: dir:/a
      to: s3:lab/bucket
      filter: ["+ a", "*.tmp"]
      deletes: {most: -5}
`
	_, err := drill.ParseInventory([]byte(text), mirror.CheckInventory)
	if err == nil {
		t.Fatal("it is taken")
	}
	for _, want := range []string{
		`6:35: spec.mirrors[1].to: "s3+http://127.0.0.1:9000/bucket": an inventory names its servers`,
		`9:11: spec.mirrors[2].to: "s3:lab/bucket": the inventory has no store "lab": add it to spec.stores; it has none`,
		`10:23: spec.mirrors[2].filter[1]: "*.tmp": a rule begins with a sign and a space`,
		`11:23: spec.mirrors[2].deletes.most: "-5": this is how many`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	if n := len(drill.AsProblems(err)); n != 4 {
		t.Errorf("%d problems:\n%v", n, err)
	}
}

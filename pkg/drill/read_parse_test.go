package drill_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
)

// shop is a driver that takes any configuration but one without a shelf.
func shop(name string) (drill.Catalogue, bool) {
	takesAny := func(json.RawMessage) error { return nil }
	return drill.Catalogue{
		Drivers: []string{"shop"},
		CheckConfig: func(raw json.RawMessage) error {
			if !strings.Contains(string(raw), "shelf") {
				return &fieldError{field: "shelf", fix: "missing: name the shelf"}
			}
			return nil
		},
		Nodes: func(raw json.RawMessage) []string {
			if strings.Contains(string(raw), "left") {
				return []string{"left", "right"}
			}
			return nil
		},
		Faults:  map[string]func(json.RawMessage) error{"close": takesAny},
		Actions: map[string]func(json.RawMessage) error{"open": takesAny},
		Probes:  map[string]func(json.RawMessage) error{"buy": nil},
	}, name == "shop"
}

// drillOf is a drill with a target, a phase's fault and its recovery of the test's own.
func drillOf(target, fault, recovery, deadline string) []byte {
	return []byte(`apiVersion: firedrill/v1
kind: Drill
metadata: {name: d}
spec:
  guards: {deadline: ` + deadline + `}
  targets:
    - ` + target + `
  phases:
    - name: p
      objective: {rto: 30s}
      probes: [{name: w, target: s, probe: buy}]
      faults: [` + fault + `]
      recovery: [` + recovery + `]
`)
}

// TestEverythingIsReportedInOneRun: what the parser, the inventory and the drivers
// find are not three rounds of mending.
func TestEverythingIsReportedInOneRun(t *testing.T) {
	inline := drillOf("{name: s, driver: shop, config: {}}", "{name: F, target: s, fault: clse}", "{name: r, target: t, action: open}", "30m")
	_, err := drill.Read(inline, drill.OpenInventory(), shop)
	compare(t, drill.AsProblems(err), []string{
		`7:39: spec.targets[0].config.shelf: missing: name the shelf`,
		`12:23: spec.phases[0].faults[0].name: "F": use small letters, digits and dashes, with a letter or digit at both ends, such as f`,
		`12:44: spec.phases[0].faults[0].fault: "clse": the driver of target s has no such fault: did you mean "close"?`,
		`13:36: spec.phases[0].recovery[0].target: "t": no target has this name: known is only s`,
	})

	named := drillOf("{name: s, inventory: shp}", "{name: F, target: s, fault: close}", "", "3h")
	inv := inventory(t, `{apiVersion: firedrill/v1, kind: Inventory, spec: {guards: {deadline: 1h}, targets: [{name: shop, driver: shop, config: {}}]}}`)
	_, err = drill.Read(named, inv, shop)
	compare(t, drill.AsProblems(err), []string{
		`5:22: spec.guards.deadline: "3h": the inventory allows 1h: ask for less`,
		`7:28: spec.targets[0].inventory: "shp": the inventory has no such entry: did you mean "shop"?`,
		`12:23: spec.phases[0].faults[0].name: "F": use small letters, digits and dashes, with a letter or digit at both ends, such as f`,
	})
}

// TestADeadlineIsJudgedBesideOtherMistakes: only mistakes that leave the sum of
// the waits unknown hide it.
func TestADeadlineIsJudgedBesideOtherMistakes(t *testing.T) {
	const tooShort = "cannot end within its deadline of 5s"
	for recovery, want := range map[string]bool{"{name: r, target: s, action: open}": true, "{name: r, target: s, action: open, after: soon}": false} {
		_, err := drill.Read(drillOf("{name: s, driver: shop, config: {}}", "{name: f, target: s, fault: close}", recovery, "5s"), drill.OpenInventory(), shop)
		if err == nil || strings.Contains(err.Error(), tooShort) != want || !strings.Contains(err.Error(), "name the shelf") {
			t.Errorf("%s: %v", recovery, err)
		}
	}
}

func TestNodesThatTheTargetDoesNotHave(t *testing.T) {
	const config = "config: {shelf: 1, nodes: [{name: left}, {name: right}]}"
	inv := inventory(t, "{apiVersion: firedrill/v1, kind: Inventory, spec: {targets: [{name: orders, driver: shop, "+config+"}]}}")
	for _, c := range []struct {
		name, target, node string
		inv                drill.Inventory
		want               string
	}{
		{"inline", "{name: s, driver: shop, " + config + "}", "c", drill.OpenInventory(), `known are left, right`},
		{"of the inventory", "{name: s, inventory: orders}", "lft", inv, `did you mean "left"?`},
		{"known", "{name: s, inventory: orders}", "left", inv, ""},
		{"no nodes are named", "{name: s, driver: shop, config: {shelf: 1, nodes: 3}}", "c", drill.OpenInventory(), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := drillOf(c.target, "{name: f, target: s, fault: close, params: {node: "+c.node+"}}", "", "30m")
			_, err := drill.Read(raw, c.inv, shop)
			var want []string
			if c.want != "" {
				want = []string{`12:66: spec.phases[0].faults[0].params.node: "` + c.node + `": target s has no such node: ` + c.want}
			}
			compare(t, drill.AsProblems(err), want)
		})
	}
}

// TestANodeIsWhatItsDriverMeans: to a driver that names no nodes it may be a
// selector, whatever its configuration lists under nodes.
func TestANodeIsWhatItsDriverMeans(t *testing.T) {
	raw := drillOf("{name: s, driver: shop, config: {shelf: 1, nodes: [{name: left}]}}", "{name: f, target: s, fault: close, params: {node: app=web}}", "", "30m")
	_, err := drill.Read(raw, drill.OpenInventory(), func(name string) (drill.Catalogue, bool) {
		c, ok := shop(name)
		c.Nodes = nil
		return c, ok
	})
	if err != nil {
		t.Error(err)
	}
}

// TestLetGoNeedsAReason that may be kept for all to read.
func TestLetGoNeedsAReason(t *testing.T) {
	for reason, want := range map[string]string{
		"rebuilt by hand":                      "",
		"   ":                                  "blanks are no reason",
		"password=hunter2":                     "looks like a password",
		"see postgres://admin:s3cret@db1/ now": "looks like a password",
	} {
		_, err := drill.ParseUndo(fmt.Appendf(nil, "apiVersion: firedrill/v1\nkind: Undo\nmetadata: {name: u}\nspec: {drill: d-1, letGo: %q}\n", reason))
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), "spec.letGo: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%q: %v", reason, err)
		}
	}
}

// TestOtherKindsAreSaidInALine: a file given in the wrong place is not measured
// with the wrong yardstick.
func TestOtherKindsAreSaidInALine(t *testing.T) {
	undo := "apiVersion: firedrill/v1\nkind: Undo\nmetadata: {name: u}\nspec: {drill: d-1}\n"
	parse := func(raw string) error { _, err := drill.Parse([]byte(raw)); return err }
	parseInventory := func(raw string) error { _, err := drill.ParseInventory([]byte(raw)); return err }
	parseUndo := func(raw string) error { _, err := drill.ParseUndo([]byte(raw)); return err }
	good := string(read(t, "testdata/good/postgres.yaml"))
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"an inventory as a drill", parse(sampleInventory), `3:7: kind: "Inventory": this is an inventory, not a drill: give it to firedrill with --inventory`},
		{"an undo as a drill", parse(undo), "2:7: kind: \"Undo\": this is a request to undo, not a drill: publish it as a request, or use `firedrill undo`"},
		{"an undo as an inventory", parseInventory(undo), "2:7: kind: \"Undo\": this is a request to undo, not an inventory: publish it as a request, or use `firedrill undo`"},
		{"a drill as an inventory", parseInventory(good), "this is a drill, not an inventory: give it to `firedrill run`"},
		{"a drill as an undo", parseUndo(good), "this is a drill, not a request to undo: give it to `firedrill run`"},
	} {
		ps := drill.AsProblems(c.err)
		if len(ps) != 1 || !strings.Contains(ps[0].Error(), c.want) {
			t.Errorf("%s: got %v, want only %s", c.name, c.err, c.want)
		}
	}
	if err := parseUndo(undo); err != nil {
		t.Errorf("a good one is refused: %v", err)
	}
}

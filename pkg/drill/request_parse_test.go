package drill_test

import (
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
)

func TestRequestsOfBothKinds(t *testing.T) {
	good := string(drillOf("{name: s, driver: shop, config: {shelf: 1}}", "{name: f, target: s, fault: close}", "{name: r, target: s, action: open}", "30m"))
	for _, c := range []struct {
		name, raw, kind, asked, want string
	}{
		{"a drill", good, drill.Kind, "d", ""},
		{"a drill with problems tells its name", strings.Replace(good, "close", "clse", 1), drill.Kind, "d", "no such fault"},
		{"an undo", "{apiVersion: firedrill/v1, kind: Undo, metadata: {name: u}, spec: {drill: d-1}}", drill.UndoKind, "u", ""},
		{"an undo with problems", "{apiVersion: firedrill/v1, kind: Undo, metadata: {name: u}, spec: {drill: .}}", drill.UndoKind, "u", "spec.drill"},
		{"a list", "[]", drill.Kind, "", "this is a list"},
		{"nothing", "", drill.Kind, "", "the text is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := drill.ParseRequest([]byte(c.raw))
			if r.Kind() != c.kind || r.Name() != c.asked {
				t.Errorf("kind %q, name %q", r.Kind(), r.Name())
			}
			var err error
			if r.Kind() == drill.UndoKind {
				_, err = r.Undo()
			} else {
				_, err = r.Drill(drill.OpenInventory(), shop)
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestARequestIsReadAnyNumberOfTimes: what one inventory refuses is not said of the
// next one.
func TestARequestIsReadAnyNumberOfTimes(t *testing.T) {
	r := drill.ParseRequest(drillOf("{name: s, driver: shop, config: {shelf: 1}}", "{name: f, target: s, fault: close}", "{name: r, target: s, action: open}", "30m"))
	for range 2 {
		if _, err := r.Drill(drill.Inventory{}, shop); len(drill.AsProblems(err)) != 1 {
			t.Errorf("with an empty inventory: %v", err)
		}
		if _, err := r.Drill(drill.OpenInventory(), shop); err != nil {
			t.Errorf("with an open one: %v", err)
		}
	}
}

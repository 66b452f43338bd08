package drill_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
)

// TestASettlementGoesByTheInventoryOfToday: nothing is run that the operator's
// inventory does not let now, whatever it let when the drill was accepted.
func TestASettlementGoesByTheInventoryOfToday(t *testing.T) {
	old := drill.Drill{Spec: drill.Spec{Targets: []drill.Target{
		{Name: "s", Inventory: "orders", Driver: "shop", Config: []byte(`{"host":"old"}`)},
		{Name: "inline", Driver: "shop", Config: []byte(`{"host":"mine"}`)},
	}}}
	const moved = "targets: [{name: orders, driver: shop, config: {host: new}}]"
	for _, c := range []struct{ name, inventory, owing, config, want string }{
		{"the entry has changed", moved, "s", `{"host":"new"}`, ""},
		{"the entry has changed, and anything goes", moved + ", inlineTargets: true", "s", `{"host":"new"}`, ""},
		{"it owes nothing", "targets: []", "", `{"host":"old"}`, ""},
		{"the entry is gone", "targets: [{name: other, driver: shop, config: {}}]", "s", "", `target "s": the inventory has no entry "orders" any more: put it back`},
		{"the entry is gone, and anything goes", "inlineTargets: true", "s", `{"host":"old"}`, ""},
		{"another driver", "targets: [{name: orders, driver: bank, config: {}}]", "s", "", `target "s": the inventory's entry "orders" is of driver "bank" now, and was of "shop"`},
		{"a configuration of its own", moved, "inline", "", `target "inline": it brought a configuration of its own`},
		{"a configuration of its own, and anything goes", "inlineTargets: true", "inline", `{"host":"old"}`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv := inventory(t, "{apiVersion: firedrill/v1, kind: Inventory, spec: {"+c.inventory+"}}")
			got, err := inv.Settle(old, []string{c.owing}, undoOf(""), hosts)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "until the undo has succeeded") {
					t.Fatalf("got %v, want %s", err, c.want)
				}
				return
			}
			if err != nil || string(got.Spec.Targets[0].Config) != c.config || string(got.Spec.Targets[1].Config) != `{"host":"mine"}` {
				t.Fatalf("%+v, %v", got.Spec.Targets, err)
			}
		})
	}
	if string(old.Spec.Targets[0].Config) != `{"host":"old"}` {
		t.Error("the drill that was settled was changed")
	}
}

// undoOf is a request to undo with some targets described anew.
func undoOf(targets string) drill.Request {
	return drill.ParseRequest([]byte("{apiVersion: firedrill/v1, kind: Undo, metadata: {name: undo}, spec: {drill: d-1, targets: [" + targets + "]}}"))
}

// hosts has one driver, shop; its configurations have a host and nothing else.
func hosts(driver string) (drill.Catalogue, bool) {
	return drill.Catalogue{Drivers: []string{"shop"}, CheckConfig: func(raw json.RawMessage) error {
		if !strings.HasPrefix(string(raw), `{"host"`) {
			return errors.New("give the host")
		}
		return nil
	}}, driver == "shop"
}

// TestASettlementTakesTargetsDescribedAnew: in the place of the drill's own, under the
// permission by which a drill may bring some, and nothing but those.
func TestASettlementTakesTargetsDescribedAnew(t *testing.T) {
	old := drill.Drill{Spec: drill.Spec{Targets: []drill.Target{{Name: "s", Driver: "shop", Config: []byte(`{"host":"old"}`)}}}}
	const inline = "inlineTargets: true"
	for _, c := range []struct{ name, inventory, anew, config, want string }{
		{"a host that has moved", inline, "{name: s, driver: shop, config: {host: new}}", `{"host":"new"}`, ""},
		{"by an entry", "targets: [{name: orders, driver: shop, config: {host: entry}}]", "{name: s, inventory: orders}", `{"host":"entry"}`, ""},
		{"without the permission", "targets: []", "{name: s, driver: shop, config: {host: new}}", "", "spec.targets[0].config: requests bring no configuration of their own here"},
		{"a slip in its name", inline, "{name: ss, driver: shop, config: {host: new}}", "", `the drill has no such target: known is only s`},
		{"another driver", inline, "{name: s, driver: bank, config: {host: new}}", "", `the drill changed this target by driver shop`},
		{"a mistake", inline, "{name: s, driver: shop, config: {hots: new}}", "", "give the host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv := inventory(t, "{apiVersion: firedrill/v1, kind: Inventory, spec: {"+c.inventory+"}}")
			got, err := inv.Settle(old, []string{"s"}, undoOf(c.anew), hosts)
			if c.want == "" && (err != nil || string(got.Spec.Targets[0].Config) != c.config) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("%+v, %v, want %s%s", got.Spec.Targets, err, c.config, c.want)
			}
		})
	}
}

// TestASettlementWithoutItsSystemsEnds: whatever made a settlement's plan, one that
// took no systems is aborted with it, so that nothing is undone on another drill's.
func TestASettlementWithoutItsSystemsEnds(t *testing.T) {
	for _, c := range []struct {
		settles string
		systems map[string]string
		drafts  int
	}{{"d-1", nil, 2}, {"d-1", map[string]string{"t": "fake/1"}, 1}, {"", nil, 1}} {
		got, err := drill.Decide(drill.State{Settles: c.settles}, drill.Planned{Systems: c.systems})
		if err != nil || len(got) != c.drafts {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
}

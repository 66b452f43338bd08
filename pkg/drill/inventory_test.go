package drill_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/schemas"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const sampleInventory = `
apiVersion: firedrill/v1
kind: Inventory
spec:
  targets:
    - {name: orders, driver: postgres, config: {database: app, password: {env: PG}}}
    - {name: cache, driver: redis, config: {}}
  keepFrom: ["dir:/var/lib/postgresql"]
  keepTo: ["dir:/srv/evidence/"]
  guards: {protect: ["*/backup"], maxParts: 2, deadline: 1h, approval: true}
`

func inventory(t *testing.T, text string) drill.Inventory {
	t.Helper()
	inv, err := drill.ParseInventory([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func named(t *testing.T) drill.Drill {
	t.Helper()
	d, err := drill.Parse(read(t, "testdata/good/inventory.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestResolvePutsTheInventorysConfigurationIn(t *testing.T) {
	d := named(t)
	d.Spec.Guards.Protect = []string{"pg/x"}
	got, err := inventory(t, sampleInventory).Resolve(d)
	if err != nil {
		t.Fatal(err)
	}
	pg := got.Spec.Targets[0]
	if pg.Name != "pg" || pg.Inventory != "orders" || pg.Driver != "postgres" || string(pg.Config) != `{"database":"app","password":{"env":"PG"}}` {
		t.Errorf("target: %+v %s", pg, pg.Config)
	}
	g := got.Spec.Guards
	if strings.Join(g.Protect, " ") != "pg/x */backup" || !g.Approval || g.Deadline.D() != time.Hour || g.MaxParts != 0 {
		t.Errorf("guards: %+v", g)
	}
	if d.Spec.Targets[0].Driver != "" || len(d.Spec.Guards.Protect) != 1 {
		t.Error("the drill given was changed")
	}
}

func TestResolveRefusesWhatTheOperatorDoesNotLet(t *testing.T) {
	cases := map[string]struct {
		inventory string
		change    func(*drill.Drill)
		want      []string
	}{
		"an unknown entry": {sampleInventory, func(d *drill.Drill) { d.Spec.Targets[0].Inventory = "order" },
			[]string{`spec.targets[0].inventory: "order": the inventory has no such entry: did you mean "orders"?`}},
		"a configuration of its own": {sampleInventory, func(d *drill.Drill) {
			d.Spec.Targets[0] = drill.Target{Name: "orders", Driver: "postgres", Config: json.RawMessage(`{"endpoint":{"kind":"exec"}}`)}
		}, []string{"spec.targets[0].config: requests bring no configuration of their own here: name an entry of the operator's inventory with inventory:, did you mean"}},
		"no inventory at all": {"", func(*drill.Drill) {}, []string{
			`spec.targets[0].inventory: "orders": the inventory has no such entry: there is none`,
			`spec.phases[0].keep[0].from: "dir:/var/lib/postgresql/wal": this is in none of the places of the inventory's keepFrom`,
			`spec.phases[0].keep[0].to: "dir:/srv/evidence/{drill}": this is in none`}},
		"a place beside the locations": {sampleInventory, func(d *drill.Drill) {
			d.Spec.Phases[0].Keep[0].From = "dir:/var/lib/postgresql2"
			d.Spec.Phases[0].Keep[0].To = "dir:/srv/evidence/../x"
		}, []string{"keep[0].from", "keep[0].to"}},
		"a copy into the live data": {sampleInventory, func(d *drill.Drill) { d.Spec.Phases[0].Keep[0].To = "dir:/var/lib/postgresql/wal" }, []string{"keep[0].to"}},
		"an unknown mirror": {sampleInventory, func(d *drill.Drill) {
			d.Spec.Phases[0].Keep[0] = drill.Keep{Name: "offsite", Mirror: "nightly"}
		}, []string{`spec.phases[0].keep[0].mirror: "nightly": the inventory has no such mirror: there is none`}},
		"another scheme": {sampleInventory, func(d *drill.Drill) { d.Spec.Phases[0].Keep[0].To = "s3:/srv/evidence/x" }, []string{"keep[0].to"}},
		"more parts":     {sampleInventory, func(d *drill.Drill) { d.Spec.Guards.MaxParts = 3 }, []string{`spec.guards.maxParts: "3": the inventory allows 2`}},
		"a longer drill": {sampleInventory, func(d *drill.Drill) { d.Spec.Guards.Deadline = 2 * drill.WithDefaults(*d).Spec.Guards.Deadline },
			[]string{`spec.guards.deadline: "2h": the inventory allows 1h`}},
		"a deadline that the drill cannot keep": {strings.Replace(sampleInventory, "deadline: 1h", "deadline: 20s", 1), func(*drill.Drill) {},
			[]string{"spec.guards.deadline: \"20s\": the drill cannot end within its deadline of 20s"}},
		"windows of its own": {strings.Replace(sampleInventory, "maxParts: 2", `windows: [{from: "09:00", to: "17:00"}]`, 1), func(d *drill.Drill) {
			d.Spec.Guards.Windows = []drill.Window{{From: "00:00", To: "00:00"}}
		}, []string{"spec.guards.windows: the inventory has the maintenance windows"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var inv drill.Inventory
			if c.inventory != "" {
				inv = inventory(t, c.inventory)
			}
			d := named(t)
			c.change(&d)
			_, err := inv.Resolve(d)
			var ps *drill.Problems
			if !errors.As(err, &ps) || len(*ps) != len(c.want) {
				t.Fatalf("got %v, want %d problems", err, len(c.want))
			}
			for i, want := range c.want {
				if got := (*ps)[i].Error(); !strings.Contains(got, want) {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			}
		})
	}
}

func TestOpenInventoryLetsADrillBringEverything(t *testing.T) {
	d, err := drill.Parse(read(t, "testdata/good/postgres.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := drill.OpenInventory().Resolve(d); err != nil {
		t.Fatal(err)
	}
	open := drill.OpenInventory()
	open.Spec.KeepTo = []string{"dir:/somewhere"}
	if _, err := open.Resolve(d); err == nil {
		t.Error("locations that are named bind inline drills as well")
	}
}

// mirrorOf is an inventory with one mirror, of which one thing is as given.
func mirrorOf(text string) string {
	to := "to: dir:/b, "
	if strings.HasPrefix(text, "to:") {
		to = ""
	}
	return "{apiVersion: firedrill/v1, kind: Inventory, spec: {mirrors: [{name: m, from: dir:/a, " + to + text + "}]}}"
}

// storeOf is an inventory with a store.
func storeOf(text string) string {
	return "{apiVersion: firedrill/v1, kind: Inventory, spec: {stores: [{name: s, " + text + "}]}}"
}

func TestBadInventories(t *testing.T) {
	for text, want := range map[string]string{
		"":   "1:1: the text is empty: begin it with apiVersion: firedrill/v1",
		"[]": "1:1: an inventory is a mapping that begins with apiVersion, kind and spec; this is a list",
		"{apiVersion: firedrill/v1, kind: Drill, spec: {}}":                                                                                  `1:34: kind: "Drill": this is a drill, not an inventory: give it to`,
		"{apiVersion: firedrill/v1, kind: Inventory, spec: {target: []}}":                                                                    "1:52: spec.target: there is no such field here: did you mean \"targets\"?",
		"{apiVersion: firedrill/v1, kind: Inventory, spec: {keepFrom: [/var]}}":                                                              `1:63: spec.keepFrom[0]: "/var": this is no location`,
		"{apiVersion: firedrill/v1, kind: Inventory, spec: {guards: {maxParts: -1}}}":                                                        `spec.guards.maxParts: "-1"`,
		"{apiVersion: firedrill/v1, kind: Inventory, spec: {targets: [{name: a, driver: x, config: {password: hunter2}}]}}":                  "spec.targets[0].config.password: a drill never holds a secret",
		"{apiVersion: firedrill/v1, kind: Inventory, spec: {targets: [{name: a, driver: x, config: {}}, {name: a, driver: x, config: {}}]}}": `spec.targets[1].name: "a": another target has this name`,
		mirrorOf("deletes: {most: -5}"):                                                        `spec.mirrors[0].deletes.most: "-5"`,
		mirrorOf("deletes: {scans: -1}"):                                                       `spec.mirrors[0].deletes.scans: "-1"`,
		mirrorOf("deletes: {mostPercent: -1}"):                                                 `spec.mirrors[0].deletes.mostPercent: "-1"`,
		mirrorOf("stalled: -1m"):                                                               `spec.mirrors[0].stalled: "-1m`,
		mirrorOf("check: maybe, every: 1h"):                                                    `spec.mirrors[0].check: "maybe": this must be auto, state, listing or audit`,
		mirrorOf("check: listing"):                                                             `spec.mirrors[0].check: "listing": this is for the runs that the mirror makes by itself, and it makes none`,
		mirrorOf("every: 1h, daily: \"04:00\""):                                                `spec.mirrors[0].daily: "04:00": there is every already`,
		mirrorOf("verify: {}"):                                                                 `spec.mirrors[0].verify: say when`,
		mirrorOf("verify: {level: L2}"):                                                        `spec.mirrors[0].verify: say when`,
		mirrorOf("verify: {level: L5, every: 1h}"):                                             `spec.mirrors[0].verify.level: "L5": this must be L1, L2, L3 or L4`,
		mirrorOf("verify: {every: 1ms}"):                                                       `spec.mirrors[0].verify.every: "1ms": this must lie between`,
		mirrorOf("verify: {daily: \"4:00\"}"):                                                  `spec.mirrors[0].verify.daily: "4:00": this is a time of day, such as 02:30`,
		mirrorOf("verify: {every: 1h, daily: \"04:00\"}"):                                      `spec.mirrors[0].verify.daily: "04:00": there is every already`,
		mirrorOf("snapshots: {}, verify: {every: 1h}"):                                         `spec.mirrors[0].verify: what is brought over as snapshots`,
		mirrorOf("bytesPerSecond: -1"):                                                         `spec.mirrors[0].bytesPerSecond: "-1"`,
		mirrorOf("to: s3+https://h/bucket"):                                                    "spec.mirrors[0].to: \"s3+https://h/bucket\": an inventory names its servers",
		mirrorOf("to: s3+https://me:secret@h/bucket"):                                          "spec.mirrors[0].to: an inventory names its servers",
		mirrorOf("keepDeleted: -1h"):                                                           `spec.mirrors[0].keepDeleted: "-1h`,
		mirrorOf("permissions: [{match: x, files: \"0640\", side: both}]"):                     `spec.mirrors[0].permissions[0].side: "both": this must be source or destination`,
		mirrorOf("permissions: [{match: x, side: source}]"):                                    `spec.mirrors[0].permissions[0]: "x": the rule changes nothing`,
		mirrorOf("permissions: [{match: x, dirs: \"0600\"}]"):                                  `spec.mirrors[0].permissions[0].dirs: "0600": nobody could enter a directory without x: write "0700"`,
		mirrorOf("permissions: [{match: x, dirs: \"2664\"}]"):                                  `permissions[0].dirs: "2664": nobody could enter a directory without x: write "2775"`,
		mirrorOf("permissions: [{match: x, dirs: \"000\"}]"):                                   `permissions[0].dirs: "000": nobody could enter a directory without x: write "0100"`,
		mirrorOf("permissions: [{match: x, files: \"2644\"}]"):                                 `permissions[0].files: "2644": setgid means nothing on a file that its group may not run; it is for dirs: write "0644"`,
		mirrorOf("permissions: [{match: x, files: \"4644\"}]"):                                 `permissions[0].files: "4644": setuid means nothing`,
		mirrorOf("permissions: [{match: x, files: \"1644\"}]"):                                 `permissions[0].files: "1644": the sticky bit means nothing on a file; it is for dirs: write "0644"`,
		mirrorOf("permissions: [{match: x, files: \"0888\"}]"):                                 `permissions[0].files: "0888": this is a mode in octal`,
		mirrorOf("permissions: [{match: x, owner: inherit}]"):                                  `permissions[0].owner: "inherit": only groups are inherited (group: inherit): write the user's name`,
		mirrorOf("permissions: [{match: x, owner: \"-1\"}]"):                                   `permissions[0].owner: "-1": this is no user's number: write 0 to 4294967294, or a name`,
		mirrorOf("permissions: [{match: x, group: \"4294967295\"}]"):                           `permissions[0].group: "4294967295": this is no group's number`,
		mirrorOf("permissions: [{match: x, files: 0644}]"):                                     `permissions[0].files: "0644": this must be text, not a number: put it into quotes`,
		mirrorOf("permissions: [{match: x, owner: -1}]"):                                       `permissions[0].owner: "-1": this must be text, not a number: put it into quotes`,
		storeOf("endpoint: \"https://h:9000/?x=y\""):                                           `spec.stores[0].endpoint: "https://h:9000/?x=y": this must end after the server's name and port: write https://h:9000, as nothing is asked`,
		storeOf("endpoint: \"https://h:9000?\""):                                               `spec.stores[0].endpoint: "https://h:9000?": this must end after`,
		storeOf("endpoint: \"https://h:9000/#a\""):                                             `spec.stores[0].endpoint: "https://h:9000/#a": this must end after`,
		storeOf("endpoint: \"https://h:9000/bucket\""):                                         `spec.stores[0].endpoint: "https://h:9000/bucket": this must end after the server's name and port: a bucket`,
		storeOf("endpoint: \"https://\""):                                                      `spec.stores[0].endpoint: "https://": this must be the server's URL`,
		storeOf("endpoint: \"https://h:nine\""):                                                `spec.stores[0].endpoint: "https://h:nine": this must be the server's URL`,
		storeOf("endpoint: \"https://a:hunter2@h\""):                                           `spec.stores[0].endpoint: a URL here never holds a user or password`,
		storeOf("endpoint: \"https://h/?token=hunter2\""):                                      `spec.stores[0].endpoint: a URL here never holds a user or password`,
		storeOf("endpoint: \"https://h\", accessKey: {env: A}, secretKey: hunter2"):            `spec.stores[0].secretKey: the secret itself never stands here: say where it is found, {env: NAME} or {file: PATH}`,
		storeOf("endpoint: \"https://h\", secretKey: {env: A}, accessKey: hunter2"):            `spec.stores[0].accessKey: the secret itself never stands here`,
		storeOf("endpoint: \"https://h\", secretKey: {env: A}, accessKey: {envv: A}"):          `spec.stores[0].accessKey.envv: there is no such field here: did you mean "env"?`,
		storeOf("endpoint: \"https://h\", secretKey: {env: A}, accessKey: {}"):                 `spec.stores[0].accessKey: say where it is found: either {env: NAME} or {file: PATH}`,
		storeOf("endpoint: \"https://h\", secretKey: {env: A}, accessKey: {env: A, file: /b}"): `spec.stores[0].accessKey: say where it is found`,
		mirrorOf("keepDeleted: 1ms"):                                                           `spec.mirrors[0].keepDeleted: "1ms`,
	} {
		_, err := drill.ParseInventory([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Error("a secret is quoted")
		}
		if ps := drill.AsProblems(err); len(ps) > 1 && (strings.Contains(text, "permissions") || strings.Contains(text, "stores")) {
			t.Errorf("%s: one mistake is %d problems: %v", text, len(ps), err)
		}
	}
}

// What a mirror does by itself, and when.
func TestAMirrorsCadences(t *testing.T) {
	m := inventory(t, mirrorOf(`every: 5m, check: listing, verify: {level: L2, daily: "04:00"}`)).Spec.Mirrors[0]
	for what, want := range map[string]drill.Cadence{
		drill.MirrorSync: {Every: event.Duration(5 * time.Minute)}, drill.MirrorVerify: {Daily: "04:00"}, drill.MirrorAudit: {},
	} {
		if got := m.Cadence(what); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	if m.Check != "listing" || m.Verify.Level != "L2" {
		t.Errorf("read as %+v, %+v", m, m.Verify)
	}
	if got := (drill.Mirror{}).Cadence(drill.MirrorVerify); got != (drill.Cadence{}) {
		t.Errorf("of a mirror without: %+v", got)
	}
}

func TestDriversCheckAnInventory(t *testing.T) {
	_, err := drill.ReadInventory([]byte(sampleInventory), func(name string) (drill.Catalogue, bool) {
		c := drill.Catalogue{Drivers: []string{"postgres"}, CheckConfig: func(json.RawMessage) error { return errors.New("nodes are missing") }}
		return c, name == "postgres"
	})
	compare(t, drill.AsProblems(err), []string{
		`6:48: spec.targets[0].config: nodes are missing`,
		`7:29: spec.targets[1].driver: "redis": there is no such driver: known is only postgres`,
	})
}

func TestInventorySchemaTakesTheSample(t *testing.T) {
	raw, ok := schemas.Named("inventory")
	if !ok {
		t.Fatal("no schema")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("inventory.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("inventory.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(inventory(t, sampleInventory))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(v); err != nil {
		t.Error(err)
	}
	if err := s.Validate(map[string]any{"apiVersion": "firedrill/v1", "kind": "Inventory", "spec": map[string]any{"target": []any{}}}); err == nil {
		t.Error("an unknown field passes")
	}
}

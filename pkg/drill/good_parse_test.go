package drill_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

func TestGoodDrillsAreReadAndWrittenBack(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*")
	if err != nil || len(files) < 2 {
		t.Fatalf("good drills: %v %v", files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			d, err := drill.Parse(read(t, f))
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, d)
			roundTrip(t, drill.WithDefaults(d))
		})
	}
}

// roundTrip writes a drill, reads it back and expects the same drill and bytes.
func roundTrip(t *testing.T, d drill.Drill) {
	t.Helper()
	raw, hash, err := drill.JSON(d)
	if err != nil {
		t.Fatal(err)
	}
	back, err := drill.Parse(raw)
	if err != nil {
		t.Fatalf("its own JSON is refused: %v\n%s", err, raw)
	}
	if !reflect.DeepEqual(back, d) {
		t.Errorf("got\n%+v\nwant\n%+v", back, d)
	}
	again, hashAgain, err := drill.JSON(back)
	if err != nil || !bytes.Equal(again, raw) || hashAgain != hash || len(hash) != 64 {
		t.Errorf("not stable: %v %s %s", err, hash, hashAgain)
	}
}

func TestEveryFieldIsRead(t *testing.T) {
	d, err := drill.Parse(read(t, "testdata/good/postgres.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	named, err := drill.Parse(read(t, "testdata/good/inventory.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	mirrored, err := drill.Parse(read(t, "testdata/good/mirror.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	all := d
	all.Spec.Targets = slices.Concat(d.Spec.Targets, named.Spec.Targets)
	all.Spec.Phases = slices.Clone(d.Spec.Phases)
	all.Spec.Phases[0].Keep = slices.Concat(d.Spec.Phases[0].Keep, mirrored.Spec.Phases[0].Keep)
	if field := firstZero(reflect.ValueOf(all), "drill"); field != "" {
		t.Errorf("%s is empty although the samples set every field", field)
	}
	p := d.Spec.Phases[0]
	if p.Objective.RTO.D() != 30*time.Second || *p.Objective.RPO.Records != 0 || *p.Objective.RPO.Time != 0 || p.Objective.Availability != 99.5 {
		t.Errorf("objective: %+v", p.Objective)
	}
	if got := string(d.Spec.Targets[0].Config); got !=
		`{"nodes":[{"name":"a","port":5432},{"name":"b","port":5433}],"password":{"env":"PGPASSWORD"},"ratio":0.5,"ssl":false,"user":"firedrill"}` {
		t.Errorf("config: %s", got)
	}
}

// firstZero names the first field that is empty in every element of its lists.
func firstZero(v reflect.Value, path string) string {
	switch {
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		if v.Len() == 0 {
			return path
		}
		for i := range v.Type().Elem().NumField() {
			name, empty := v.Type().Elem().Field(i).Name, ""
			for j := range v.Len() {
				if empty = firstZero(v.Index(j).Field(i), path+"[]."+name); empty == "" {
					break
				}
			}
			if empty != "" {
				return empty
			}
		}
		return ""
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if f := firstZero(v.Field(i), path+"."+v.Type().Field(i).Name); f != "" {
				return f
			}
		}
		return ""
	case v.IsZero():
		return path
	}
	return ""
}

func TestCanonicalJSONSurvivesBeingEmbedded(t *testing.T) {
	text := strings.Replace(string(read(t, "testdata/good/postgres.yaml")),
		"title: Loss of the PostgreSQL primary", `title: "a < b && c > d \u2028 é"`, 1)
	d, err := drill.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	raw, hash, err := drill.JSON(d)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := json.Marshal(event.DrillAccepted{Spec: raw, SpecHash: hash})
	if err != nil {
		t.Fatal(err)
	}
	var back event.DrillAccepted
	if err := json.Unmarshal(wire, &back); err != nil || !bytes.Equal(back.Spec, raw) {
		t.Errorf("the spec's bytes changed in an event, and its hash with them: %v\n%s\n%s", err, back.Spec, raw)
	}
}

func TestFieldOrderAndFormatDoNotChangeTheHash(t *testing.T) {
	d, err := drill.Parse(read(t, "testdata/good/postgres.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, want, err := drill.JSON(d)
	if err != nil {
		t.Fatal(err)
	}
	other := d
	other.Spec.Targets = append([]drill.Target(nil), d.Spec.Targets...)
	other.Spec.Targets[0].Config = json.RawMessage(` {"user":"firedrill", "ssl":false, "ratio":0.5, "password":{"env":"PGPASSWORD"},
		"nodes":[{"port":5432,"name":"a"},{"port":5433,"name":"b"}]}`)
	if _, got, err := drill.JSON(other); err != nil || got != want {
		t.Errorf("another order of fields gives %s, want %s (%v)", got, want, err)
	}
	other.Spec.Targets[0].Config = json.RawMessage(`{`)
	if _, _, err := drill.JSON(other); err == nil || !strings.Contains(err.Error(), "pg-failover") {
		t.Errorf("a config that is no JSON: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	d, err := drill.Parse(read(t, "testdata/good/smallest.json"))
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := drill.JSON(d)
	got := drill.WithDefaults(d)
	if after, _, _ := drill.JSON(d); !bytes.Equal(before, after) {
		t.Error("the drill that was given has changed")
	}
	p := got.Spec.Phases[0]
	for _, c := range []struct {
		what      string
		got, want event.Duration
	}{
		{"deadline", got.Spec.Guards.Deadline, event.Duration(time.Hour)},
		{"interval", p.Probes[0].Interval, event.Duration(100 * time.Millisecond)},
		{"burst", p.Probes[0].Burst, event.Duration(10 * time.Millisecond)},
		{"fresh", p.Probes[0].Fresh, event.Duration(200 * time.Millisecond)},
		{"probe deadline", p.Probes[0].Deadline, event.Duration(250 * time.Millisecond)},
		{"steady window", p.SteadyState.Window, event.Duration(5 * time.Second)},
		{"steady timeout", p.SteadyState.Timeout, event.Duration(time.Minute)},
		{"stable window", p.Stable.Window, event.Duration(30 * time.Second)},
		{"stable timeout", p.Stable.Timeout, event.Duration(40 * time.Second)},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.what, c.got, c.want)
		}
	}
	if got.Spec.Guards.MaxParts != 1 || p.SteadyState.MinAvailability != 100 || got.Spec.Seed != 0 {
		t.Errorf("got %+v %+v seed %d", got.Spec.Guards, p.SteadyState, got.Spec.Seed)
	}
	if !reflect.DeepEqual(drill.WithDefaults(got), got) {
		t.Error("defaults of defaults differ")
	}
	d.Spec.Phases[0].Probes[0].Interval = event.Duration(time.Second)
	if got := drill.WithDefaults(d); got.Spec.Phases[0].Probes[0].Interval.D() != time.Second {
		t.Error("a given value was replaced")
	}
}

// fieldError is an error as drivers give it.
type fieldError struct{ field, value, fix string }

func (e *fieldError) Error() string                            { return e.fix }
func (e *fieldError) FieldProblem() (field, value, fix string) { return e.field, e.value, e.fix }

func TestDriversCheckADrill(t *testing.T) {
	raw := read(t, "testdata/good/postgres.yaml")
	takesAny := func(json.RawMessage) error { return nil }
	table := func(names ...string) map[string]func(json.RawMessage) error {
		out := map[string]func(json.RawMessage) error{}
		for _, n := range names {
			out[n] = takesAny
		}
		return out
	}
	full := func() drill.Catalogue {
		return drill.Catalogue{
			Drivers: []string{"postgres", "redis"}, CheckConfig: takesAny,
			Faults: table("kill", "replication-cut"), Actions: table("promote", "rewind"), Probes: table("write"), Checks: table("table-hashes"),
		}
	}
	for _, c := range []struct {
		name   string
		change func(*drill.Catalogue)
		want   []string
	}{
		{"all known", func(*drill.Catalogue) {}, nil},
		{"a fault", func(c *drill.Catalogue) { c.Faults = table("kil", "replication-cut") },
			[]string{`51:43: spec.phases[0].faults[0].fault: "kill": the driver of target pg has no such fault: did you mean "kil"?`}},
		{"an action", func(c *drill.Catalogue) { c.Actions = table("promote", "base-backup") },
			[]string{`63:48: spec.phases[0].restore.actions[0].action: "rewind": the driver of target pg has no such action: known are base-backup, promote`}},
		{"a probe", func(c *drill.Catalogue) { c.Probes = nil },
			[]string{`43:18: spec.phases[0].probes[0].probe: "write": the driver of target pg has no such probe: there is none`}},
		{"a check, in both places", func(c *drill.Catalogue) { c.Checks = nil },
			[]string{
				`58:45: spec.phases[0].checks[1].check: "table-hashes": the driver of target pg has no such check: known is only ledger`,
				`65:47: spec.phases[0].restore.checks[0].check: "table-hashes": the driver of target pg has no such check: known is only ledger`}},
		{"params where none are taken", func(c *drill.Catalogue) { c.Faults["kill"] = nil },
			[]string{`51:57: spec.phases[0].faults[0].params: fault kill takes no params: remove them`}},
		{"params that the driver refuses", func(c *drill.Catalogue) {
			c.Faults["kill"] = func(json.RawMessage) error { return &fieldError{"node", "b", "name another"} }
		}, []string{`51:64: spec.phases[0].faults[0].params.node: "b": name another`}},
		{"a config that the driver refuses, in several fields", func(c *drill.Catalogue) {
			c.CheckConfig = func(json.RawMessage) error {
				return errors.Join(&fieldError{"nodes[1].port", "5433", "use another port"},
					fmt.Errorf("config: %w", &fieldError{"password", "hunter2", "set the variable"}), errors.New("it is too old"))
			}
		}, []string{
			`18:9: spec.targets[0].config: it is too old`,
			`20:29: spec.targets[0].config.nodes[1].port: "5433": use another port`,
			`22:19: spec.targets[0].config.password: set the variable`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cat := full()
			c.change(&cat)
			_, err := drill.Read(raw, drill.OpenInventory(), func(string) (drill.Catalogue, bool) { return cat, true })
			compare(t, drill.AsProblems(err), c.want)
		})
	}
	t.Run("the driver", func(t *testing.T) {
		_, err := drill.Read(raw, drill.OpenInventory(), func(string) (drill.Catalogue, bool) {
			return drill.Catalogue{Drivers: []string{"redis", "kafka"}}, false
		})
		compare(t, drill.AsProblems(err), []string{`16:15: spec.targets[0].driver: "postgres": there is no such driver: known are kafka, redis`})
	})
}

func compare(t *testing.T, got drill.Problems, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		var g, w string
		if i < len(got) {
			g = got[i].Error()
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("problem %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

func TestAsProblems(t *testing.T) {
	if got := drill.AsProblems(nil); got != nil {
		t.Errorf("no error gives %v", got)
	}
	if got := drill.AsProblems(errors.New("down")); len(got) != 1 || got[0].Fix != "down" {
		t.Errorf("another error gives %v", got)
	}
	if got := drill.AsProblems(fmt.Errorf("x: %w", &drill.Problem{Field: "a", Fix: "b"})); len(got) != 1 || got[0].Field != "a" {
		t.Errorf("one problem gives %v", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range badCases(f) {
		f.Add(c.raw)
	}
	for _, g := range []string{"testdata/good/postgres.yaml", "testdata/good/smallest.json"} {
		f.Add(read(f, g))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := drill.Parse(raw)
		if err != nil {
			for _, p := range drill.AsProblems(err) {
				if p.Fix == "" || p.Line < 1 || p.Column < 1 {
					t.Errorf("a problem without place or fix: %+v", p)
				}
			}
			return
		}
		roundTrip(t, d)
		roundTrip(t, drill.WithDefaults(d))
	})
}

package zfs

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/firedrill/firedrill/pkg/target/targettest"
)

func (r *rig) harness(t *testing.T) targettest.Harness {
	return targettest.Harness{
		Driver: Driver{}, Config: r.config, Healthy: r.healthy, Snapshot: r.snapshot,
		Blocked: []targettest.Bad{
			{Name: "a disk that is not the pool's", Field: "breakableVdevs[1]", Config: r.edit(t, func(c map[string]any) { c["breakableVdevs"].([]any)[1] = "/dev/null" })},
			{Name: "another pool", Field: "pool", Config: r.edit(t, func(c map[string]any) { c["pool"], c["dataset"] = "absent", "absent" })},
			{Name: "state that cannot be kept", Field: "stateDir", Config: r.edit(t, func(c map[string]any) { c["stateDir"] = "/dev/null/state" })},
			{Name: "not where the dataset is", Field: "directory", Config: r.edit(t, func(c map[string]any) { c["directory"] = "/tmp" })},
		},
		Aliases: []json.RawMessage{r.edit(t, turned), r.edit(t, r.elsewhere)},
		Write:   ProbeWrite, Read: ProbeRead,
		ReadParams: func(of string) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"of":%q}`, of)) },
		Faults: []targettest.Fault{
			{Name: FaultCorruptVdev, DeadMan: true, Params: raw(t, map[string]any{"file": r.victim}), Broken: r.damaged(0)},
			{Name: FaultCorruptVdev, DeadMan: true, Params: raw(t, map[string]any{"file": r.victim, "vdev": r.Vdevs("tank")[1]}), Broken: r.damaged(1)},
			{Name: FaultOfflineVdev, DeadMan: true, Broken: r.isOffline},
		},
		Checks: []targettest.Check{{Name: CheckHealth}, {Name: CheckCanaries}, {Name: CheckSettings}},
	}
}

func TestContractOnThisMachine(t *testing.T) {
	r := startRig(t)
	h := r.harness(t)
	h.Bad = r.badConfigs(t)
	targettest.Run(t, h)
}

func TestContractElsewhere(t *testing.T) {
	r := startRig(t)
	r.config = r.edit(t, r.elsewhere)
	targettest.Run(t, r.harness(t))
}

// badConfigs break one field each.
func (r *rig) badConfigs(t *testing.T) []targettest.Bad {
	var out []targettest.Bad
	bad := func(field string, value any) {
		top, _, _ := strings.Cut(strings.ReplaceAll(field, "[", "."), ".")
		config := r.edit(t, func(c map[string]any) { c[top] = value })
		out = append(out, targettest.Bad{Name: fmt.Sprintf("%s %d", field, len(out)), Field: field, Config: config})
	}
	bad("pool", "")
	bad("pool", "-f")
	bad("dataset", "tank/../x")
	bad("dataset", "tank/fs@snapshot")
	bad("dataset", "other/firedrill")
	bad("directory", "relative")
	bad("directory", "/")
	bad("prefix", "../elsewhere")
	bad("stateDir", "")
	bad("stateDir", r.root()+"/state")
	bad("breakableVdevs", []string{})
	bad("breakableVdevs[0]", []string{"sda"})
	bad("breakableVdevs[0]", []string{"/dev/disk with blanks"})
	bad("breakableVdevs[1]", []string{"/dev/sda", "/dev/sda"})
	bad("breakableFiles[0]", []string{"/etc"})
	bad("breakableFiles[0]", []string{""})
	bad("control.kind", map[string]any{"kind": "carrier pigeon"})
	return out
}

func TestSampleIsAConfiguration(t *testing.T) {
	var m map[string]any
	if err := yaml.Unmarshal([]byte(sample), &m); err != nil {
		t.Fatal(err)
	}
	if err := (Driver{}).Check(raw(t, m)); err != nil {
		t.Error(err)
	}
}

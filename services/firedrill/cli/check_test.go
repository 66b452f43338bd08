package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/run"
)

func write(t *testing.T, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// orders is an inventory whose two machines are reached by a command.
func orders(control string) string {
	node := func(name, role string) string {
		return fmt.Sprintf("{name: %s, host: 127.0.0.1, port: %d, role: %s, dataDir: /d, binDir: /b, osUser: postgres, logFile: /l, control: {kind: exec, argv: %s}}",
			name, 1+name[0], role, strings.ReplaceAll(control, "NODE", name))
	}
	return `apiVersion: firedrill/v1
kind: Inventory
spec:
  targets:
    - name: orders
      driver: postgres
      config:
        database: app
        user: app
        admin: {user: root}
        service: {host: 127.0.0.1, port: 1}
        endpoint: {kind: relay, control: "http://127.0.0.1:2"}
        nodes:
          - ` + node("a", "primary") + `
          - ` + node("b", "standby") + `
        failback: {evidenceDir: /e}
`
}

const promoteC = `apiVersion: firedrill/v1
kind: Drill
metadata: {name: Failover}
spec:
  targets: [{name: orders, inventory: orders}]
  phases:
    - name: p
      objective: {rto: 5m}
      probes: [{name: w, target: orders, probe: write}]
      faults: [{name: kill, target: orders, fault: kil}]
      recovery: [{name: promote, target: orders, action: promote, params: {node: c}}]
`

// TestValidateReportsEverythingAtOnce, wherever the inventory comes from.
func TestValidateReportsEverythingAtOnce(t *testing.T) {
	inventory, file := write(t, "inventory.yaml", orders(`["true"]`)), write(t, "drill.yaml", strings.Replace(promoteC,
		"name: w, target: orders, probe: write}", "name: writes, target: orders, probe: write}, {name: r, target: orders, probe: read, params: {of: wrties}}", 1))
	code, out, errs := invoke(t, "", "validate", "--inventory", inventory, file)
	for _, want := range []string{
		`it has 4 problems`, `9:114: spec.phases[0].probes[1].params.of: "wrties": no other probe of this phase that watches target orders has this name: did you mean "writes"?`, `3:18: metadata.name: "Failover"`, `10:52: spec.phases[0].faults[0].fault: "kil": the driver of target orders has no such fault: did you mean "kill"?`,
		`11:82: spec.phases[0].recovery[0].params.node: "c": target orders has no such node: known are a, b`,
	} {
		if code != run.BadArguments || !strings.Contains(errs, want) {
			t.Errorf("exit %d, %s%s; want %s", code, out, errs, want)
		}
	}
	// Without the inventory it says what it can, and that there is more.
	code, out, errs = invoke(t, "", "validate", file)
	if code != run.BadArguments || !strings.Contains(errs, `metadata.name: "Failover"`) || !strings.Contains(errs, "--inventory") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
}

// TestValidateKnowsTheKinds: each file is checked as what it says it is.
func TestValidateKnowsTheKinds(t *testing.T) {
	good, bad := write(t, "inventory.yaml", orders(`["true"]`)), write(t, "bad.yaml", strings.ReplaceAll(orders(`["true"]`), "dataDir: /d", "dataDir: d"))
	undo := write(t, "undo.yaml", "{apiVersion: firedrill/v1, kind: Undo, metadata: {name: u}, spec: {drill: d-1}}")
	if code, out, errs := invoke(t, "", "validate", good, undo); code != run.OK || out != good+": valid, an inventory (targets: 1, mirrors: 0)\n"+undo+": valid, a request to undo d-1\n" {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	code, out, errs := invoke(t, "", "validate", bad)
	if code != run.BadArguments || !strings.Contains(errs, "it has 2 problems") || !strings.Contains(errs, `14:74: spec.targets[0].config.nodes[0].dataDir: "d"`) {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	code, out, _ = invoke(t, "", "validate", "--json", good)
	var answer struct {
		Kind  string `json:"kind"`
		Valid bool   `json:"valid"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || code != run.OK || answer.Kind != "Inventory" || !answer.Valid {
		t.Errorf("exit %d, %s, %v", code, out, err)
	}
	for _, args := range [][]string{{"plan", good}, {"run", good}} {
		if code, _, errs := invoke(t, "", args...); code != run.BadArguments || !strings.Contains(errs, "this is an inventory, not a drill: give it to firedrill with --inventory") || strings.Count(errs, "\n") != 2 {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
}

// TestPlanSaysOnceWhatCannotBeReached, not with every step and every command.
func TestPlanSaysOnceWhatCannotBeReached(t *testing.T) {
	drill := write(t, "drill.yaml", strings.NewReplacer("Failover", "failover", "kil}", "kill}", "node: c", "node: b").Replace(promoteC))
	inventory := write(t, "inventory.yaml", orders(`[sh, -c, 'echo "Warning: added" >&2; echo "ssh: connect to host NODE port 22: Connection refused" >&2; exit 255', "--"]`))
	code, out, errs := invoke(t, "", "plan", "--inventory", inventory, drill)
	if code != run.Fail || !strings.Contains(errs, "2 of 2 steps cannot be resolved") {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	for _, node := range []string{"a", "b"} {
		if n := strings.Count(out, "ssh: connect to host "+node+" port 22: Connection refused; nor its server at 127.0.0.1:"); n != 1 {
			t.Errorf("node %s is said %d times to be unreachable:\n%s", node, n, out)
		}
	}
	if strings.Contains(out, "/proc/") || strings.Contains(out, "pg_controldata") || !strings.Contains(out, "plan promote: see node a and node b above") || !strings.Contains(out, "true` work where firedrill runs") {
		t.Errorf("the plan:\n%s", out)
	}
}

// TestAFileThatIsNoHistory is said to be none, once.
func TestAFileThatIsNoHistory(t *testing.T) {
	keyring := write(t, "keyring.json", "{}")
	for _, text := range []string{"", "# Report\n\nIt passed.\n", `"a text"` + "\n", `{"type": "x"}` + "\n", "\"!\n"} {
		file := write(t, "report.md", text)
		for _, command := range []string{"verify", "report"} {
			code, out, errs := invoke(t, "", command, "--keyring", keyring, "--file", file)
			if code != run.Inconclusive || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, file+" is not an exported history") || !strings.Contains(errs, "events.jsonl") {
				t.Errorf("%s of %q: exit %d, %s%s", command, text, code, out, errs)
			}
		}
	}
}

// TestADirectoryIsNoHistory, but it may hold one.
func TestADirectoryIsNoHistory(t *testing.T) {
	dir := t.TempDir()
	for _, command := range []string{"verify", "report"} {
		code, out, errs := invoke(t, "", command, "--file", dir)
		if code != run.BadArguments || out != "" || !strings.Contains(errs, dir+": this is a directory: name the file") || !strings.Contains(errs, filepath.Join(dir, "events.jsonl")) {
			t.Errorf("%s: exit %d, %s%s", command, code, out, errs)
		}
	}
}

// TestPlanShowsWhatBoundsTheDrill: the inventory's guards, and what the drill asks for.
func TestPlanShowsWhatBoundsTheDrill(t *testing.T) {
	drill := write(t, "drill.yaml", strings.NewReplacer("Failover", "failover", "kil}", "kill}", "node: c", "node: b").Replace(promoteC))
	plain := orders(`["true"]`)
	_, out, errs := invoke(t, "", "plan", "--inventory", write(t, "inventory.yaml", plain), drill)
	for _, want := range []string{"blast radius:     a fault hits at most ", "guards.maxParts is 1", "protected:        nothing", "faults may start: any time", "deadline:         60 min", "approval:         not needed"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s%s", want, out, errs)
		}
	}
	guarded := plain + `  guards: {protect: ["pg:a", "db-*"], approval: true, deadline: 30m, windows: [{days: [mon, tue], from: "22:00", to: "06:00", zone: Europe/Dublin}, {from: "09:00", to: "10:00"}]}
`
	_, out, errs = invoke(t, "", "plan", "--inventory", write(t, "inventory.yaml", guarded), drill)
	for _, want := range []string{"protected:        pg:a, db-*", "faults may start: mon, tue 22:00–06:00 Europe/Dublin; every day 09:00–10:00 UTC", "deadline:         30 min", "approval:         needed"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s%s", want, out, errs)
		}
	}
}

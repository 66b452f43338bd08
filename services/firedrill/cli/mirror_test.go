package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/firedrill/cli"
)

// mirrorWorld is a source with a few entries, and where its copy and its state go.
type mirrorWorld struct {
	t         *testing.T
	dir       string
	from, to  string
	stateDirs []string
}

func newMirrorWorld(t *testing.T) *mirrorWorld {
	t.Helper()
	dir := t.TempDir()
	w := &mirrorWorld{t: t, dir: dir, from: "dir:" + filepath.Join(dir, "src"), to: "dir:" + filepath.Join(dir, "dst")}
	w.stateDirs = []string{"--state-dir", filepath.Join(dir, "firedrill"), "--state", filepath.Join(dir, "mirrors")}
	w.write("src/a", "one")
	w.write("src/d/b", "two")
	return w
}

func (w *mirrorWorld) write(name, content string) {
	w.t.Helper()
	p := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// run runs firedrill mirror and gives what it printed; its exit code must be want.
func (w *mirrorWorld) run(want int, args ...string) string {
	w.t.Helper()
	var out, errs bytes.Buffer
	all := append([]string{"mirror"}, append(args, w.stateDirs...)...)
	code := cli.Run(w.t.Context(), all, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, target.NewRegistry())
	if code != want {
		w.t.Fatalf("firedrill mirror %v: exit code %d, want %d\n%s%s", args, code, want, out.String(), errs.String())
	}
	return out.String() + errs.String()
}

func (w *mirrorWorld) has(text string, parts ...string) {
	w.t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			w.t.Errorf("%q is not in\n%s", p, text)
		}
	}
}

func TestMirrorFromTheFirstRunToAnAudit(t *testing.T) {
	w := newMirrorWorld(t)
	w.has(w.run(0, "sync", "--dry-run", w.from, w.to), `put        "a" on the destination`, `mkdir      "d/" on the destination`, "would have: 2 copied")
	if _, err := os.Stat(filepath.Join(w.dir, "dst", "a")); err == nil {
		t.Error("the dry run copied")
	}
	w.has(w.run(0, "sync", w.from, w.to), "2 copied (6 B)", "manifest   3 entries")
	w.has(w.run(0, "sync", w.from, w.to), "3 believed equal (the destination was listed ")
	w.has(w.run(0, "verify", w.from, w.to), "src: verified (L1): 3 checked", "dst: verified (L1): 3 checked")
	w.has(w.run(0, "verify", "--level", "L4", w.from, w.to), "dst: verified (L4)")
	w.has(w.run(0, "status", w.from, w.to), "3 entries", "signed by U")
	w.write("dst/d/b", "edited")
	w.write("dst/new", "x")
	if err := os.Remove(filepath.Join(w.dir, "dst", "a")); err != nil {
		t.Fatal(err)
	}
	w.has(w.run(1, "drift", w.from, w.to), `missing    "a"`, `extra      "new"`, `different  "d/b": has 6 bytes, not 3`)
	w.has(w.run(0, "sync", "--check", "listing", w.from, w.to), "2 copied")
	w.has(w.run(1, "audit", w.from, w.to), `extra      "new"`, "src: verified (L4)")
}

// The first calls say how far they are; it is verified when all was read.
func TestMirrorIsReadBitByBit(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	l3 := func(want int, args ...string) string {
		t.Helper()
		return w.run(want, append([]string{"verify", "--level", "L3"}, append(args, w.from, w.to)...)...)
	}
	w.has(l3(1), "dst: NOT verified (L1 where L3 was asked for): 3 checked, 1 checked at a lower level only; 2 shown at L3; 1 contents were read now", `low        "d/b": never read`)
	w.has(l3(0, "--read", "100%", "--period", "48h"), "src: verified (L3): 3 checked; 3 shown at L3; 2 contents were read now", "dst: verified (L3)")
	var sides []struct {
		Verified     bool `json:"verified"`
		Level, Asked string
		Low          struct{ Count int64 } `json:"low"`
	}
	if err := json.Unmarshal([]byte(l3(0, "--json", "--side", "destination", "--read", "1Gi")), &sides); err != nil {
		t.Fatal(err)
	}
	if len(sides) != 1 || !sides[0].Verified || sides[0].Level != "L3" || sides[0].Asked != "L3" || sides[0].Low.Count != 0 {
		t.Errorf("got %+v", sides)
	}
	w.has(w.run(254, "verify", "--read", "5%", w.from, w.to), "--read: it is for level L3 only")
	w.has(l3(254, "--period", "-1h"), "--period: -1h is no time")
	for _, bad := range []string{"0", "0%", "101%", "NaN%", "5x", "%"} {
		w.has(l3(254, "--read", bad), "write a share")
	}
}

func TestMirrorPrintsJSON(t *testing.T) {
	w := newMirrorWorld(t)
	var got struct {
		Whole bool             `json:"whole"`
		Done  map[string]int64 `json:"done"`
		Root  *struct {
			Signature string `json:"signature"`
		} `json:"root"`
	}
	if err := json.Unmarshal([]byte(w.run(0, "sync", "--json", w.from, w.to)), &got); err != nil {
		t.Fatal(err)
	}
	if !got.Whole || got.Done["put"] != 2 || got.Root == nil || got.Root.Signature == "" {
		t.Errorf("got %+v", got)
	}
}

func TestMirrorsOfAnInventoryHaveNames(t *testing.T) {
	w := newMirrorWorld(t)
	w.write("inventory.yaml", fmt.Sprintf("apiVersion: firedrill/v1\nkind: Inventory\nspec:\n  mirrors:\n    - name: out\n      from: %s\n      to: %s\n", w.from, w.to))
	inventory := filepath.Join(w.dir, "inventory.yaml")
	w.has(w.run(0, "sync", "--inventory", inventory, "out"), "2 copied")
	w.has(w.run(0, "status", "--inventory", inventory, "out"), "out: dir:")
	w.has(w.run(254, "sync", "--inventory", inventory, "in"), `mirror "in"`, "it has out")
	w.has(w.run(254, "sync", "out"), "--inventory")
	for _, flag := range []string{"--mode=mirror", "--filter=- x", "--xattrs", "--one-file-system", "--bwlimit=1M"} {
		name, _, _ := strings.Cut(flag, "=")
		w.has(w.run(254, "sync", "--inventory", inventory, flag, "out"), name+`: mirror "out" is described in `+inventory)
	}
	w.has(w.run(254, "verify", "--inventory", inventory, "--filter", "- x", "out"), "--filter: mirror")
	w.write("inventory.yaml", fmt.Sprintf("apiVersion: firedrill/v1\nkind: Inventory\nspec:\n  mirrors:\n    - {name: out, from: %s, to: %s, filter: [\"- b\"]}\n", w.from, w.to))
	w.has(w.run(0, "verify", "--inventory", inventory, "out"), "the inventory's filter is not that of the last run (no --filter)")
}

func TestMirrorRefusesBadArguments(t *testing.T) {
	w := newMirrorWorld(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"sync", w.from, w.from + "/d"}, 254, "lie within each other"},
		{[]string{"sync", "src", w.to}, 254, `FROM: "src": write scheme:path`},
		{[]string{"sync", w.from, "dir:dst"}, 254, `TO: "dir:dst": the path must be absolute`},
		{[]string{"sync", w.from, "s3:lab/bucket"}, 254, `TO: "s3:lab/bucket": the inventory has no store "lab"`},
		{[]string{"sync", "--mode", "both", w.from, w.to}, 254, `--mode: "both": this must be copy, mirror or two-way`},
		{[]string{"sync", "--check", "maybe", w.from, w.to}, 254, "use auto, state, listing or audit"},
		{[]string{"sync", "--filter", "x", w.from, w.to}, 254, `--filter: "x": a rule begins with a sign`},
		{[]string{"sync", "--filter", "- [x", w.from, w.to}, 254, `--filter: "- [x": [ is not closed: close it with ]`},
		{[]string{"sync", "--filter", "", w.from, w.to}, 254, `--filter: "": the rule is empty`},
		{[]string{"sync", "--transfers", "-1", w.from, w.to}, 254, "--transfers: -1 is no number"},
		{[]string{"sync", "--may-delete", "-2", w.from, w.to}, 254, "--may-delete: -2 is no number"},
		{[]string{"sync", "--bwlimit", "-1", w.from, w.to}, 254, "10M (10,000,000) or 10Mi (10,485,760)"},
		{[]string{"sync", "--fleet", w.from, w.to}, 254, "give a name"},
		{[]string{"sync", "--fleet", "--may-delete", "3", "--mode", "mirror", "out"}, 254, "without --mode, --may-delete"},
		{[]string{"snyc", w.from, w.to}, 254, "there is no such command: use audit, cancel, deleted, drift, restore, status, sync, verify"},
		{[]string{"verify", "--filter", "x", w.from, w.to}, 254, "begins with a sign"},
		{[]string{"status", w.from, "dir:dst"}, 254, "must be absolute"},
		{[]string{"verify", "--level", "L9", w.from, w.to}, 254, "use L1, L2, L3 or L4"},
		{[]string{"verify", "--side", "left", w.from, w.to}, 254, "use source, destination or both"},
		{[]string{"sync", "dir:/no/such/place", w.to}, 255, "/no/such/place"},
		{[]string{"cancel", "out"}, 254, "firedrill up"},
	} {
		w.has(w.run(c.code, c.args...), c.want)
	}
}

func TestVerifyBeforeTheFirstRunSaysSo(t *testing.T) {
	w := newMirrorWorld(t)
	w.write("dst/x", "")
	w.has(w.run(1, "verify", w.from, w.to), "run it first")
}

// What an audit has found is printed, whatever kept it from its end.
func TestAnAuditThatFailsSaysWhatItFound(t *testing.T) {
	w := newMirrorWorld(t)
	for i := range 1001 {
		w.write(fmt.Sprintf("src/many/%04d", i), "one")
	}
	w.run(0, "sync", w.from, w.to)
	for i := range 1001 {
		w.write(fmt.Sprintf("dst/many/%04d", i), "two")
	}
	w.has(w.run(1, "audit", "--repair", w.from, w.to), "too much of it is damaged", `different  "many/0000"`, "and 981 more different")
	out := w.run(1, "audit", "--repair", "--json", w.from, w.to)
	var got struct {
		Error string `json:"error"`
		Sides []struct {
			Different struct{ Count int }
		} `json:"sides"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || !strings.Contains(got.Error, "too much") || got.Sides[1].Different.Count != 1001 {
		t.Errorf("got %v, %+v from %.200s", err, got, out)
	}
}

// What earlier runs came to is for people: a mirror runs without it.
func TestADamagedLogStopsNothing(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	logs, err := filepath.Glob(filepath.Join(w.dir, "mirrors", "*", "runs"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("the logs are %q, %v", logs, err)
	}
	if err := os.WriteFile(logs[0], []byte(`{"mirror": {`), 0o600); err != nil {
		t.Fatal(err)
	}
	const warning = "warning: read what the mirror's runs came to: "
	w.has(w.run(0, "verify", w.from, w.to), warning, "the next run writes it anew", "dst: verified")
	// Nor is it known any more that all is well.
	w.has(w.run(1, "status", w.from, w.to), warning, "not well      no run of it is known", "read "+logs[0])
	list := w.run(1, "status")
	w.has(list, warning+"read "+logs[0]) // of which mirror it was nobody can tell
	if strings.Contains(list, "no mirror has run here") {
		t.Errorf("it says what is not known:\n%s", list)
	}
	w.has(w.run(0, "sync", w.from, w.to), warning, "3 believed equal")
	if after := w.run(0, "status", w.from, w.to); strings.Contains(after, "warning") {
		t.Errorf("the run has not mended it: %s", after)
	}
	// What is whole of it looks well, and is not all.
	whole, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(logs[0], append(whole, '{'), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, of := range [][]string{{"status"}, {"status", w.from, w.to}} {
		w.has(w.run(1, of...), warning, logs[0])
	}
}

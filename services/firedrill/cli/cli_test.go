package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/minio"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/pkg/target/zfs"
	"github.com/firedrill/firedrill/schemas"
)

// invoke runs the command line in an empty state directory.
func invoke(t *testing.T, in string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Run(t.Context(), append([]string{"--state-dir", t.TempDir()}, args...),
		Streams{In: strings.NewReader(in), Out: &o, Err: &e}, target.NewRegistry(minio.Driver{}, postgres.Driver{}, zfs.Driver{}))
	return code, o.String(), e.String()
}

// TestMistakesAreExplained: what a user gets wrong ends with code 254 and a word
// on what to do.
func TestMistakesAreExplained(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(broken, []byte("apiVersion: firedrill/v1\nkind: Drill\nspec: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"unknown command":  {[]string{"explode"}, "explode"},
		"unknown flag":     {[]string{"list", "--colour"}, "--colour"},
		"no argument":      {[]string{"run"}, "usage: firedrill run FILE"},
		"no such file":     {[]string{"run", "/does/not/exist.yaml"}, "/does/not/exist.yaml: there is no such file: name "},
		"nothing to check": {[]string{"validate", "/does/not/exist.yaml"}, "/does/not/exist.yaml: there is no such file: name "},
		"broken drill":     {[]string{"run", broken}, "metadata"},
		"broken plan":      {[]string{"plan", broken}, "spec.targets"},
		"validate":         {[]string{"validate", broken}, broken},
		"no server":        {[]string{"list"}, "firedrill up"},
		"abort, no server": {[]string{"abort", "x-1"}, "firedrill up"},
		"no such schema":   {[]string{"schema", "nothing"}, "firedrill schema"},
		"verify nothing":   {[]string{"verify"}, "--file"},
		"log level":        {[]string{"--log-level", "loud", "plan", "--inventory", "../../../deploy/drills/inventory.yaml", "../../../deploy/drills/postgres-kill-primary.yaml"}, "loud"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := invoke(t, "", c.args...)
			if code != run.BadArguments || !strings.Contains(errs, c.want) {
				t.Fatalf("exit %d, %q; want %d and a word on %q", code, errs, run.BadArguments, c.want)
			}
		})
	}
}

func TestReadyDrillsAreValid(t *testing.T) {
	const inventory = "../../../deploy/drills/inventory.yaml"
	files, err := filepath.Glob("../../../deploy/drills/postgres-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no ready drills")
	}
	if code, _, errs := invoke(t, "", append([]string{"validate", "--inventory", inventory}, files...)...); code != run.OK {
		t.Fatal(errs)
	}
	if code, _, errs := invoke(t, "", "validate", files[0]); code != run.BadArguments || !strings.Contains(errs, "--inventory") {
		t.Fatal(code, errs)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if code, out, errs := invoke(t, string(raw), "validate", "--json", "--inventory", inventory, "-"); code != run.OK || !strings.Contains(out, `"valid": true`) {
		t.Fatal(out, errs)
	}
}

func TestSchemas(t *testing.T) {
	for _, name := range []string{"drill", "inventory", "report", "asyncapi", "fault.injected"} {
		if code, out, errs := invoke(t, "", "schema", name); code != run.OK || len(out) < 100 {
			t.Errorf("schema %s: exit %d %s", name, code, errs)
		}
	}
}

// TestVerifyFindsATamperedHistory uses the golden events, which are one whole
// chain.
func TestVerifyFindsATamperedHistory(t *testing.T) {
	dir := t.TempDir()
	ring, err := schemas.FS.ReadFile("examples/keyring.json")
	if err != nil {
		t.Fatal(err)
	}
	keyring := filepath.Join(dir, "keyring.json")
	if err := os.WriteFile(keyring, ring, 0o600); err != nil {
		t.Fatal(err)
	}
	history := exampleHistory(t)
	verify := func(raw []byte) (int, string) {
		file := filepath.Join(dir, "events.jsonl")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := invoke(t, "", "verify", "--keyring", keyring, "--file", file)
		return code, out + errs
	}
	if code, said := verify(history); code != run.OK {
		t.Fatalf("the whole history: exit %d: %s", code, said)
	}
	lines := bytes.SplitAfter(history, []byte("\n"))
	if code, said := verify(bytes.Join(append(lines[:4:4], lines[5:]...), nil)); code != run.Fail {
		t.Fatalf("an event was removed: exit %d: %s", code, said)
	}
	if _, said := verify(bytes.Join(append(lines[:4:4], lines[5:]...), nil)); !strings.Contains(said, "NOT whole: 1 finding in ") {
		t.Errorf("one finding: %s", said)
	}
	if code, said := verify(bytes.Replace(history, []byte(`"requester":"`), []byte(`"requester":"x`), 1)); code != run.Fail {
		t.Fatalf("an event was altered: exit %d: %s", code, said)
	}
	if code, said := verify(bytes.Join(lines[:len(lines)-3], nil)); code == run.OK {
		t.Fatalf("the end was cut off: exit %d: %s", code, said)
	}
}

// TestWhatWasProbablyMeant is named: commands at every level, flags and schemas.
func TestWhatWasProbablyMeant(t *testing.T) {
	for want, args := range map[string][]string{
		"Did you mean this?\n\tlist\n": {"lisst"},
		"firedrill dead relpay: there is no such command: use drop, list, replay, show; did you mean replay?": {"dead", "relpay"},
		"`firedrill list --help` lists them; did you mean --json?":                                            {"list", "--jsno"},
		"`firedrill schema` lists them; did you mean fault.injected?":                                         {"schema", "fault.injectd"},
	} {
		if code, out, errs := invoke(t, "", args...); code != run.BadArguments || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d, %s%s; want %q", args, code, out, errs, want)
		}
	}
	if _, _, errs := invoke(t, "", "list", "--xyzzy"); strings.Contains(errs, "did you mean") {
		t.Errorf("anybody's guess: %s", errs)
	}
}

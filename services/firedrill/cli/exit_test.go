package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/schemas"
)

// exported writes a history to a file and returns what to call a command with that
// reads it.
func exported(t *testing.T, history []byte) []string {
	t.Helper()
	ring, err := schemas.FS.ReadFile("examples/keyring.json")
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--keyring", write(t, "keyring.json", string(ring)), "--file", write(t, "events.jsonl", string(history))}
}

// TestNoReportOfAnAlteredHistory unless it is asked for.
func TestNoReportOfAnAlteredHistory(t *testing.T) {
	whole := exampleHistory(t)
	edited := bytes.Replace(whole, []byte(`"holder":"`), []byte(`"holder":"x`), 1)
	if code, out, errs := invoke(t, "", append([]string{"report"}, exported(t, whole)...)...); code != run.OK || out == "" || errs != "" {
		t.Errorf("the whole one: exit %d, %s", code, errs)
	}
	args := exported(t, edited)
	code, out, errs := invoke(t, "", append([]string{"report"}, args...)...)
	if code != run.Fail || out != "" || !strings.Contains(errs, "the history is NOT whole, so there is no report: `firedrill verify --file "+args[3]+"`") || !strings.Contains(errs, "--altered") {
		t.Errorf("an edited one: exit %d, %q%s", code, out, errs)
	}
	if code, _, errs := invoke(t, "", append([]string{"verify"}, args...)...); code != run.Fail {
		t.Errorf("verify: exit %d, %s", code, errs)
	}
	if code, out, errs := invoke(t, "", append([]string{"report", "--altered"}, args...)...); code != run.OK || out == "" {
		t.Errorf("asked for: exit %d, %s", code, errs)
	}
}

// TestACutOffLine is said to be that, and not a foreign event.
func TestACutOffLine(t *testing.T) {
	whole := exampleHistory(t)
	cut := exported(t, whole[:len(whole)-100])
	code, out, errs := invoke(t, "", append([]string{"verify"}, cut...)...)
	if code != run.Inconclusive || strings.Contains(out+errs, "foreign") || !strings.Contains(errs, "the last line is cut off") {
		t.Errorf("verify: exit %d, %s%s", code, out, errs)
	}
	if code, out, errs := invoke(t, "", append([]string{"report"}, cut...)...); code != run.Fail || out != "" || !strings.Contains(errs, "the last line is cut off") {
		t.Errorf("report: exit %d, %s", code, errs)
	}
	edited := bytes.Replace(whole, []byte(`"requester":"`), []byte(`"requester":"x`), 1)
	if code, out, errs := invoke(t, "", append([]string{"verify"}, exported(t, edited[:len(edited)-100])...)...); code != run.Fail || !strings.Contains(out, "altered: ") {
		t.Errorf("verify of an edited one: exit %d, %s%s", code, out, errs)
	}
	// An editor that drops the last newline has cut off nothing.
	if code, out, errs := invoke(t, "", append([]string{"verify"}, exported(t, bytes.TrimRight(whole, "\n"))...)...); code != run.OK {
		t.Errorf("without a newline: exit %d, %s%s", code, out, errs)
	}
}

// TestAReaderThatGoesAway, as head does, is told nothing.
func TestAReaderThatGoesAway(t *testing.T) {
	for _, args := range [][]string{{"schema", "drill"}, append([]string{"report"}, exported(t, exampleHistory(t))...)} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], args...)
		var errs bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), envCommand+"=1"), w, &errs
		_ = cmd.Run() // the code is in its state
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != 141 || errs.Len() != 0 {
			t.Errorf("%v: exit %d, %s", args, code, &errs)
		}
	}
}

// TestPlanExitsAlike in JSON and in words.
func TestPlanExitsAlike(t *testing.T) {
	inventory := write(t, "inventory.yaml", orders(`["false"]`))
	file := write(t, "drill.yaml", strings.NewReplacer("Failover", "failover", "kil}", "kill}", "node: c", "node: b").Replace(promoteC))
	for _, format := range [][]string{nil, {"--json"}} {
		code, out, errs := invoke(t, "", append(append([]string{"plan"}, format...), "--inventory", inventory, file)...)
		if code != run.Fail || out == "" || !strings.Contains(errs, "cannot be resolved") {
			t.Errorf("%v: exit %d, %s%s", format, code, out, errs)
		}
		if format != nil && !json.Valid([]byte(out)) {
			t.Errorf("no JSON: %s", out)
		}
	}
}

// TestMistakesWithALab are the caller's.
func TestMistakesWithALab(t *testing.T) {
	exists, none, moved := t.TempDir(), t.TempDir(), t.TempDir()
	for dir, says := range map[string]string{exists: exists, moved: exists} {
		if err := os.WriteFile(filepath.Join(dir, lab.RecordFile), fmt.Appendf(nil, `{"dir":%q}`, says), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, args := range map[string][]string{
		"there is a lab already in " + exists:   {"up", "--dir", exists},
		`--name "Bad Name"`:                     {"up", "--dir", none, "--name", "Bad Name"},
		"--rows -1":                             {"up", "--dir", none, "--rows", "-1"},
		"--link-delay -1s":                      {"up", "--dir", none, "--link-delay", "-1s"},
		"--link-rate -1":                        {"up", "--dir", none, "--link-rate", "-1"},
		"--stable 0s":                           {"up", "--dir", none, "--stable", "0s"},
		"no lab in " + none:                     {"down", "--dir", none},
		"the directory was moved":               {"down", "--dir", moved},
		"firedrill lab upp: there is no such c": {"upp"},
	} {
		if code, out, errs := invoke(t, "", append([]string{"lab"}, args...)...); code != run.BadArguments || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d, %s%s", args, code, out, errs)
		}
	}
	if left, err := os.ReadDir(none); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

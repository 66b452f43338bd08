package cli

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/run"
)

// invoked is what a command came to.
type invoked struct {
	code      int
	out, errs string
}

// command runs a command with the drivers of simRegistry.
func command(t *testing.T, stateDir string, args ...string) invoked {
	t.Helper()
	var o, e bytes.Buffer
	code := Run(t.Context(), append([]string{"--state-dir", stateDir}, args...), Streams{In: strings.NewReader(""), Out: &o, Err: &e}, simRegistry())
	return invoked{code, o.String(), e.String()}
}

// runPunctually runs a drill again while the machine is too busy for the observer's
// schedule, which makes a drill rightly INVALID.
func runPunctually(t *testing.T, stateDir string, args ...string) (did invoked) {
	t.Helper()
	const tries = 12
	for range tries {
		did = command(t, stateDir, args...)
		if !strings.Contains(did.out, "percentile of the scheduling jitter is") {
			return did
		}
	}
	t.Fatalf("the machine was too busy to keep a schedule in %d drills: %s", tries, did.out)
	return did
}

// junit is what CI systems read of a JUnit report.
type junit struct {
	XMLName xml.Name `xml:"testsuites"`
	Suites  []struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Errors   int `xml:"errors,attr"`
		Cases    []struct {
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// TestRunToTheEnd: a drill's verdict is the exit code, in the JSON and in the JUnit
// report. What it started is gone afterwards.
func TestRunToTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		config, rto, recovery, verdict string
		code                           int
	}{
		"pass":    {"{}", "1m", mend, "PASS", run.OK},
		"fail":    {"{}", "1ms", mend, "FAIL", run.Fail},
		"invalid": {"{sick: true}", "1m", mend, "INVALID", run.Inconclusive},
		// Nothing counts what is lost of a service that is only read.
		"inconclusive": {"{}", "1m, rpo: {records: 0}", mend, "INCONCLUSIVE", run.Inconclusive},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			xmlFile, out := filepath.Join(dir, "junit.xml"), filepath.Join(dir, "out")
			file := simDrill(t, c.config, c.rto, c.recovery)
			did := runPunctually(t, dir, "run", "--json", "--junit", xmlFile, "--out", out, file)
			if did.code != c.code {
				t.Fatalf("exit %d, want %d: %s%s", did.code, c.code, did.errs, did.out)
			}
			var report struct{ ID, Verdict string }
			if err := json.Unmarshal([]byte(did.out), &report); err != nil || report.Verdict != c.verdict || !strings.HasPrefix(report.ID, "lone-") {
				t.Errorf("the JSON report: %+v, %v", report, err)
			}
			raw, err := os.ReadFile(xmlFile)
			if err != nil {
				t.Fatal(err)
			}
			checkJUnit(t, raw, c.verdict == "PASS")
			for _, file := range []string{"report.md", "report.html", "report.json", "report.xml", "events.jsonl"} {
				if _, err := os.Stat(filepath.Join(out, report.ID, file)); err != nil {
					t.Error(err)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "up.json")); !os.IsNotExist(err) {
				t.Errorf("the record is still there: %v", err)
			}
			events := filepath.Join(out, report.ID, "events.jsonl")
			if did := command(t, dir, "verify", "--file", events); did.code != run.OK || !strings.HasPrefix(did.out, "whole: ") {
				t.Errorf("verify: %+v", did)
			}
			if again := command(t, dir, "report", "--format", "json", "--file", events); again.code != run.OK || again.out != did.out {
				t.Errorf("the report, recomputed: exit %d, %s\n%s", again.code, again.errs, again.out)
			}
		})
	}
}

// checkJUnit fails the test unless a report is well-formed JUnit that counts right, and
// has a failure or an error exactly if the drill did not pass.
func checkJUnit(t *testing.T, raw []byte, passed bool) {
	t.Helper()
	var j junit
	if err := xml.Unmarshal(raw, &j); err != nil || len(j.Suites) == 0 {
		t.Fatalf("JUnit: %v\n%s", err, raw)
	}
	bad := 0
	for _, s := range j.Suites {
		failures, errs := 0, 0
		for _, c := range s.Cases {
			if c.Name == "" {
				t.Errorf("a case without a name:\n%s", raw)
			}
			if c.Failure != nil {
				failures++
			}
			if c.Error != nil {
				errs++
			}
		}
		if s.Tests != len(s.Cases) || s.Failures != failures || s.Errors != errs || len(s.Cases) == 0 {
			t.Errorf("it counts %d, %d, %d and has %d, %d, %d:\n%s", s.Tests, s.Failures, s.Errors, len(s.Cases), failures, errs, raw)
		}
		bad += failures + errs
	}
	if (bad == 0) != passed {
		t.Errorf("%d failures and errors of a drill that passed: %v\n%s", bad, passed, raw)
	}
}

// TestRunOfWhatCannotBeRun: 254, and neither a report nor a record.
func TestRunOfWhatCannotBeRun(t *testing.T) {
	dir := t.TempDir()
	xmlFile := filepath.Join(dir, "junit.xml")
	for name, file := range map[string]string{
		"no such file":   filepath.Join(dir, "none.yaml"),
		"no drill":       write(t, "x.yaml", "kind: Drill\n"),
		"no such action": simDrill(t, "{}", "1m", "[{name: mend, target: shop, action: mand}]"),
	} {
		did := command(t, dir, "run", "--json", "--junit", xmlFile, file)
		if did.code != run.BadArguments || did.out != "" || !strings.Contains(did.errs, file) {
			t.Errorf("%s: %+v", name, did)
		}
	}
	if _, err := os.Stat(xmlFile); err == nil {
		t.Error("there is a JUnit report of no drill")
	}
	if _, err := os.Stat(filepath.Join(dir, "up.json")); err == nil {
		t.Error("there is a record")
	}
}

package render_test

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
	"github.com/firedrill/firedrill/services/reporter/render"
)

// TestHTMLIsSelfContained: an auditor opens the file offline, years later.
func TestHTMLIsSelfContained(t *testing.T) {
	for name := range synthetic.Variants() {
		b, err := render.HTML(folded(t, name))
		if err != nil {
			t.Fatal(err)
		}
		page := string(b)
		for _, bad := range []string{"<script", "src=", "href=", "@import", "http://", "<link", "<iframe", "javascript:"} {
			if strings.Contains(page, bad) {
				t.Errorf("%s: the page holds %q", name, bad)
			}
		}
		if m := regexp.MustCompile(`url\([^#)][^)]*\)`).FindString(page); m != "" {
			t.Errorf("%s: the page loads %s", name, m)
		}
		if strings.Contains(page, "NaN") || strings.Contains(page, "Inf") || strings.Contains(page, "%!") {
			t.Errorf("%s: a figure could not be drawn", name)
		}
		wellFormedSVG(t, page)
	}
}

func wellFormedSVG(t *testing.T, page string) {
	t.Helper()
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1) {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("an SVG is not well formed: %v", err)
				break
			}
		}
	}
}

// TestRequester: a drill that was asked for over HTTP without a name has none, and
// the word that stands for it in subjects is no name either.
func TestRequester(t *testing.T) {
	r := folded(t, "pass")
	for who, want := range map[string]string{"http": "not named (over HTTP)", "ci": "ci"} {
		r.Requester = who
		files, err := render.All(r)
		if err != nil {
			t.Fatal(err)
		}
		if s := string(files[render.FileMarkdown]); !strings.Contains(s, "**Requested by**: "+want+" ") || !strings.Contains(s, "| request | "+want+" |") {
			t.Errorf("Markdown of a drill that %s asked for does not say %q", who, want)
		}
		if s := string(files[render.FileHTML]); !strings.Contains(s, "<dt>Requested by</dt><dd>"+want+"</dd>") {
			t.Errorf("HTML of a drill that %s asked for does not say %q", who, want)
		}
	}
	index, err := render.Index([]render.Entry{{ID: "d-1", Requester: "http"}}, "")
	if err != nil || !strings.Contains(string(index), "not named (over HTTP)") {
		t.Errorf("the list: %v %s", err, index)
	}
}

const evil = `</text><script>alert(1)</script> | "x" & 'y' [link](http://evil) ` + "`code`\n# head"

// TestHostileText puts markup wherever a server or a user can put text.
func TestHostileText(t *testing.T) {
	b := synthetic.Build("d", evil, synthetic.Phase{Name: "kill", Title: evil, Operation: "kill", RTO: time.Minute, Back: time.Second})
	b.Add(2*time.Second, event.TypeExternalNoted, event.ExternalNoted{From: evil, Note: evil})
	b.Add(9*time.Second, event.TypeEvidenceCollected, event.EvidenceCollected{Phase: "kill", Target: evil, Cause: evil, Items: []event.Artifact{{Name: evil, Text: evil + "\x00\x1b[31m"}}})
	b.Add(9*time.Second, event.TypeActionFailed, event.ActionFailed{Step: "kill/recovery/" + evil, Reason: evil})
	_, ring := synthetic.Keys()
	r, err := fold.Fold(b.History(), ring)
	if err != nil {
		t.Fatal(err)
	}
	files, err := render.All(r)
	if err != nil {
		t.Fatal(err)
	}
	if page := string(files[render.FileHTML]); strings.Contains(page, "<script") {
		t.Error("the HTML runs a script")
	} else {
		wellFormedSVG(t, page)
	}
	for _, line := range strings.Split(string(files[render.FileMarkdown]), "\n") {
		code := strings.HasPrefix(line, "    ")
		if !code && (strings.Contains(line, "<script") || strings.Contains(line, "[link]") && !strings.Contains(line, `\[link]`) || strings.HasPrefix(line, "# head")) {
			t.Errorf("Markdown markup came through: %s", line)
		}
	}
	var any struct{}
	if err := xml.Unmarshal(files[render.FileJUnit], &any); err != nil {
		t.Errorf("JUnit: %v", err)
	}
}

type junit struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Errors   int `xml:"errors,attr"`
	Suites   []struct {
		Name  string `xml:"name,attr"`
		Cases []struct {
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// TestJUnit: what a CI system shows red must be what the report calls failed.
func TestJUnit(t *testing.T) {
	for name := range synthetic.Variants() {
		r := folded(t, name)
		b, err := render.JUnit(r)
		if err != nil {
			t.Fatal(err)
		}
		var j junit
		if err := xml.Unmarshal(b, &j); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := len(r.Phases)
		if r.Settlement != nil {
			want = 1
		}
		if len(j.Suites) != want {
			t.Errorf("%s: %d suites, want %d", name, len(j.Suites), want)
		}
		cases, failures, failed := 0, 0, 0
		for _, s := range j.Suites {
			cases += len(s.Cases)
			for _, c := range s.Cases {
				if c.Failure != nil {
					failures++
				}
				if c.Error != nil {
					failed++
				}
			}
		}
		if cases != j.Tests || failures != j.Failures || failed != j.Errors {
			t.Errorf("%s: counts %d/%d/%d, cases %d/%d/%d", name, j.Tests, j.Failures, j.Errors, cases, failures, failed)
		}
		switch r.Verdict {
		case verdict.Pass:
			if j.Failures+j.Errors != 0 {
				t.Errorf("%s passed and has %d failures and %d errors", name, j.Failures, j.Errors)
			}
		case verdict.Fail:
			if j.Failures == 0 {
				t.Errorf("%s failed and has no failure", name)
			}
		default:
			if j.Errors == 0 {
				t.Errorf("%s is %s and has no error", name, r.Verdict)
			}
		}
	}
}

// TestMarkdownForm keeps the sections of the runbook's own report template.
func TestMarkdownForm(t *testing.T) {
	text := string(render.Markdown(folded(t, "fail")))
	at := 0
	for _, want := range []string{"# DR Drill Report: ", "**Date**", "**Duration**", "**Participants**", "## Executive Summary", "## Metrics",
		"### Recovery Times", "### Availability During Drill", "## Issues Identified", "## Action Items", "- [ ] ", "## Lessons Learned", "## Review Meeting Agenda", "Drill Overview", "Results Review", "Issues Discussion", "Process Improvements"} {
		i := strings.Index(text[at:], want)
		if i < 0 {
			t.Fatalf("%q is missing, or not where the template has it", want)
		}
		at += i
	}
}

func TestIndex(t *testing.T) {
	b, err := render.Index([]render.Entry{{ID: "x-1", Title: "<b>", State: "published", Verdict: "FAIL"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	if !strings.Contains(page, `href="v1/drills/x-1/report.html"`) || strings.Contains(page, "<b>") {
		t.Errorf("index: %s", page)
	}
	if strings.Contains(page, "HALTED") {
		t.Errorf("nothing is halted: %s", page)
	}
	b, err = render.Index(nil, "by me on Friday: <i>storm</i>")
	if err != nil {
		t.Fatal(err)
	}
	if page := string(b); !strings.Contains(page, "ALL HALTED") || !strings.Contains(page, "&lt;i&gt;storm") {
		t.Errorf("halted: %s", page)
	}
}

// TestSettlementForm: a drill that injected nothing has no table of recovery
// times, in any format; it says what was undone.
func TestSettlementForm(t *testing.T) {
	for name, total := range map[string]string{"settled": "PASS", "unsettled": "FAIL"} {
		files, err := render.All(folded(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for file, want := range map[string][]string{
			render.FileMarkdown: {"Settles drill orders-missing-7", "**Verdict**: " + total, "## What Was Undone", "kill-sync/recovery/promote"},
			render.FileHTML:     {"Settles drill orders-missing-7", ">" + total + "<", "What Was Undone", "kill-sync/recovery/promote"},
			render.FileJSON:     {`"settles": "orders-missing-7"`, `"verdict": "` + total + `"`, `"phases": []`},
			render.FileJUnit:    {`name="settles" value="orders-missing-7"`, `name="undo: kill-sync/fault/primary"`},
		} {
			text := string(files[file])
			for _, w := range want {
				if !strings.Contains(text, w) {
					t.Errorf("%s: %s: no %q", name, file, w)
				}
			}
			for _, bad := range []string{"Recovery Times", "Availability During Drill", "INVALID:", "probes to"} {
				if strings.Contains(text, bad) {
					t.Errorf("%s: %s speaks of %q", name, file, bad)
				}
			}
		}
	}
}

// TestMarkdownPutsDetailsLast: whoever stops reading at the agenda has read what
// counts, and what is folded away is closed again.
func TestMarkdownPutsDetailsLast(t *testing.T) {
	for name := range synthetic.Variants() {
		text := string(render.Markdown(folded(t, name)))
		before, after, ok := strings.Cut(text, "## Annex")
		if !ok || strings.Contains(before, "<details>") || strings.Contains(after, "\n## ") {
			t.Errorf("%s: the annex is not the end, or details stand before it", name)
		}
		if o, c := strings.Count(after, "<details>"), strings.Count(after, "</details>"); o != c || o == 0 {
			t.Errorf("%s: %d folds are opened, %d closed", name, o, c)
		}
	}
}

// TestWordsAreKeptWhole: a narrow column must not break "injected" in two.
func TestWordsAreKeptWhole(t *testing.T) {
	b, err := render.HTML(folded(t, "fail"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, want := range []string{`<td class="whole" data-head="Status">injected</td>`, `td.whole{overflow-wrap:normal}`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if strings.Contains(page, `class="whole" data-head="Step">kill-async/fault/primary`) {
		t.Error("a long word is kept whole, and makes its column wide")
	}
}

// TestGlossaryStatesTheRuleForStable: as verdict judges it.
func TestGlossaryStatesTheRuleForStable(t *testing.T) {
	files, err := render.All(folded(t, "pass"))
	if err != nil {
		t.Fatal(err)
	}
	slack := fold.ShowDuration(int64(verdict.LatencySlack))
	for _, file := range []string{render.FileMarkdown, render.FileHTML} {
		text := string(files[file])
		for _, want := range []string{"at most twice the baseline, or the baseline and " + slack + " where that is more", "Slow, not stable yet"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q", file, want)
			}
		}
	}
}

// TestWhatWasBeforeTheFaultIsInItsRow: the chart draws it, and the text names it.
func TestWhatWasBeforeTheFaultIsInItsRow(t *testing.T) {
	b := synthetic.Build("d", "D", synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", Back: 2310 * time.Millisecond, Rough: 300 * time.Millisecond})
	_, ring := synthetic.Keys()
	r, err := fold.Fold(b.History(), ring)
	if err != nil {
		t.Fatal(err)
	}
	want := "before that, and before the fault, the service was down for " + fold.Show(*r.Phases[0].Steady[0].Earlier)
	for _, file := range []string{"report.md", "report.html"} {
		if page, err := render.File(r, file); err != nil || !strings.Contains(string(page), want) {
			t.Errorf("%s: %v: no %q", file, err, want)
		}
	}
}

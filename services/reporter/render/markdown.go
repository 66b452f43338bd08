// Package render writes a folded report for people and for machines: Markdown,
// self-contained HTML and JUnit XML. It is pure; the same report gives the same
// bytes.
package render

import (
	"fmt"
	"html"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// markdown is a Markdown text being written.
type markdown struct{ strings.Builder }

func (m *markdown) line(format string, args ...any) { fmt.Fprintf(&m.Builder, format+"\n", args...) }

// table writes a table, or nothing without rows.
func (m *markdown) table(head []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	m.line("| %s |", strings.Join(head, " | "))
	m.line("|%s", strings.Repeat("---|", len(head)))
	for _, r := range rows {
		for i := range r {
			r[i] = cell(r[i])
		}
		m.line("| %s |", strings.Join(r, " | "))
	}
	m.line("")
}

// cell makes text fit for a table, each of its lines on one of its own.
func cell(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i := range lines {
		lines[i] = inline(lines[i])
	}
	return strings.Join(lines, "<br>")
}

// inline makes text safe inside a line or a cell: what it quotes from servers
// and users must not become markup.
func inline(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "`", "'", "*", `\*`, "_", `\_`, "[", `\[`).Replace(s)
}

// Markdown writes the report in the form of the runbook's report template.
func Markdown(r fold.Report) []byte {
	m := &markdown{}
	m.line("# DR Drill Report: %s\n", r.ID)
	m.line("**%s**\n", inline(r.Title))
	m.line("**Verdict**: %s  ", verdictOf(r))
	m.line("**Date**: %s  ", r.Accepted.UTC().Format("2 January 2006"))
	m.line("**Duration**: %s  ", durationOf(r))
	m.line("**Requested by**: %s  ", inline(fold.ShowRequester(r.Requester)))
	m.line("**Participants**: %s\n", inline(orDash(r.Participants)))
	if r.Description != "" {
		m.line("%s\n", inline(r.Description))
	}
	m.line("## Executive Summary\n")
	for _, s := range r.Summary {
		m.line("- %s", inline(s))
	}
	m.line("")
	if r.Settlement != nil {
		m.settlement(r.Settlement)
	} else {
		m.line("## Metrics\n")
		m.metrics(r)
		m.line("## Phases\n")
		for _, p := range r.Phases {
			m.phase(r, p)
		}
	}
	m.issues(r)
	m.annex(r)
	return []byte(m.String())
}

func verdictOf(r fold.Report) string {
	if r.State == fold.StateRunning {
		return doing(r) + suffixIf(string(r.Verdict), " (so far %s)")
	}
	return string(r.Verdict)
}

// doing is what a drill does that has not ended.
func doing(r fold.Report) string {
	if len(r.Conduct.Aborts) > 0 {
		return "aborting"
	}
	return "running"
}

// durationOf says how long the drill took and when that was.
func durationOf(r fold.Report) string {
	if r.State == fold.StateRunning {
		return fmt.Sprintf("%s so far (since %s)", fold.ShowDuration(r.Duration), fold.ShowTime(r.Accepted))
	}
	return fmt.Sprintf("%s (%s – %s)", fold.ShowDuration(r.Duration), fold.ShowTime(r.Accepted), fold.ShowTime(r.Ended))
}

func suffixIf(s, format string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf(format, s)
}

func orDash(list []string) string {
	if len(list) == 0 {
		return fold.Never
	}
	return strings.Join(list, ", ")
}

func (m *markdown) metrics(r fold.Report) {
	m.line("### Recovery Times\n")
	m.table(recoveryHead, recoveryRows(r))
	m.line("### Availability During Drill\n")
	m.table(availabilityHead, availabilityRows(r))
	m.line("%s\n", availabilityNote)
	m.line("### Acknowledged Writes\n")
	if rows := ledgerRows(r); len(rows) > 0 {
		m.table(ledgerHead, rows)
		m.line("%s\n", ledgerNote)
	} else if r.State == fold.StateRunning {
		m.line("No ledger has been read yet.\n")
	} else {
		m.line("No ledger was read.\n")
	}
	if rows := splitRows(r); len(rows) > 0 {
		m.line("### Where the Time Went\n")
		m.table(splitHead, rows)
	}
}

// settlement is what a drill that settles another one has instead of metrics.
func (m *markdown) settlement(s *fold.Settlement) {
	m.line("## What Was Undone\n")
	m.table(settledHead, settledRows(s))
	m.line("## Results\n")
	m.table(resultHead, resultRows(s.Results))
}

// phase is what was judged of a phase; its details are in the annex.
func (m *markdown) phase(r fold.Report, p fold.Phase) {
	m.line("### %s: %s\n", inline(p.Title), orRunning(p))
	switch {
	case p.State == "waiting" && r.State == fold.StateRunning:
		m.line("The phase has not begun yet.\n")
	case p.State == "waiting":
		m.line("The phase did not begin.\n")
	case p.State == fold.StateRunning:
		m.line("Since %s (%s so far)\n", fold.ShowTime(p.Started), fold.ShowDuration(p.Duration))
	default:
		m.line("%s – %s (%s)%s\n", fold.ShowTime(p.Started), fold.ShowTime(p.Ended), fold.ShowDuration(p.Duration), suffixIf(inline(p.Reason), "; %s"))
	}
	m.table(resultHead, resultRows(p.Results))
	if p.Failback != nil {
		m.line("%s\n", inline(p.Failback.Text()))
	}
}

// details is everything else about a phase, for those who look into it.
func (m *markdown) details(p fold.Phase) {
	m.section("Faults", faultHead, faultRows(p))
	m.section("Actions and undos", actionHead, actionRows(p))
	m.section("Outages", outageHead, outageRows(p))
	m.section(errorTitle, errorHead, errorRows(p))
	m.section("Steady state", steadyHead, steadyRows(p))
	m.section("Checks", checkHead, checkRows(p.Checks))
	m.section("Evidence kept", copyHead, copyRows(p))
	m.section("Observer", observerHead, observerRows(p))
	m.evidence(p.Evidence)
}

func (m *markdown) evidence(sets []fold.EvidenceSet) {
	for _, e := range sets {
		m.line("**Evidence: %s** (%s)\n", inline(e.Target), inline(e.Cause))
		for _, a := range e.Items {
			m.line("%s%s:\n", inline(a.Name), map[bool]string{true: " (end only)"}[a.Truncated])
			m.line("%s\n", indent(a.Text))
		}
	}
}

// fold puts what body writes behind a line that a reader can open; where the
// Markdown is not rendered, it is simply there. No quoted text can end it: inline
// and indent leave no markup in what body writes, and the title is HTML.
func (m *markdown) fold(title string, body func()) {
	title = strings.ReplaceAll(html.EscapeString(strings.Join(strings.Fields(title), " ")), "[", "&#91;")
	m.line("<details>\n<summary>%s</summary>\n", title)
	body()
	m.line("</details>\n")
}

func orRunning(p fold.Phase) string {
	if p.Verdict == "" {
		return p.State
	}
	return string(p.Verdict)
}

// indent makes a code block that no text can end.
func indent(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return "    " + strings.Join(lines, "\n    ")
}

func (m *markdown) section(title string, head []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	m.line("**%s**\n", title)
	m.table(head, rows)
}

func (m *markdown) issues(r fold.Report) {
	m.line("## Issues Identified\n")
	if len(r.Issues) == 0 {
		m.line("None.")
	}
	for i, x := range r.Issues {
		m.line("%d. **%s** %s (%s%s)%s", i+1, x.ID, inline(x.Title), x.Severity, suffixIf(inline(x.Phase), ", %s"), suffixIf(inline(x.Detail), ": %s"))
	}
	m.line("\n## Action Items\n")
	if len(r.ActionItems) == 0 {
		m.line("None.")
	}
	for _, a := range r.ActionItems {
		m.line("- [ ] **%s** %s", a.Issue, inline(a.Text))
	}
	m.line("\n## Lessons Learned\n\n_To be written at the review._\n")
	m.line("## Review Meeting Agenda\n")
	for i, a := range r.Agenda {
		m.line("%d. **%s** (%d min)", i+1, a.Title, a.Minutes)
		for _, p := range a.Points {
			m.line("   - %s", inline(p))
		}
	}
	m.line("")
}

// annex is what an auditor needs to trust and to repeat the figures.
func (m *markdown) annex(r fold.Report) {
	m.line("## Annex\n")
	for _, p := range r.Phases {
		if p.State != "waiting" {
			m.fold("Details of "+p.Title, func() { m.details(p) })
		}
	}
	if s := r.Settlement; s != nil && len(s.Evidence) > 0 {
		m.fold("Evidence", func() { m.evidence(s.Evidence) })
	}
	m.line("### Verification\n")
	m.table([]string{"What", "Found"}, verificationRows(r))
	for _, p := range r.Verification.Problems {
		m.line("- %s", inline(p))
	}
	if len(r.Verification.Problems) > 0 {
		m.line("")
	}
	m.fold("Conduct", func() { m.table(conductHead, conductRows(r)) })
	if rows := planRows(r); len(rows) > 0 {
		m.fold(fmt.Sprintf("Plan, blast radius %d", r.Plan.BlastRadius), func() { m.table(planHead, rows) })
	}
	m.fold("How to read the figures", func() {
		for _, d := range definitions(r) {
			m.line("- **%s**: %s", d[0], d[1])
		}
		m.line("")
	})
	m.fold("The drill as run", func() {
		m.line("Seed %d, SHA-256 of the specification %s.\n", r.Seed, orNone(r.SpecHash))
		m.line("%s\n", indent(specText(r)))
	})
}

func orNone(s string) string {
	if s == "" {
		return fold.Never
	}
	return s
}

func status(v verdict.Verdict) string {
	if v == "" {
		return fold.Never
	}
	return string(v)
}

func parts(ps []event.Part) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.ID+" ("+p.Kind+")")
	}
	return orDash(out)
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

package render

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

//go:embed report.css
var reportCSS string

//go:embed report.html.tmpl
var reportTemplate string

// table is a table for the HTML template.
type table struct {
	Head []string
	Rows [][]string
	// Status is the column that holds verdicts, -1 for none.
	Status int
}

// card is one of a phase's figures at the top, with the verdict on it alone.
type card struct {
	Title, Figure, Objective, Verdict string
}

// section is one phase of the page.
type section struct {
	fold.Phase
	Verdict  string
	Timeline template.HTML
	Close    template.HTML
	Splits   []splitRow
	Tables   []named
	Results  table
}

type splitRow struct {
	Name string
	Bar  template.HTML
}

type named struct {
	Title string
	table
}

// page is what the template gets.
type page struct {
	fold.Report
	// Live is true while the drill runs: the page then loads itself again.
	Live        bool
	CSS         template.CSS
	Verdict     string
	Cards       []card
	Undone      table
	Results     table
	Recovery    table
	Splits      table
	Lanes       table
	Ledgers     table
	LanesNote   string
	LedgersNote string
	Conduct     table
	Plan        table
	Proof       table
	Sections    []section
	Definitions [][2]string
	SpecText    string
}

// HTML writes the report as one self-contained page: no scripts, and nothing
// that is loaded from elsewhere.
func HTML(r fold.Report) ([]byte, error) {
	t, err := template.New("report").Funcs(template.FuncMap{
		"duration": fold.ShowDuration, "time": fold.ShowTime, "clock": clock, "join": orDash, "class": classOf, "count": count, "requester": fold.ShowRequester, "unbroken": unbroken, "wide": wide,
	}).Parse(reportTemplate)
	if err != nil {
		return nil, fmt.Errorf("parse the report's template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, pageOf(r)); err != nil {
		return nil, fmt.Errorf("report of drill %s as HTML: %w", r.ID, err)
	}
	return b.Bytes(), nil
}

func pageOf(r fold.Report) page {
	p := page{
		Report: r, CSS: template.CSS(reportCSS), Verdict: string(r.Verdict),
		Recovery: table{recoveryHead, recoveryRows(r), 5}, Splits: table{splitHead, splitRows(r), -1},
		LanesNote: availabilityNote, LedgersNote: ledgerNote,
		Lanes: table{availabilityHead, availabilityRows(r), -1}, Ledgers: table{ledgerHead, ledgerRows(r), -1},
		Conduct: table{conductHead, conductRows(r), -1}, Plan: table{planHead, planRows(r), -1},
		Proof: table{[]string{"What", "Found"}, verificationRows(r), -1}, Definitions: definitions(r), SpecText: specText(r),
	}
	if p.Live = r.State == fold.StateRunning; p.Live {
		p.Verdict = strings.ToUpper(doing(r))
	}
	if x := r.Settlement; x != nil {
		p.Undone, p.Results = table{settledHead, settledRows(x), 6}, table{resultHead, resultRows(x.Results), 3}
	}
	for i, x := range r.Phases {
		p.Cards = append(p.Cards, cardsOf(x)...)
		p.Sections = append(p.Sections, sectionOf(x, i))
	}
	return p
}

// cardsOf are a phase's recovery, what else of it was measured against an objective,
// and what else did not pass.
func cardsOf(p fold.Phase) []card {
	back := card{Title: p.Title + ": achieved recovery", Figure: fold.Never, Objective: "no objective", Verdict: orRunning(p)}
	for i, x := range p.Recovery {
		if i == 0 || x.Achieved.Open || x.Achieved.Hi > p.Recovery[0].Achieved.Hi {
			back.Figure = fold.ShowRecovery(x)
		}
	}
	if p.Objective.RTO > 0 {
		back.Objective = "objective " + fold.ShowDuration(p.Objective.RTO)
	}
	out := []card{back}
	for _, x := range p.Results {
		objective := "objective " + x.Objective
		switch x.Of {
		case verdict.OfRTO:
			out[0].Verdict = string(x.Verdict)
			continue
		case verdict.OfRPORecords, verdict.OfRPOTime, verdict.OfAvailability:
		default:
			if x.Verdict == verdict.Pass || x.Of == verdict.OfValidity {
				continue // what is not valid is so on every card
			}
			objective = "wanted: " + x.Objective
		}
		out = append(out, card{Title: p.Title + ": " + strings.ToLower(fold.Subject(x.Of)), Figure: x.Achieved, Objective: objective, Verdict: string(x.Verdict)})
	}
	return out
}

func sectionOf(p fold.Phase, i int) section {
	s := section{Phase: p, Verdict: orRunning(p), Timeline: timeline(p, i), Close: closeUp(p, i), Results: table{resultHead, resultRows(p.Results), 3}}
	for _, x := range p.Recovery {
		if bar := splitBar(x.Splits); bar != "" {
			s.Splits = append(s.Splits, splitRow{x.Name, bar})
		}
	}
	for _, n := range []named{
		{"Faults and their proof", table{faultHead, faultRows(p), -1}},
		{"Actions and undos", table{actionHead, actionRows(p), 4}},
		{"Outages", table{outageHead, outageRows(p), -1}},
		{errorTitle, table{errorHead, errorRows(p), -1}},
		{"Checks", table{checkHead, checkRows(p.Checks), 3}},
		{"Steady state", table{steadyHead, steadyRows(p), 1}},
		{"Evidence kept", table{copyHead, copyRows(p), 3}},
		{"Observer quality", table{observerHead, observerRows(p), -1}},
	} {
		if len(n.Rows) > 0 {
			s.Tables = append(s.Tables, n)
		}
	}
	return s
}

// classOf maps a verdict or a status to its colour.
func classOf(s string) string {
	s, _, _ = strings.Cut(s, ":")
	switch s {
	case string(verdict.Pass), event.ResultPass, "done", "established":
		return "pass"
	case string(verdict.Fail), event.ResultFail, "failed", "violated", "owed", fold.Critical:
		return "fail"
	case string(verdict.Inconclusive), event.ResultInconclusive, "not asked", fold.Minor:
		return "unsure"
	case string(verdict.Invalid), fold.Major:
		return "invalid"
	}
	return "plain"
}

// unbroken reports whether a cell's words are short enough to be kept whole, so
// that a narrow column shows "injected" and not "injecte" above "d".
func unbroken(cell string) bool {
	return !slices.ContainsFunc(strings.Fields(cell), func(word string) bool { return utf8.RuneCountInString(word) > maxUnbroken })
}

// wide reports whether a table has so many columns that only a wide screen shows
// them side by side; the style sheet says what narrower ones do.
func wide(head []string) bool { return len(head) >= 8 }

// maxUnbroken is the longest word that is kept whole: ten columns of them fit.
const maxUnbroken = 14

func count(n int) string { return fold.ShowCount(int64(n)) }

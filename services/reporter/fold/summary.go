package fold

import (
	"fmt"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// summarise writes the executive summary.
func summarise(r Report) []string {
	if r.Settlement != nil {
		return summariseSettlement(r)
	}
	out := []string{opening(r)}
	for _, p := range r.Phases {
		if s := phaseSentence(p); s != "" {
			out = append(out, s)
		}
	}
	if r.State == StateFinished {
		out = append(out, closing(r)...)
	}
	return out
}

func opening(r Report) string {
	if r.State == StateRunning {
		return fmt.Sprintf("The drill is running; what is shown is provisional (%s so far).", ShowDuration(r.Duration))
	}
	passed := 0
	for _, p := range r.Phases {
		if p.Verdict == verdict.Pass {
			passed++
		}
	}
	s := fmt.Sprintf("%d of %s passed in %s.", passed, Plural(len(r.Phases), "phase"), ShowDuration(r.Duration))
	switch r.Verdict {
	case verdict.Pass:
		return "The drill passed: " + s
	case verdict.Fail:
		return "The drill failed: " + s
	case verdict.Inconclusive:
		return "The drill could not be decided: " + s
	}
	return "The drill is not valid, so it proves nothing about the system as a whole: " + s
}

// Plural writes a number of things: "1 phase", "2 copies".
func Plural[N int | int64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	if stem, ok := strings.CutSuffix(thing, "y"); ok {
		return ShowCount(int64(n)) + " " + stem + "ies"
	}
	return ShowCount(int64(n)) + " " + thing + "s"
}

// phaseSentence says in a sentence what came of a phase.
func phaseSentence(p Phase) string {
	if n := len(p.Recovery); p.Verdict == "" && n > 0 && p.Recovery[n-1].Ongoing {
		return fmt.Sprintf("%s: the service is down (%s).", p.Title, ShowRecovery(p.Recovery[n-1]))
	}
	if p.Verdict == "" {
		return ""
	}
	return outcomeSentence(p) + keepSentence(p)
}

// keepSentence names the evidence that was not kept, and the mirrors that are behind.
func keepSentence(p Phase) (s string) {
	var lacking, instead, behind []string
	for _, c := range p.Copies {
		switch {
		case c.Status == statusDone:
		case c.Mirror != "":
			behind = append(behind, c.problem())
		case len(c.instead) > 0:
			instead = append(instead, c.problem())
		default:
			lacking = append(lacking, c.problem())
		}
	}
	if p.State != StateFinished {
		return ""
	}
	if len(lacking) > 0 {
		s = " Evidence was not kept: " + joinReasons(lacking) + "."
	}
	if len(instead) > 0 {
		s = " Evidence was not kept as planned: " + joinReasons(instead) + "."
	}
	if len(behind) > 0 {
		s += " Not brought up to date: " + joinReasons(behind) + "."
	}
	return s
}

func outcomeSentence(p Phase) string {
	if p.Verdict == verdict.Invalid {
		s := fmt.Sprintf("%s: %s. ", p.Title, p.Verdict)
		for _, r := range p.Results {
			if r.Verdict == verdict.Invalid {
				s += capital(r.Why) + "."
				if p.costly {
					s += fmt.Sprintf(" Its users were without service for %s, up to the end of the phase%s.", Show(p.cost), blindly(p.cost, p.unwatched))
				}
				return s
			}
		}
	}
	s := fmt.Sprintf("%s: %s%s. ", p.Title, p.Verdict, decided(p))
	// A drill that was cut short keeps a failure that was proven before.
	late := slices.ContainsFunc(p.Results, func(r Result) bool { return r.Of == verdict.OfRTO && r.Verdict == verdict.Fail })
	if p.invalid() && !late {
		s += "What was timed is not valid"
	} else if len(p.Recovery) > 0 {
		r := worstRecovery(p.Recovery)
		switch {
		case r.NeverFailed && r.Achieved.Open:
			s += "No attempt failed, but the service was not watched or not prompt for the whole stable window"
		case r.NeverFailed:
			s += fmt.Sprintf("No attempt failed; an outage, if there was one, was shorter than %s", ShowDuration(r.Achieved.Hi))
		case r.Achieved.Open && r.Achieved.Lo == 0:
			s += "The service was not seen to recover"
		case r.Achieved.Open:
			s += fmt.Sprintf("The service was not stable again within %s of the fault", ShowDuration(r.Achieved.Lo))
		default:
			s += fmt.Sprintf("The service was back and stable %s after the fault", Show(r.Achieved))
		}
		if p.Objective.RTO > 0 {
			s += fmt.Sprintf(" (objective %s)", ShowDuration(p.Objective.RTO))
		}
		if len(r.Slow) > 0 && !r.FirstSuccess.Open {
			s += fmt.Sprintf("; it answered again after %s, but too slowly", Show(r.FirstSuccess))
		}
	}
	if lost, ok := lostRecovered(p); ok {
		s += fmt.Sprintf("; %s of %s acknowledged writes were lost", ShowCount(lost), ShowCount(ackedRecovered(p)))
	}
	return strings.TrimSpace(s) + "."
}

// blindly says what the upper end of a downtime, if it has one, holds beside what was seen.
func blindly(down event.Interval, unwatched bool) string {
	if down.Open || !unwatched {
		return ""
	}
	return "; the upper end holds the time in which nobody watched"
}

// decided names what gave a phase that did not pass its verdict.
func decided(p Phase) string {
	var of []string
	for _, r := range p.Results {
		if p.Verdict != verdict.Pass && r.Verdict == p.Verdict {
			of = append(of, strings.ToLower(Subject(r.Of)))
		}
	}
	return parenthesis(strings.Join(of, ", "))
}

func parenthesis(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// agenda is the review meeting's: the runbook's points, with this drill's own.
func agenda(r Report) []AgendaItem {
	overview := []string{"What was tested: " + r.Title, "Who took part: " + orNone(r.Participants, "nobody was named; requested by "+ShowRequester(r.Requester))}
	var results []string
	if r.Settlement != nil {
		results = append(results, r.Summary[0])
	}
	for _, p := range r.Phases {
		line := p.Title + ": " + string(p.Verdict)
		if p.invalid() && p.Verdict != verdict.Invalid {
			line += " (what was timed is not valid)"
		}
		if len(p.Recovery) > 0 {
			line += ", recovery " + ShowRecovery(worstRecovery(p.Recovery))
			if p.Objective.RTO > 0 {
				line += " against " + ShowDuration(p.Objective.RTO)
			}
		}
		results = append(results, line)
	}
	if r.Settlement == nil {
		results = append(results, "RTO achievement of each phase")
	}
	var problems, todos []string
	for _, i := range r.Issues {
		problems = append(problems, i.ID+": "+i.Title)
	}
	if n := len(r.ActionItems); n > 0 {
		todos = []string{fmt.Sprintf("The %s above, of %s", Plural(n, "item"), Plural(len(r.Issues), "issue"))}
	}
	if len(problems) == 0 {
		problems = []string{"No issues were identified"}
	}
	if len(todos) == 0 {
		todos = []string{"None were derived; add what the meeting finds"}
	}
	return []AgendaItem{
		{Title: "Drill Overview", Minutes: 5, Points: overview},
		{Title: "Results Review", Minutes: 15, Points: results},
		{Title: "Issues Discussion", Minutes: 20, Points: append(problems, "Root causes")},
		{Title: "Action Items", Minutes: 10, Points: append(todos, "Assign owners and set deadlines")},
		{Title: "Process Improvements", Minutes: 10, Points: []string{"Runbook updates", "Automation opportunities"}},
	}
}

func orNone(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}

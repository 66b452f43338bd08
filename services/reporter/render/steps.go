package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

func actionRows(p fold.Phase) [][]string {
	var rows [][]string
	for _, a := range p.Actions {
		rows = append(rows, []string{a.Stage + ": " + a.Name, a.Operation, offset(a.From), fold.ShowDuration(a.Took), a.Status, details(a.Details, a.Reason)})
	}
	for us := p.Undos; len(us) > 0; {
		n := 1
		for n < len(us) && alike(us[0], us[n]) {
			n++
		}
		rows = append(rows, undoRow(us[:n]))
		us = us[n:]
	}
	return rows
}

// alike reports whether two undos came to the same, so that it need be said once
// only: after a failback, each of them finds nothing to do.
func alike(a, b fold.UndoRun) bool {
	return a.Status == "done" && b.Status == "done" && a.Tries == b.Tries && len(a.Reasons)+len(b.Reasons) == 0 && maps.Equal(a.Details, b.Details)
}

// undoRow is the line of undos that are alike, one after the other.
func undoRow(us []fold.UndoRun) []string {
	var steps []string
	var took int64
	for _, u := range us {
		steps = append(steps, "undo: "+u.Step)
		took += u.Took
	}
	u, time := us[0], fold.ShowDuration(took)
	if len(us) > 1 {
		time += " in all"
	}
	why := strings.Join(slices.Compact(slices.Clone(u.Reasons)), "\n")
	return []string{strings.Join(steps, "\n"), fmt.Sprintf("try %d", u.Tries), offset(u.From), time, u.Status, details(u.Details, why)}
}

// details writes what an operation said of itself, a thing a line. Drivers number
// what they did step by step as step.01, step.02 and so on.
func details(d map[string]string, reason string) string {
	var steps, rest []string
	for _, k := range slices.Sorted(maps.Keys(d)) {
		text := fold.ShowUnits(strings.Join(strings.Fields(d[k]), " "))
		if strings.HasPrefix(k, "step.") {
			steps = append(steps, text)
		} else {
			rest = append(rest, k+": "+text)
		}
	}
	if len(steps) > 1 {
		for i := range steps {
			steps[i] = fmt.Sprintf("%d. %s", i+1, steps[i])
		}
	}
	out := append(steps, rest...)
	if reason != "" {
		out = append(out, reason)
	}
	if len(out) == 0 {
		return fold.Never
	}
	return strings.Join(out, "\n")
}

func outageRows(p fold.Phase) [][]string {
	var rows [][]string
	for _, o := range p.Outages {
		stretch := "window"
		if o.Restore {
			stretch = "after it"
		}
		rows = append(rows, []string{o.Probe + "/" + o.Lane, stretch, offsets(o.From), offsets(o.To), fold.Show(o.Length), number(o.FirstBad) + "–" + number(o.LastBad), causeOf(o.Errors)})
	}
	return rows
}

// otherErrors is what the observer calls those beyond the first few texts.
const otherErrors = "other errors"

// causeOf is what the first error comes down to, for people; one that the observer
// had to cut is only taken if there is no other. The texts follow the table.
func causeOf(errors []string) string {
	named := slices.DeleteFunc(slices.Clone(errors), func(e string) bool { return e == otherErrors })
	if len(named) == 0 {
		return orDash(errors)
	}
	i := slices.IndexFunc(named, func(e string) bool { return !strings.HasSuffix(e, fold.Ellipsis) })
	return fold.ShowCause(named[max(i, 0)])
}

// errorRows are the texts of which the outages' causes are only the gist, each with
// the lanes that met it. Those that differ only in their numbers, such as the port of
// each connection, are one.
func errorRows(p fold.Phase) [][]string {
	type met struct {
		text         string
		lanes, alike []string
	}
	var all []*met
	byKind := map[string]*met{}
	for _, o := range p.Outages {
		for _, e := range o.Errors {
			if e == otherErrors || fold.ShowCause(e) == fold.ShowUnits(e) {
				continue
			}
			kind := numbers().ReplaceAllString(e, "0")
			m := byKind[kind]
			if m == nil {
				m = &met{text: e}
				byKind[kind], all = m, append(all, m)
			}
			if e != m.text && !slices.Contains(m.alike, e) {
				m.alike = append(m.alike, e)
			}
			if lane := o.Probe + "/" + o.Lane; !slices.Contains(m.lanes, lane) {
				m.lanes = append(m.lanes, lane)
			}
		}
	}
	var rows [][]string
	for _, m := range all {
		text := m.text
		if n := len(m.alike); n > 0 {
			text += "\nand " + fold.Plural(n, "other") + " that " + map[bool]string{true: "differs", false: "differ"}[n == 1] + " only in numbers"
		}
		rows = append(rows, []string{strings.Join(m.lanes, "\n"), text})
	}
	return rows
}

var numbers = lazy.Regexp(`[0-9]+`)

package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

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
		stretch := "recovery"
		if o.Restore {
			stretch = "restore"
		}
		rows = append(rows, []string{o.Probe + "/" + o.Lane, stretch, offsets(o.From), offsets(o.To), fold.Show(o.Length), number(o.FirstBad) + "–" + number(o.LastBad), causeOf(o.Errors)})
	}
	return rows
}

const (
	// ellipsis ends a text that was cut.
	ellipsis = "…"
	// otherErrors is what the observer calls those beyond the first few texts.
	otherErrors = "other errors"
)

// causeOf is what the first error comes down to, for people; one that the observer
// had to cut is only taken if there is no other. All of them are in report.json.
func causeOf(errors []string) string {
	named := slices.DeleteFunc(slices.Clone(errors), func(e string) bool { return e == otherErrors })
	if len(named) == 0 {
		return orDash(errors)
	}
	i := slices.IndexFunc(named, func(e string) bool { return !strings.HasSuffix(e, ellipsis) })
	return fold.ShowUnits(innermost(named[max(i, 0)]))
}

// maxCause bounds a cause, in characters.
const maxCause = 80

// innermost is the last part of a Go error, which wraps its cause as "doing this:
// doing that: cause". A cause of a single word takes what stands before it along,
// and a part that was cut off in its middle says less than the one before it.
func innermost(text string) string {
	parts := strings.Split(strings.Join(strings.Fields(text), " "), ": ")
	end := ""
	if n := len(parts) - 1; n > 0 && strings.HasSuffix(parts[n], ellipsis) {
		parts, end = parts[:n], " "+ellipsis
	}
	i := len(parts) - 1
	for i > 0 && !strings.Contains(strings.Join(parts[i:], ": "), " ") {
		i--
	}
	return atWord(strings.Join(parts[i:], ": "), maxCause) + end
}

// atWord cuts a text that is longer than most characters after a word.
func atWord(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	cut := string([]rune(text)[:most])
	if i := strings.LastIndexByte(cut, ' '); i > 0 {
		cut = cut[:i]
	}
	return cut + " " + ellipsis
}

package cli

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/runlog"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// same reports whether two runs are the same one.
func same(a, b *runlog.Run) bool { return a != nil && b != nil && a.Began.Equal(b.Began) }

// print writes the status for people.
func (st *mirrorStatus) print(a *app) {
	title := st.From + " -> " + st.To
	if st.Name != "" {
		title = st.Name + ": " + title
	}
	if st.Mode != "" {
		title += ", mode " + st.Mode
	}
	fmt.Fprintln(a.Out, title)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(a.Out, "  %-13s %s\n", name, fmt.Sprintf(format, args...))
	}
	if len(st.Filter) > 0 {
		line("filter", "%q", st.Filter)
	}
	if st.KeepDeleted != "" {
		line("deletes", "kept for %s, which runs prune: `mirror deleted` lists them", st.KeepDeleted)
	}
	if r := st.Running; r != nil {
		line(r.state(), "%s", r.words())
	}
	if st.Of != nil {
		line("was", "%s", st.Of.words())
	}
	switch {
	case st.Mode == "":
		line("last run", "none is remembered in %s: if it ran from another directory, name what firedrill keeps there with --state-dir", st.dir)
	case st.Last == nil:
		line("last run", "none yet")
	case st.Last.Ended.IsZero() && st.Running == nil:
		line("last run", "%s by %s: interrupted; the next run goes on from there", clockTime(st.Last.Began), st.Last.By)
	case st.Last.Ended.IsZero():
	default:
		line("last run", "%s", st.Last.Words())
	}
	if st.Success != nil && !same(st.Success, st.Last) {
		line("last success", "%s", st.Success.Words())
	}
	if st.Failure != nil && !same(st.Failure, st.Last) {
		line("last failure", "%s", st.Failure.Words())
	}
	for i, problem := range st.Problems {
		line([]string{"not well", ""}[min(i, 1)], "%s", problem)
	}
	next := func(name, schedule string, at *time.Time) {
		switch {
		case schedule == "":
		case at != nil && at.Before(time.Now()):
			line(name, "as soon as it has its turn, due since %s (%s)", clockTime(*at), schedule)
		case at != nil:
			line(name, "%s (%s)", clockTime(*at), schedule)
		default:
			line(name, "%s, once `firedrill up` runs with this inventory", schedule)
		}
	}
	next("next run", st.Schedule, st.Next)
	next("next verify", st.VerifySchedule, st.NextVerify)
	if st.Listed != nil {
		line("listed", "%s, the destination in full: what others changed there since, no run may have seen", clockTime(*st.Listed))
	}
	if c := st.Check; c != nil {
		line("last check", "%s", c.Words())
		for _, side := range c.Sides {
			line("", "%s", side)
		}
	}
	for _, r := range []*runlog.Run{st.Last, st.Success, st.Failure} {
		if r != nil && r.Root != nil {
			line("manifest", "%s, %s, root %s", fold.Plural(r.Root.Root.Entries, "entry"), size(r.Root.Root.Bytes), r.Root.Root.Hash)
			if r.Root.Signer != "" {
				line("", "signed by %s", r.Root.Signer)
			}
			break
		}
	}
}

// state is in a word what the run does.
func (r *runningJSON) state() string {
	switch {
	case r.Silent != nil:
		return "interrupted"
	case r.Waits != "":
		return "waiting"
	case r.Progress != nil && r.Progress.StillSeconds > 0:
		return "stalled"
	}
	return "running"
}

func (r *runningJSON) words() string {
	text := "since " + clockTime(r.Since)
	if r.By != "" {
		text += " by " + r.By
	}
	if r.PID > 0 {
		text += fmt.Sprintf(" (process %d)", r.PID)
	}
	if r.Do != "" && r.Do != drill.MirrorSync {
		text = r.Do + " " + text
	}
	if r.Waits != "" {
		text += ": " + r.Waits
	}
	if r.Silent != nil {
		text += fmt.Sprintf(": nothing is heard of it since %s, as its process is gone or cut off; a firedrill that runs takes it up within half a minute", clockTime(*r.Silent))
	}
	if r.Progress == nil {
		return text
	}
	p := *r.Progress
	if r.Silent != nil {
		p.LeftSeconds = nil // by when it was told
	}
	return text + farWords(p)
}

// farWords say how far a run is; "" of one that has not come to look at anything.
func farWords(p fleet.Progress) (text string) {
	if p.Planned || p.Seen+p.Actions > 0 {
		text = fmt.Sprintf(": %d of %d, %s of %s", p.DoneActions, p.Actions, size(p.DoneBytes), size(p.Bytes))
		if !p.Planned {
			text += fmt.Sprintf(", still looking (%d seen)", p.Seen)
		}
	}
	switch {
	case p.StillSeconds > 0:
		text += fmt.Sprintf(", no progress for %s", time.Duration(p.StillSeconds*float64(time.Second)).Round(time.Second))
	case p.Planned && p.LeftSeconds != nil:
		text += fmt.Sprintf(", %s left", time.Duration(*p.LeftSeconds*float64(time.Second)).Round(time.Second))
	}
	return text
}

// checkedAt says in a few words what the last comparison found, and when.
func (st *mirrorStatus) checkedAt() string {
	c := st.Check
	switch {
	case st.Unchecked != "":
		return "FAILED"
	case c == nil:
		return "-"
	}
	found := "ok"
	switch {
	case c.Differs:
		found = "DRIFT"
	case !c.Good:
		found = "NOT ok"
	}
	return fmt.Sprintf("%s %s %s: %s", clockTime(c.Ended), c.What, c.Level, found)
}

// stateWords are the state, and that a run waits where there is worse.
func (st *mirrorStatus) stateWords() string {
	if r := st.Running; r != nil && r.Waits != "" && r.Silent == nil && st.State != "waiting" {
		return st.State + ", waiting"
	}
	return st.State
}

func (a *app) printMirrors(list []*mirrorStatus) error {
	t := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "MIRROR\tMODE\tSTATE\tLAST RUN\tLAST SUCCESS\tLAST CHECK\tNEXT RUN\tLAST ERROR")
	when := func(r *runlog.Run) string {
		if r == nil {
			return "-"
		}
		return clockTime(r.Began)
	}
	now := time.Now()
	for _, st := range list {
		next, problem := "-", "-"
		switch {
		case st.Next != nil && st.Next.Before(now):
			next = "due since " + clockTime(*st.Next)
		case st.Next != nil:
			next = clockTime(*st.Next)
		case st.Schedule != "":
			next = "when firedrill up runs"
		}
		switch last := st.ended(); {
		case st.State == "interrupted":
			problem = st.Problems[0]
		case last == nil: // its state says so
		case !last.Whole:
			problem = last.Problem
		case len(st.Problems) > 0:
			problem = st.Problems[0]
		}
		problem = strings.Join(strings.Fields(strings.TrimPrefix(problem, "mirror "+st.Name+": ")), " ")
		fmt.Fprintln(t, strings.Join([]string{
			cmp.Or(st.Name, st.From+" -> "+st.To), st.Mode, st.stateWords(), when(st.Last), when(st.Success), st.checkedAt(), next, problem,
		}, "\t"))
	}
	return t.Flush()
}

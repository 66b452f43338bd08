package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/injector"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

func (a *app) planCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "plan FILE", Short: "Show what a drill would hit and do, touching nothing", Args: cobra.ExactArgs(1),
		Long: `Show what a drill would hit and do, and inside which guards, touching nothing.
Exits 0 when the drill could begin, 1 when it could not or a step cannot be resolved,
254 when the file is no valid drill.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, c, err := a.check(cmd.Context(), args[0], injector.VerbPlan)
			if err != nil {
				return err
			}
			if asJSON {
				if err := writeJSON(a.Out, c); err != nil {
					return err
				}
				return wouldBegin(c)
			}
			for _, but := range a.caveats(cmd.Context(), d.raw) {
				fmt.Fprintf(a.Out, "NOTE    %s\n", but)
			}
			printPlan(a.Out, c)
			return wouldBegin(c)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	a.inventoryFlag(c.Flags(), inventoryUsage)
	return c
}

const inventoryUsage = "file that lists systems for drills to name; default: that of a running firedrill"

// printPlan shows a plan. What is in the way of several steps is said once: first the
// machines, then the rest.
func printPlan(w io.Writer, c injector.Checked) {
	p := planPrinter{w: w, said: map[string]bool{}}
	for _, m := range machinesIn(c) {
		fmt.Fprintf(w, "PROBLEM %s\n        %s, then plan again\n", m, m.fix())
	}
	for _, problem := range byTarget(c.Problem) {
		p.problem("", problem)
	}
	if c.Guards != nil {
		printGuards(w, *c.Guards, c.BlastRadius)
	}
	for _, s := range c.Steps {
		p.step(s)
	}
}

// byTarget takes apart what a survey found, which begins with a target's name each time.
func byTarget(problem string) []string {
	const of = "\ntarget "
	parts := strings.Split(problem, of)
	for i := range parts[1:] {
		parts[i+1] = strings.TrimPrefix(of, "\n") + parts[i+1]
	}
	return parts
}

// wouldBegin is an error, with exit code 1, when the drill would not begin as planned.
func wouldBegin(c injector.Checked) error {
	problems := 0
	for _, s := range c.Steps {
		if s.Problem != "" {
			problems++
		}
	}
	switch {
	case problems > 0:
		return &exitError{code: run.Fail, err: fmt.Errorf("%d of %s cannot be resolved", problems, fold.Plural(len(c.Steps), "step"))}
	case c.Problem != "":
		return &exitError{code: run.Fail, err: errors.New("the drill would not begin")}
	}
	return nil
}

// printGuards shows what bounds the drill, its own guards and the inventory's.
func printGuards(w io.Writer, g drill.Guards, radius int) {
	protected, windows, approval := "nothing", "any time", "not needed"
	if len(g.Protect) > 0 {
		protected = strings.Join(g.Protect, ", ") + " (from faults; recovery, restore and undo act on what they need)"
	}
	if len(g.Windows) > 0 {
		var list []string
		for _, win := range g.Windows {
			list = append(list, showWindow(win))
		}
		windows = strings.Join(list, "; ")
	}
	if g.Approval {
		approval = "needed, after the plan is stored and before anything is done"
	}
	fmt.Fprintf(w, "blast radius:     a fault hits at most %s here; guards.maxParts is %d\n", fold.Plural(radius, "part"), max(1, g.MaxParts))
	fmt.Fprintf(w, "protected:        %s\n", protected)
	fmt.Fprintf(w, "faults may start: %s\n", windows)
	fmt.Fprintf(w, "deadline:         %s\n", fold.ShowDuration(int64(g.Deadline)))
	fmt.Fprintf(w, "approval:         %s\n\n", approval)
}

// showWindow writes a window as "mon, tue 22:00–06:00 Europe/Dublin".
func showWindow(w drill.Window) string {
	days := "every day"
	if len(w.Days) > 0 {
		days = strings.Join(w.Days, ", ")
	}
	return fmt.Sprintf("%s %s–%s %s", days, w.From, w.To, cmp.Or(w.Zone, "UTC"))
}

// planPrinter writes a plan's steps and remembers which problems it has written.
type planPrinter struct {
	w    io.Writer
	said map[string]bool
}

func (p planPrinter) step(s event.PlannedStep) {
	fmt.Fprintf(p.w, "%s: %s on %s\n", s.Step, s.Operation, s.Target)
	for _, part := range s.Parts {
		fmt.Fprintf(p.w, "    hits   %s %s\n", part.ID, labels(part.Labels))
	}
	for _, d := range s.Does {
		fmt.Fprintf(p.w, "    does   %s\n", d)
	}
	if s.Undo != "" {
		fmt.Fprintf(p.w, "    undo   %s\n", s.Undo)
	}
	if s.DeadMan > 0 {
		fmt.Fprintf(p.w, "    timer  the target undoes it by itself after %s\n", s.DeadMan)
	}
	p.problem("    ", s.Problem)
}

// problem writes a problem; what was said of its machines is only pointed at.
func (p planPrinter) problem(indent, text string) {
	lead, failures := splitProblem(text)
	var nodes, rest []string
	for _, f := range failures {
		if f.machine() {
			nodes = append(nodes, "node "+f.node)
		} else {
			rest = append(rest, f.text)
		}
	}
	if len(nodes) > 0 {
		slices.Sort(nodes)
		text = strings.Join(append([]string{lead + ": see " + strings.Join(slices.Compact(nodes), " and ") + " above"}, rest...), "\n")
	}
	if text != "" && !p.said[text] {
		p.said[text] = true
		fmt.Fprintf(p.w, "%sPROBLEM %s\n", indent, text)
	}
}

func labels(m map[string]string) string {
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	return strings.Join(sorted(out), " ")
}

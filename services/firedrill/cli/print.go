package cli

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/firedrill/firedrill/services/reporter/fold"
)

// isTerminal reports whether output can be redrawn in place.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// printTable prints the recovery table and what it rests on.
func printTable(w io.Writer, r fold.Report) {
	fmt.Fprintf(w, "\n%s: %s\n", r.ID, r.Verdict)
	for _, s := range r.Summary {
		fmt.Fprintf(w, "  %s\n", s)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "PHASE\tOF\tOBJECTIVE\tACHIEVED\tSTATUS")
	for _, p := range r.Phases {
		for _, res := range p.Results {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", p.Title, res.Of, res.Objective, res.Achieved, res.Verdict)
		}
	}
	_ = t.Flush() // the terminal is the only place to complain to
	for _, i := range r.Issues {
		fmt.Fprintf(w, "issue (%s): %s\n", i.Severity, i.Title)
	}
}

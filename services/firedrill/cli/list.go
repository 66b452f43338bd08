package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

func (a *app) listCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List drills and rejected requests, running drills first", Args: cobra.NoArgs,
		Long: `List all drills, running ones first, and the latest requests that were rejected.
The state is running, aborting (cut short, and being put back), finished (its
report is being made), published or rejected. Where no firedrill runs it is that of
the last one: what was under way then is left, until firedrill up goes on with it.`,
		RunE: withSessionOf(a.look, func(cmd *cobra.Command, s *session, _ []string) error {
			l, err := a.list(cmd.Context(), s)
			if err != nil {
				return err
			}
			// A program that reads the JSON gets nothing but that.
			out := a.Out
			if asJSON {
				out = a.Err
			}
			if l.Halt != nil {
				a.warnOf(out, *l.Halt)
			}
			if asJSON {
				return writeJSON(a.Out, l)
			}
			return printList(a.Out, l.Drills)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// listing is what list prints.
type listing struct {
	// Halt is there while all drills are halted.
	Halt   *bus.Halt `json:"halt,omitempty"`
	Drills []row     `json:"drills"`
}

// row is one drill of a list, or a request that was rejected.
type row struct {
	Drill     string `json:"drill"`
	Title     string `json:"title"`
	Requester string `json:"requester"`
	// Started is when the drill was accepted, or when the rejected request was made.
	Started time.Time `json:"started"`
	State   string    `json:"state"`
	Verdict string    `json:"verdict,omitempty"`
	// Rejected is why there is no drill.
	Rejected string `json:"rejected,omitempty"`
}

// stateLeft is that of a drill that is not at its end, where no firedrill runs.
const stateLeft = "left"

// order puts running drills before those that are over, and last what became none.
func (r row) order() int {
	switch r.State {
	case fold.StateRunning, reporter.StateAborting, stateLeft:
		return 0
	case reporter.StateRejected:
		return 2
	}
	return 1
}

func (a *app) list(ctx context.Context, s *session) (listing, error) {
	out := listing{Drills: []row{}}
	halt, err := s.bus.HaltState(ctx)
	if err != nil {
		return out, failure(err)
	}
	if halt.Halted {
		out.Halt = &halt
	}
	all, err := s.bus.List(ctx)
	if err != nil {
		return out, failure(err)
	}
	for _, d := range all {
		r := toRow(d)
		if d.Finished == nil {
			h, err := s.bus.History(ctx, d.Drill)
			if err != nil {
				return out, failure(err)
			}
			if drill.Fold(bus.Trusted(h)).Abort != nil {
				r.State = reporter.StateAborting
			}
			if s.store != nil {
				r.State = stateLeft
			}
		}
		out.Drills = append(out.Drills, r)
	}
	rejected, err := rejections(ctx, s)
	if err != nil {
		fmt.Fprintf(a.Err, "firedrill: rejected requests are not listed, because the reporter, which knows them, does not answer: %v\n", err)
	}
	for _, no := range rejected {
		out.Drills = append(out.Drills, row{Drill: no.Drill, Title: no.Drill, Requester: no.Requester, Started: no.Asked, State: no.State, Rejected: no.Why()})
	}
	slices.SortStableFunc(out.Drills, func(a, b row) int { return cmp.Or(cmp.Compare(a.order(), b.order()), a.Started.Compare(b.Started)) })
	return out, nil
}

func toRow(s bus.Summary) row {
	r := row{Drill: s.Drill, Title: s.Drill, State: fold.StateRunning}
	if s.Accepted != nil {
		r.Started = s.Accepted.Event.Time
		if p, ok := s.Accepted.Payload.(*event.DrillAccepted); ok {
			r.Requester, r.Title = p.Requester, reporter.TitleOf(*p, s.Drill)
		}
	}
	if s.Finished != nil {
		r.State = fold.StateFinished
	}
	if s.Published != nil {
		r.State = reporter.StatePublished
		if p, ok := s.Published.Payload.(*event.ReportPublished); ok {
			r.Verdict = p.Verdict
		}
	}
	return r
}

func printList(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "DRILL\tSTARTED\tSTATE\tVERDICT\tREQUESTED BY\tTITLE, OR WHY IT WAS REJECTED")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Drill, r.Started.Format(time.RFC3339), r.State, r.Verdict, fold.ShowRequester(r.Requester), cmp.Or(r.Rejected, r.Title))
	}
	return t.Flush()
}

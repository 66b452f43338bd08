package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/schemas"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/render"
)

// raws are the stored bytes of a history.
func raws(history []bus.Stored) [][]byte {
	out := make([][]byte, len(history))
	for i, h := range history {
		out[i] = h.Raw
	}
	return out
}

// history reads a drill's events; a drill without any is an error.
func history(ctx context.Context, s *session, id string) ([]bus.Stored, error) {
	h, err := s.bus.History(ctx, id)
	if errors.Is(err, bus.ErrNoDrill) || (err == nil && len(h) == 0) {
		return nil, fmt.Errorf("%q: %w", id, errNoDrill)
	}
	if err != nil {
		return nil, failure(err)
	}
	return h, nil
}

func (a *app) listCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List drills, running ones first", Args: cobra.NoArgs,
		RunE: a.withSession(func(cmd *cobra.Command, s *session, _ []string) error {
			list, err := s.bus.List(cmd.Context())
			if err != nil {
				return failure(err)
			}
			rows := make([]row, len(list))
			for i, sum := range list {
				rows[i] = toRow(sum)
			}
			slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.order(), b.order()) })
			if asJSON {
				return writeJSON(a.Out, rows)
			}
			w := tabwriter.NewWriter(a.Out, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "DRILL\tSTARTED\tSTATE\tVERDICT")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Drill, r.Started.Format(time.RFC3339), r.State, r.Verdict)
			}
			return w.Flush()
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// row is one drill of a list.
type row struct {
	Drill   string    `json:"drill"`
	Started time.Time `json:"started"`
	State   string    `json:"state"`
	Verdict string    `json:"verdict,omitempty"`
}

// order puts running drills before those that are over.
func (r row) order() int {
	if r.State == stateRunning {
		return 0
	}
	return 1
}

const stateRunning = "running"

func toRow(s bus.Summary) row {
	r := row{Drill: s.Drill, State: stateRunning}
	if s.Accepted != nil {
		r.Started = s.Accepted.Event.Time
	}
	if s.Finished != nil {
		r.State = "finished"
	}
	if s.Published != nil {
		if p, ok := s.Published.Payload.(*event.ReportPublished); ok {
			r.State, r.Verdict = "published", p.Verdict
		}
	}
	return r
}

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status DRILL", Short: "Say where a drill stands", Args: cobra.ExactArgs(1),
		RunE: a.withSession(func(cmd *cobra.Command, s *session, args []string) error {
			h, err := history(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			st := state(h)
			fmt.Fprintf(a.Out, "%s: %s\n", st.ID, summary(st))
			for _, step := range st.Program {
				if step.Kind != drill.StepUndo {
					fmt.Fprintf(a.Out, "  %-10s %s %s\n", orWaiting(st.Step(step.ID).Status), step.ID, st.Step(step.ID).Reason)
				}
			}
			for _, d := range st.Debts {
				fmt.Fprintf(a.Out, "  to undo    %s (%s on %s, %d tries)\n", d.Step, d.Operation, d.Target, d.Tries)
			}
			return nil
		}),
	}
}

func state(h []bus.Stored) drill.State {
	var st drill.State
	for _, ev := range h {
		if ev.Trust == nil {
			st = drill.Apply(st, ev.Event)
		}
	}
	return st
}

func summary(st drill.State) string {
	switch {
	case st.Finished != nil && len(st.Finished.Outstanding) > 0:
		return fmt.Sprintf("finished, STILL BROKEN: %v", st.Finished.Outstanding)
	case st.Finished != nil:
		return "finished, everything put back"
	case st.Abort != nil:
		return "cleaning up: " + st.Abort.Reason
	case st.Approval == "requested":
		return "waiting for approval"
	}
	return fmt.Sprintf("running, conducted by %s (lease %d)", st.Lease.Holder, st.Lease.Epoch)
}

func orWaiting(s drill.Status) drill.Status {
	if s == drill.Waiting {
		return "waiting"
	}
	return s
}

func (a *app) watchCmd() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use: "watch DRILL", Short: "Follow a drill live; exits with its verdict", Args: cobra.ExactArgs(1),
		RunE: a.withSession(func(cmd *cobra.Command, s *session, args []string) error {
			if _, err := history(cmd.Context(), s, args[0]); err != nil {
				return err
			}
			// Leaving a watch leaves the drill alone.
			return a.follow(context.WithoutCancel(cmd.Context()), cmd.Context(), s, args[0], o)
		}),
	}
	c.Flags().BoolVar(&o.json, "json", false, "print the JSON report at the end, and nothing before")
	return c
}

func (a *app) reportCmd() *cobra.Command {
	var format, file string
	c := &cobra.Command{
		Use:   "report DRILL | report --file events.jsonl",
		Short: "Print a drill's report, recomputed from its events",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, ring, err := a.events(cmd.Context(), args, file)
			if err != nil {
				return err
			}
			rep, err := fold.Fold(h, ring)
			if err != nil {
				return failure(err)
			}
			files, err := render.All(rep)
			if err != nil {
				return failure(err)
			}
			data, ok := files["report."+format]
			if !ok {
				return fmt.Errorf("--format %q: use md, html, json or xml", format)
			}
			_, err = a.Out.Write(data)
			return failure(err)
		},
	}
	c.Flags().StringVar(&format, "format", "md", "md, html, json or xml (JUnit)")
	c.Flags().StringVar(&file, "file", "", "recompute from an exported events.jsonl instead of a server")
	return c
}

// events gets a history from the server or from an exported file, and the
// public keys to verify it with.
func (a *app) events(ctx context.Context, args []string, file string) ([][]byte, event.Keyring, error) {
	switch {
	case file == "" && len(args) == 1:
		s, err := a.connect(ctx)
		if err != nil {
			return nil, nil, err
		}
		defer s.close()
		h, err := history(ctx, s, args[0])
		return raws(h), s.keyring, err
	case file == "" || len(args) > 0:
		return nil, nil, errors.New("name a drill, or a file with --file")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	ring, err := keys.ReadKeyring(a.keyringPath())
	if err != nil {
		return nil, nil, fmt.Errorf("keyring: %w: name it with --keyring", err)
	}
	h, err := fold.Import(f)
	return h, ring, err
}

func (a *app) verifyCmd() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "verify DRILL | verify --file events.jsonl",
		Short: "Prove a drill's stored history whole, or name what was altered",
		Long: `Check every event's signature against the keyring and the hash chain through
all of them. Exits 0 when the history is whole and closed by its report, 1 when
an event was altered, removed, added or reordered, 2 when it is sound but not
closed yet.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, ring, err := a.events(cmd.Context(), args, file)
			if err != nil {
				return err
			}
			return printVerification(a.Out, event.VerifyHistory(h, ring))
		},
	}
	c.Flags().StringVar(&file, "file", "", "an exported events.jsonl")
	return c
}

func printVerification(w io.Writer, v event.Verification) error {
	for _, f := range v.Findings {
		fmt.Fprintln(w, f)
	}
	switch {
	case len(v.Findings) > 0:
		return &exitError{code: run.Fail, err: fmt.Errorf("the history is NOT whole: %d findings in %d events", len(v.Findings), v.Messages)}
	case !v.Complete:
		return &exitError{code: run.Inconclusive, err: fmt.Errorf("%d events are sound, but the history is not closed: %s", v.Events, v.Why)}
	}
	fmt.Fprintf(w, "whole: %d events, every signature and the chain verified, closed by its report\n", v.Events)
	return nil
}

func (a *app) schemaCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "schema [drill|inventory|report|asyncapi|EVENT-TYPE]",
		Short: "Print a JSON Schema, or list them",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				fmt.Fprintln(a.Out, "drill\ninventory\nreport\nasyncapi")
				for _, i := range event.Table() {
					fmt.Fprintf(a.Out, "%-22s %s\n", i.Type, i.Summary)
				}
				return nil
			}
			data, ok := schemas.Named(args[0])
			if !ok {
				data, ok = schemas.Event(args[0])
			}
			if args[0] == "asyncapi" {
				data, ok = schemas.AsyncAPI(), true
			}
			if !ok {
				return fmt.Errorf("no schema %q: `firedrill schema` lists them", args[0])
			}
			_, err := a.Out.Write(data)
			return failure(err)
		},
	}
}

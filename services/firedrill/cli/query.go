package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/schemas"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

// raws are the stored bytes of a history.
func raws(history []bus.Stored) [][]byte {
	out := make([][]byte, len(history))
	for i, h := range history {
		out[i] = h.Raw
	}
	return out
}

// history reads a drill's events; a drill without any is an error, a *rejectedError
// where its request was rejected.
func history(ctx context.Context, s *session, id string) ([]bus.Stored, error) {
	h, err := s.bus.History(ctx, id)
	if errors.Is(err, bus.ErrNoDrill) || (err == nil && len(h) == 0) {
		if no := rejection(ctx, s, id); no != nil {
			return nil, no
		}
		return nil, fmt.Errorf("%q: %w", id, errNoDrill)
	}
	if err != nil {
		return nil, failure(err)
	}
	return h, nil
}

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status DRILL", Short: "Say where a drill stands", Args: oneDrill,
		RunE: withSessionOf(a.look, func(cmd *cobra.Command, s *session, args []string) error {
			h, err := history(cmd.Context(), s, args[0])
			if no, ok := errors.AsType[*rejectedError](err); ok {
				fmt.Fprintln(a.Out, no)
				return nil
			}
			if err != nil {
				return err
			}
			if err := a.warnHalted(cmd.Context(), a.Out, s.bus); err != nil {
				return err
			}
			st := drill.Fold(bus.Trusted(h))
			fmt.Fprintf(a.Out, "%s: %s\n", st.ID, a.summary(s, st))
			for _, step := range st.Program {
				if step.Kind != drill.StepUndo {
					fmt.Fprintf(a.Out, "  %-10s %s %s\n", stands(st, step.ID), step.ID, st.Step(step.ID).Reason)
				}
			}
			for _, d := range st.Debts {
				fmt.Fprintf(a.Out, "  to undo    %s (%s on %s, %s)\n", d.Step, d.Operation, d.Target, fold.Plural(d.Tries, "try"))
			}
			return nil
		}),
	}
}

func (a *app) summary(s *session, st drill.State) string {
	switch {
	case s.store != nil && st.Finished == nil:
		return fmt.Sprintf("left before its end, as no firedrill runs here: %s goes on with it", a.command("up"))
	case st.Finished != nil && len(st.Finished.Outstanding) > 0:
		return fmt.Sprintf("finished, STILL BROKEN: %v", st.Finished.Outstanding)
	case st.Finished != nil:
		text := "finished, " + cmp.Or(st.LetGo(), "everything put back")
		if !st.Published {
			text += ", without a report yet"
		}
		return text
	case st.Abort != nil:
		return "aborting: " + st.Abort.Reason
	case st.Approval == "requested":
		return "waiting for approval"
	}
	return fmt.Sprintf("running, conducted by %s (lease %d)", st.Lease.Holder, st.Lease.Epoch)
}

// stands says where a step stands, in a word: what a drill has not done that is over, it
// never does.
func stands(st drill.State, step string) string {
	switch s := st.Step(step).Status; {
	case s != drill.Waiting:
		return string(s)
	case st.Finished != nil:
		return "not done"
	}
	return "waiting"
}

func (a *app) watchCmd() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use: "watch DRILL", Short: "Follow a drill live; exits with its verdict",
		Long: "Follow a drill live, and exit with its verdict. An interrupt ends the watching with exit\ncode 130, and leaves the drill alone.",
		Args: oneDrill,
		RunE: a.withSession(func(cmd *cobra.Command, s *session, args []string) error {
			_, err := history(cmd.Context(), s, args[0])
			if err == nil {
				// Leaving a watch leaves the drill alone.
				err = a.follow(context.WithoutCancel(cmd.Context()), cmd.Context(), s, args[0], o)
			}
			if errors.Is(err, context.Canceled) {
				fmt.Fprintf(a.Err, "firedrill: no longer watching; the drill goes on: %s shows it again\n", a.command("watch "+args[0]))
				return &exitError{code: run.Interrupted}
			}
			return err
		}),
	}
	c.Flags().BoolVar(&o.json, "json", false, "print the JSON report at the end, and nothing before")
	return c
}

func (a *app) schemaCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "schema [drill|inventory|report|asyncapi|mirror-request|mirror-event|mirror-cancel|EVENT-TYPE]",
		Short: "Print a JSON Schema, or list them",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			fixed := []string{"drill", "inventory", "report", "asyncapi", "mirror-request", "mirror-event", "mirror-cancel"}
			if len(args) == 0 {
				fmt.Fprintln(a.Out, strings.Join(fixed, "\n"))
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
				known := fixed
				for _, i := range event.Table() {
					known = append(known, string(i.Type))
				}
				return fmt.Errorf("no schema %q: `firedrill schema` lists them%s", args[0], didYouMean("", args[0], known))
			}
			_, err := a.Out.Write(data)
			return failure(err)
		},
	}
}

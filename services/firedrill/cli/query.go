package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/schemas"
	"github.com/firedrill/firedrill/services/reporter"
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
		Use: "status DRILL", Short: "Say where a drill stands", Args: cobra.ExactArgs(1),
		RunE: a.withSession(func(cmd *cobra.Command, s *session, args []string) error {
			h, err := history(cmd.Context(), s, args[0])
			if no, ok := errors.AsType[*rejectedError](err); ok {
				fmt.Fprintln(a.Out, no)
				return nil
			}
			if err != nil {
				return err
			}
			if err := warnHalted(cmd.Context(), a.Out, s.bus); err != nil {
				return err
			}
			st := drill.Fold(bus.Trusted(h))
			fmt.Fprintf(a.Out, "%s: %s\n", st.ID, summary(st))
			for _, step := range st.Program {
				if step.Kind != drill.StepUndo {
					fmt.Fprintf(a.Out, "  %-10s %s %s\n", orWaiting(st.Step(step.ID).Status), step.ID, st.Step(step.ID).Reason)
				}
			}
			for _, d := range st.Debts {
				fmt.Fprintf(a.Out, "  to undo    %s (%s on %s, %s)\n", d.Step, d.Operation, d.Target, fold.Plural(d.Tries, "try"))
			}
			return nil
		}),
	}
}

func summary(st drill.State) string {
	switch {
	case st.Finished != nil && len(st.Finished.Outstanding) > 0:
		return fmt.Sprintf("finished, STILL BROKEN: %v", st.Finished.Outstanding)
	case st.Finished != nil:
		return "finished, everything put back"
	case st.Abort != nil:
		return "aborting: " + st.Abort.Reason
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
		Use: "watch DRILL", Short: "Follow a drill live; exits with its verdict",
		Long: "Follow a drill live, and exit with its verdict. An interrupt ends the watching with exit\ncode 130, and leaves the drill alone.",
		Args: cobra.ExactArgs(1),
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
	if info, err := f.Stat(); err != nil {
		return nil, nil, err
	} else if info.IsDir() {
		return nil, nil, fmt.Errorf("--file %s: this is a directory: name the file with the history in it, which firedrill calls %s", file, filepath.Join(file, reporter.FileEvents))
	}
	ring, err := keys.ReadKeyring(a.keyringPath())
	if err != nil {
		return nil, nil, fmt.Errorf("keyring: %w: name it with --keyring", err)
	}
	h, err := readExport(f, file)
	return h, ring, err
}

// readExport reads an exported history. Every line of another file would be one
// more finding, so that it is none is said first, and once.
func readExport(r io.Reader, file string) ([][]byte, error) {
	h, err := fold.Import(r)
	if err == nil && slices.ContainsFunc(h, isEvent) {
		return h, nil
	}
	return nil, &exitError{code: run.Inconclusive, err: fmt.Errorf("%s is not an exported history: none of its lines is an event; a history is the events.jsonl that firedrill writes beside a drill's report, one signed event a line: out/drills/DRILL/events.jsonl, or GET /v1/drills/DRILL/events.jsonl", file)}
}

// isEvent reports whether a message looks like an event, true or forged.
func isEvent(raw []byte) bool {
	var e struct {
		SpecVersion string `json:"specversion"`
		Type        string `json:"type"`
	}
	return json.Unmarshal(raw, &e) == nil && e.SpecVersion != "" && e.Type != ""
}

func (a *app) verifyCmd() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "verify DRILL | verify --file events.jsonl",
		Short: "Prove a drill's stored history whole, or name what was altered",
		Long: `Check every event's signature against the keyring and the hash chain through
all of them. Exits 0 when the history is whole and closed by its report, 1 when
an event was altered, removed, added or reordered, 2 when it is sound but not
closed yet, or when the file is no history.`,
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
	stranger := func(f event.Finding) bool { return f.Kind == event.FindingForeign }
	if v.Events == 0 && len(v.Findings) > 0 && !slices.ContainsFunc(v.Findings, func(f event.Finding) bool { return !stranger(f) }) {
		return &exitError{code: run.Fail, err: fmt.Errorf("nothing is proven: no event of this history is by a key of the keyring; if another firedrill wrote it, name its keyring with --keyring STATE-DIR/keys/keyring.json: %s", v.Findings[0].Detail)}
	}
	for _, f := range v.Findings {
		fmt.Fprintln(w, f)
	}
	switch {
	case len(v.Findings) > 0:
		return &exitError{code: run.Fail, err: fmt.Errorf("the history is NOT whole: %s in %s", fold.Plural(len(v.Findings), "finding"), fold.Plural(v.Messages, "event"))}
	case !v.Complete:
		return &exitError{code: run.Inconclusive, err: fmt.Errorf("the history (%s) is sound, but not closed: %s", fold.Plural(v.Events, "event"), v.Why)}
	}
	fmt.Fprintf(w, "whole: %s, every signature and the chain verified, closed by its report\n", fold.Plural(v.Events, "event"))
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

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

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/reporter"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/render"
)

func (a *app) reportCmd() *cobra.Command {
	var format, file string
	var altered bool
	c := &cobra.Command{
		Use:   "report DRILL | report --file events.jsonl",
		Short: "Print a drill's report, recomputed from its events",
		Long: `Print a drill's report, recomputed from its events. Exits 1, without a report, when
the history is not whole, as firedrill verify says; --altered prints what the sound
events come to all the same, and says in it that they are not all.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := a.events(cmd.Context(), args, file)
			if err != nil {
				return err
			}
			if err := h.whole(); err != nil && !altered {
				return err
			}
			rep, err := fold.Fold(h.raws, h.ring)
			if err != nil {
				return failure(err)
			}
			if !slices.Contains([]string{"md", "html", "json", "xml"}, format) {
				return fmt.Errorf("--format %q: use md, html, json or xml", format)
			}
			data, err := render.File(rep, "report."+format)
			if err != nil {
				return failure(err)
			}
			_, err = a.Out.Write(data)
			return failure(err)
		},
	}
	c.Flags().StringVar(&format, "format", "md", "md, html, json or xml (JUnit)")
	c.Flags().BoolVar(&altered, "altered", false, "print the report of a history that is not whole")
	c.Flags().StringVar(&file, "file", "", "recompute from an exported events.jsonl instead of a server")
	return c
}

// storedHistory is a history as it was stored or exported.
type storedHistory struct {
	raws [][]byte
	ring event.Keyring
	// cut is true for a file whose last line was not written to its end; it is not in
	// raws.
	cut bool
	// arg is what verify is called with to look at it.
	arg string
}

// whole is an error, with exit code 1, unless the history is all that the services
// wrote, up to where it ends.
func (s storedHistory) whole() error {
	v := event.VerifyHistory(s.raws, s.ring)
	switch {
	case s.cut:
		return &exitError{code: run.Fail, err: fmt.Errorf("%w, so there is no report: --altered makes one of the rest", errCut)}
	case !v.Whole():
		return &exitError{code: run.Fail, err: fmt.Errorf("the history is NOT whole, so there is no report: `firedrill verify %s` names what was altered; --altered makes a report of the rest", s.arg)}
	}
	return nil
}

// errCut says that an export ends in the midst of an event.
var errCut = errors.New("the last line is cut off, as by a full disk or a copy that was ended")

// events gets a history from the server or from an exported file, and the
// public keys to verify it with.
func (a *app) events(ctx context.Context, args []string, file string) (storedHistory, error) {
	switch {
	case file == "" && len(args) == 1:
		s, err := a.look(ctx)
		if err != nil {
			return storedHistory{}, err
		}
		defer s.close()
		h, err := history(ctx, s, args[0])
		return storedHistory{raws: raws(h), ring: s.keyring, arg: args[0]}, err
	case file == "" || len(args) > 0:
		return storedHistory{}, errors.New("name a drill, or a file with --file")
	}
	f, err := os.Open(file)
	if err != nil {
		return storedHistory{}, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return storedHistory{}, err
	} else if info.IsDir() {
		return storedHistory{}, fmt.Errorf("--file %s: this is a directory: name the file with the history in it, which firedrill calls %s", file, filepath.Join(file, reporter.FileEvents))
	}
	ring, err := keys.ReadKeyring(a.keyringPath())
	if err != nil {
		return storedHistory{}, fmt.Errorf("keyring: %w: name it with --keyring", err)
	}
	h, cut, err := readExport(f, file)
	return storedHistory{raws: h, ring: ring, cut: cut, arg: "--file " + file}, err
}

// readExport reads an exported history, and whether its last line is cut off. Every
// line of another file would be one more finding, so that it is none is said first,
// and once.
func readExport(r io.Reader, file string) (h [][]byte, cut bool, err error) {
	end := &lastByte{r: r}
	h, err = fold.Import(end)
	if err != nil || !slices.ContainsFunc(h, isEvent) {
		return nil, false, &exitError{code: run.Inconclusive, err: fmt.Errorf("%s is not an exported history: none of its lines is an event; a history is the events.jsonl that firedrill writes beside a drill's report, one signed event a line: out/drills/DRILL/events.jsonl, or GET /v1/drills/DRILL/events.jsonl", file)}
	}
	if last := len(h) - 1; end.b != '\n' && !json.Valid(h[last]) {
		return h[:last], true, nil
	}
	return h, false, nil
}

// lastByte remembers the last byte that was read.
type lastByte struct {
	r io.Reader
	b byte
}

func (l *lastByte) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		l.b = p[n-1]
	}
	return n, err
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
closed yet, when its last line is cut off, or when the file is no history.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := a.events(cmd.Context(), args, file)
			if err != nil {
				return err
			}
			v := event.VerifyHistory(h.raws, h.ring)
			if h.cut {
				v.Complete, v.Why = false, errCut.Error()
			}
			return printVerification(a.Out, v)
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

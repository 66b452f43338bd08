package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/services/reporter/fold"
)

func (a *app) deadCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "dead", Short: "Show messages that no service could process, and try them again",
		Long: `A message that a service could not process in five tries, or could not read, is
set aside as a dead letter, with the last error: nothing is lost, and nothing is
held up. Mend the cause, then replay it.`,
	}
	c.AddCommand(a.deadListCmd(), a.deadShowCmd(), a.deadReplayCmd(), a.deadDropCmd())
	return c
}

func (a *app) deadListCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List dead letters, oldest first", Args: cobra.NoArgs,
		RunE: a.withSession(func(cmd *cobra.Command, s *session, _ []string) error {
			dead, err := s.bus.DeadLetters(cmd.Context())
			if err != nil {
				return failure(err)
			}
			if asJSON {
				rows := make([]letter, len(dead))
				for i, d := range dead {
					rows[i] = toLetter(d)
				}
				return writeJSON(a.Out, rows)
			}
			if len(dead) == 0 {
				fmt.Fprintln(a.Out, "no dead letters: every message was processed, or still is")
				return nil
			}
			return printDead(a.Out, dead)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printDead(w io.Writer, dead []bus.DeadLetter) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tDIED\tWORK OF\tSUBJECT\tTRIES\tLAST ERROR")
	for _, d := range dead {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%d\t%s\n", d.Seq, d.Died.Format(time.RFC3339), d.Durable, visible(d.Subject, ""), d.Delivered, visible(d.Reason, ""))
	}
	return t.Flush()
}

func (a *app) deadShowCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show ID", Short: "Show a dead letter with all that it says", Args: cobra.ExactArgs(1),
		RunE: a.withLetter(a.connect, func(cmd *cobra.Command, s *session, id uint64) error {
			d, err := s.bus.DeadLetterAt(cmd.Context(), id)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.Out, withData(d))
			}
			printLetter(a.Out, d)
			return nil
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printLetter prints a dead letter with all that it says.
func printLetter(w io.Writer, d bus.DeadLetter) {
	fmt.Fprintf(w, "dead letter %d of %s, since %s\n  message   %s (number %d of %s, stored %s)\n  tries     %d\n  last said %s\n",
		d.Seq, d.Durable, d.Died.Format(time.RFC3339), visible(d.Subject, ""), d.Original, d.Stream, d.Stored.Format(time.RFC3339), d.Delivered, visible(d.Reason, ""))
	l := withData(d)
	for _, k := range slices.Sorted(maps.Keys(l.Headers)) {
		fmt.Fprintf(w, "  header    %s: %q\n", visible(k, ""), l.Headers[k])
	}
	if l.Text == "" && len(l.Bytes) > 0 {
		fmt.Fprintf(w, "\n(%s that are no text: --json prints them in base64)\n", fold.Plural(len(l.Bytes), "byte"))
		return
	}
	fmt.Fprintf(w, "\n%s\n", visible(l.Text, "\n\t"))
}

func (a *app) deadReplayCmd() *cobra.Command {
	return &cobra.Command{
		Use: "replay ID", Short: "Hand a dead letter to its service again", Args: cobra.ExactArgs(1),
		Long: `Hand a dead letter to its service again, and take it off the list. If it fails
again, it comes back as a new one.`,
		RunE: a.withLetter(a.join, func(cmd *cobra.Command, s *session, id uint64) error {
			if err := s.bus.ReplayDead(cmd.Context(), id); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "dead letter %d is handed out again: should it fail again, %s shows it under another id\n", id, a.command("dead list"))
			return nil
		}),
	}
}

func (a *app) deadDropCmd() *cobra.Command {
	return &cobra.Command{
		Use: "drop ID", Short: "Take a dead letter off the list for good", Args: cobra.ExactArgs(1),
		Long: `Take a dead letter off the list for good. The message that it was made of stays
where it is stored, and nobody tries it again.`,
		RunE: a.withLetter(a.connect, func(cmd *cobra.Command, s *session, id uint64) error {
			if err := s.bus.DropDead(cmd.Context(), id); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "dead letter %d is gone\n", id)
			return nil
		}),
	}
}

// visible is a stranger's text for a terminal: what would steer that, or turn the
// direction of writing, is replaced, but for the characters to keep.
func visible(text, keep string) string {
	return strings.Map(func(r rune) rune {
		if (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) && !strings.ContainsRune(keep, r) {
			return utf8.RuneError
		}
		return r
	}, text)
}

// withLetter runs f with a connection and the id that the command is called with. That
// there is no such dead letter is the caller's mistake, everything else a failure.
func (a *app) withLetter(connect func(context.Context) (*session, error), f func(cmd *cobra.Command, s *session, id uint64) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		id, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil || id == 0 {
			return fmt.Errorf("%q: this is no id of a dead letter: use a number that %s shows", args[0], a.command("dead list"))
		}
		return withSessionOf(connect, func(cmd *cobra.Command, s *session, _ []string) error {
			err := f(cmd, s, id)
			if errors.Is(err, bus.ErrNoDeadLetter) {
				return fmt.Errorf("%d: there is no such dead letter, or not any more: %s shows those that there are", id, a.command("dead list"))
			}
			return failure(err)
		})(cmd, args)
	}
}

// letter is a dead letter for programs.
type letter struct {
	ID     uint64    `json:"id"`
	Died   time.Time `json:"died"`
	Work   string    `json:"work_of"`
	Reason string    `json:"reason"`
	Tries  int       `json:"tries"`
	// Stream, Sequence, Subject and Stored are the message's.
	Stream   string    `json:"stream"`
	Sequence uint64    `json:"sequence"`
	Subject  string    `json:"subject"`
	Stored   time.Time `json:"stored"`
	// Only show has these: the message, as text if it is that, else as bytes.
	Headers map[string][]string `json:"headers,omitempty"`
	Text    string              `json:"text,omitempty"`
	Bytes   []byte              `json:"base64,omitempty"`
}

func toLetter(d bus.DeadLetter) letter {
	return letter{ID: d.Seq, Died: d.Died, Work: d.Durable, Reason: d.Reason, Tries: d.Delivered,
		Stream: d.Stream, Sequence: d.Original, Subject: d.Subject, Stored: d.Stored}
}

func withData(d bus.DeadLetter) letter {
	l := toLetter(d)
	l.Headers = d.Header
	if utf8.Valid(d.Data) {
		l.Text = string(d.Data)
	} else {
		l.Bytes = d.Data
	}
	return l
}

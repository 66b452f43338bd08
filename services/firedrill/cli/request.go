package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/injector"
)

// readFile reads a drill from a file, or from standard input for "-".
func (a *app) readFile(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(a.In)
	}
	return os.ReadFile(path)
}

// readDrill reads, checks and completes a drill. Problems name the file.
func (a *app) readDrill(path string) ([]byte, drill.Drill, error) {
	raw, err := a.readFile(path)
	if err != nil {
		return nil, drill.Drill{}, err
	}
	d, err := injector.ReadDrill(raw, a.registry)
	if err != nil {
		return nil, d, fmt.Errorf("%s: %w", path, err)
	}
	return raw, d, nil
}

func (a *app) validateCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "validate FILE...", Short: "Check drills without running them", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			bad := 0
			for _, f := range files {
				_, _, err := a.readDrill(f)
				if err != nil {
					bad++
				}
				if asJSON {
					if err := writeJSON(a.Out, map[string]any{"file": f, "valid": err == nil, "problems": drill.AsProblems(err)}); err != nil {
						return err
					}
					continue
				}
				if err != nil {
					fmt.Fprintln(a.Err, err)
					continue
				}
				fmt.Fprintf(a.Out, "%s: valid\n", f)
			}
			if bad > 0 {
				return &exitError{code: run.BadArguments}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object a file")
	return c
}

func (a *app) planCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "plan FILE", Short: "Show what a drill would hit and do, touching nothing", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, d, err := a.readDrill(args[0])
			if err != nil {
				return err
			}
			log, err := a.log()
			if err != nil {
				return err
			}
			steps := injector.PlanDrill(cmd.Context(), injector.Config{Registry: a.registry, Clock: clock.System(), Log: log}, d)
			if asJSON {
				return writeJSON(a.Out, steps)
			}
			return printPlan(a.Out, steps)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printPlan shows a plan; an unresolved step makes it an error.
func printPlan(w io.Writer, steps []event.PlannedStep) error {
	problems := 0
	for _, s := range steps {
		fmt.Fprintf(w, "%s: %s on %s\n", s.Step, s.Operation, s.Target)
		for _, p := range s.Parts {
			fmt.Fprintf(w, "    hits   %s %s\n", p.ID, labels(p.Labels))
		}
		for _, d := range s.Does {
			fmt.Fprintf(w, "    does   %s\n", d)
		}
		if s.Undo != "" {
			fmt.Fprintf(w, "    undo   %s\n", s.Undo)
		}
		if s.DeadMan > 0 {
			fmt.Fprintf(w, "    timer  the target undoes it by itself after %s\n", s.DeadMan)
		}
		if s.Problem != "" {
			problems++
			fmt.Fprintf(w, "    PROBLEM %s\n", s.Problem)
		}
	}
	if problems > 0 {
		return &exitError{code: run.Fail, err: fmt.Errorf("%d of %d steps cannot be resolved", problems, len(steps))}
	}
	return nil
}

func labels(m map[string]string) string {
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	return strings.Join(sorted(out), " ")
}

// request publishes a drill and returns its id.
func request(ctx context.Context, s *session, raw []byte, d drill.Drill, who, msgID string) (string, error) {
	if msgID == "" {
		var err error
		if msgID, err = randomID(); err != nil {
			return "", err
		}
	}
	ack, err := s.bus.Publish(ctx, "drill.req."+who+"."+d.Metadata.Name, raw, msgID)
	if err != nil {
		return "", failure(fmt.Errorf("publishing the request: %w", err))
	}
	return drill.ID(d.Metadata.Name, ack.Seq), nil
}

// requester is the token that stands for the caller in subjects.
func requester() string {
	name := "cli"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	sum := sha256.Sum256([]byte(name))
	if token := regexp.MustCompile(`[^A-Za-z0-9_-]+`).ReplaceAllString(name, "-"); token != "" {
		return token
	}
	return hex.EncodeToString(sum[:4])
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return errors.Join(errors.New("writing JSON"), err)
	}
	return nil
}

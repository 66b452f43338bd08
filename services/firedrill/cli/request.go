package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
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

// ownInventory is what the caller may drill with a firedrill of his own: the
// entries of --inventory, and whatever a drill brings itself.
func (a *app) ownInventory() (drill.Inventory, error) {
	if a.inventory == "" {
		return drill.OpenInventory(), nil
	}
	inv, err := injector.ReadInventory(a.inventory, a.registry)
	inv.Spec.InlineTargets = true
	return inv, err
}

// check reads a drill and lets whoever has the inventory that it names check or
// plan it: this process with --inventory or for a drill that brings everything
// itself, else the running firedrill.
func (a *app) check(ctx context.Context, path, verb string) (document, injector.Checked, error) {
	var c injector.Checked
	raw, err := a.readFile(path)
	if err != nil {
		return document{}, c, err
	}
	d, err := drill.Parse(raw)
	if err != nil {
		return document{}, c, fmt.Errorf("%s: %w", path, err)
	}
	if a.inventory == "" && slices.ContainsFunc(d.Spec.Targets, func(t drill.Target) bool { return t.Inventory != "" }) {
		c, err = a.ask(ctx, verb, raw)
	} else {
		c, err = a.checkHere(ctx, verb, raw)
	}
	if err == nil && !c.Valid {
		err = &c.Problems
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return document{raw: raw, name: d.Metadata.Name}, c, err
}

// document is a drill as it was written, and its name.
type document struct {
	raw  []byte
	name string
}

func (a *app) checkHere(ctx context.Context, verb string, raw []byte) (injector.Checked, error) {
	inv, err := a.ownInventory()
	if err != nil {
		return injector.Checked{}, err
	}
	log, err := a.log()
	if err != nil {
		return injector.Checked{}, err
	}
	return injector.Check(ctx, injector.Config{Registry: a.registry, Inventory: inv, Clock: clock.System(), Log: log}, verb, raw), nil
}

// ask has the running firedrill check or plan a drill.
func (a *app) ask(ctx context.Context, verb string, raw []byte) (injector.Checked, error) {
	var c injector.Checked
	s, err := a.connect(ctx)
	if errors.Is(err, errNoServer) {
		return c, fmt.Errorf("the drill names entries of an inventory: give the file with --inventory, or ask a running firedrill: %w", err)
	}
	if err != nil {
		return c, err
	}
	defer s.close()
	data, err := s.bus.Call(ctx, verb, raw)
	if err != nil {
		return c, failure(fmt.Errorf("asking the injector: %w", err))
	}
	return c, json.Unmarshal(data, &c)
}

func (a *app) validateCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "validate FILE...", Short: "Check drills without running them", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			bad := 0
			for _, f := range files {
				_, _, err := a.check(cmd.Context(), f, injector.VerbValidate)
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
	a.inventoryFlag(c.Flags(), inventoryUsage)
	return c
}

func (a *app) planCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "plan FILE", Short: "Show what a drill would hit and do, touching nothing", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, c, err := a.check(cmd.Context(), args[0], injector.VerbPlan)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.Out, c)
			}
			return printPlan(a.Out, c)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	a.inventoryFlag(c.Flags(), inventoryUsage)
	return c
}

const inventoryUsage = "file that lists systems for drills to name; default: that of a running firedrill"

// printPlan shows a plan; an unresolved step makes it an error.
// What is in the way of several steps is said once.
func printPlan(w io.Writer, c injector.Checked) error {
	said := map[string]bool{}
	problem := func(indent, text string) {
		if text != "" && !said[text] {
			said[text] = true
			fmt.Fprintf(w, "%sPROBLEM %s\n", indent, text)
		}
	}
	problem("", c.Problem)
	problems := 0
	for _, s := range c.Steps {
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
			problem("    ", s.Problem)
		}
	}
	switch {
	case problems > 0:
		return &exitError{code: run.Fail, err: fmt.Errorf("%d of %d steps cannot be resolved", problems, len(c.Steps))}
	case c.Problem != "":
		return &exitError{code: run.Fail, err: errors.New("the drill would not begin")}
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
func request(ctx context.Context, s *session, d document, who, msgID string) (string, error) {
	if msgID == "" {
		var err error
		if msgID, err = randomID(); err != nil {
			return "", err
		}
	}
	ack, err := s.bus.Publish(ctx, "drill.req."+who+"."+d.name, d.raw, msgID)
	if err != nil {
		return "", failure(fmt.Errorf("publishing the request: %w", err))
	}
	return drill.ID(d.name, ack.Seq), nil
}

// requester is the token that stands for the caller in subjects.
func requester() string {
	name := "cli"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	return notToken.ReplaceAllString(name, "-")
}

var notToken = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return errors.Join(errors.New("writing JSON"), err)
	}
	return nil
}

package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/telemetry"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/injector"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/render"
)

// runOptions are the flags of run and watch.
type runOptions struct {
	json  bool
	junit string
	out   string
	msgID string
	quiet bool
}

func (a *app) runCmd() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run FILE",
		Short: "Run a drill and wait for its report",
		Long: `Run a drill, show it live, print its recovery table and exit with its verdict:
0 pass, 1 fail, 2 inconclusive or invalid, 254 bad arguments, 255 firedrill failed,
130 interrupted twice: what was broken is then put back by the next firedrill up.

Without a running firedrill it starts one of its own for the drill, unless an
earlier one was ended in the midst of another drill: firedrill up goes on with that.
An interrupt aborts the drill and waits until everything is put back.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, _, err := a.check(cmd.Context(), args[0], injector.VerbValidate)
			if err != nil {
				return err
			}
			return a.run(cmd.Context(), d, o)
		},
	}
	o.register(c.Flags())
	a.inventoryFlag(c.Flags(), "file that lists systems for drills to name, when this run has a firedrill of its own")
	return c
}

func (o *runOptions) register(f *pflag.FlagSet) {
	f.BoolVar(&o.json, "json", false, "print the JSON report instead of the progress and the table")
	f.StringVar(&o.junit, "junit", "", "also write the JUnit report to this file")
	f.StringVar(&o.out, "out", "out/drills", "folder for reports, when this run has a firedrill of its own")
	f.StringVar(&o.msgID, "id", "", "idempotency key: the same key never starts a second drill")
	f.BoolVar(&o.quiet, "quiet", false, "no progress")
}

// run publishes a request and follows the drill that it becomes.
func (a *app) run(ctx context.Context, d document, o runOptions) error {
	if err := o.tryOutputs(); err != nil {
		return err
	}
	// The services of an own all-in-one outlive an interrupt: it aborts the
	// drill, and the clean-up still needs them.
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	flush, err := telemetry.Setup(alive, "firedrill", "cli")
	if err != nil {
		return failure(err)
	}
	r, err := asking(d, requester(), o.msgID)
	if err != nil {
		return err
	}
	s, err := a.connectOrStart(alive, r, o.out)
	if err != nil {
		return err
	}
	defer func() {
		s.close()
		_ = flush(alive) // traces are best effort here: the report does not depend on them
	}()
	id, err := a.request(alive, s, r)
	if err != nil {
		return err
	}
	if err := awaitAnswer(alive, s, id, requester(), d.name); err != nil {
		return err
	}
	return a.follow(ctx, alive, s, id, o)
}

// awaitAnswer waits until the request was accepted or rejected.
func awaitAnswer(ctx context.Context, s *session, id, who, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var answer *injector.Result
	err := s.bus.FollowResults(ctx, who, name, func(data []byte) error {
		var r injector.Result
		if json.Unmarshal(data, &r) != nil || drill.ID(name, r.Request.Sequence) != id || r.State == "finished" {
			return nil
		}
		answer = &r
		return bus.Stop
	})
	switch {
	case answer == nil && ctx.Err() != nil:
		return failure(fmt.Errorf("nobody answered the request within 30s: is an injector running?"))
	case answer == nil:
		return failure(err)
	case answer.State == "rejected" && answer.Reason != "":
		return errors.New("rejected: " + answer.Reason)
	case answer.State == "rejected" && s.own == nil && strings.Contains(answer.Problems.Error(), inlineRefused):
		return fmt.Errorf("rejected by the firedrill that runs here: %s: %w", onlyListed, &answer.Problems)
	case answer.State == "rejected":
		return fmt.Errorf("rejected: %w", &answer.Problems)
	}
	return nil
}

// conclude prints the outcome of a finished drill.
func (a *app) conclude(s *session, id string, history []bus.Stored, o runOptions) error {
	rep, err := fold.Fold(raws(history), s.keyring)
	if err != nil {
		return failure(fmt.Errorf("report of %s: %w", id, err))
	}
	if o.junit != "" {
		data, err := render.JUnit(rep)
		if err != nil {
			return failure(err)
		}
		if err := os.WriteFile(o.junit, data, 0o644); err != nil {
			return failure(err)
		}
	}
	if o.json {
		data, err := rep.JSON()
		if err != nil {
			return failure(err)
		}
		// The verdict is told by the exit code, too, to whoever reads nothing else.
		if _, err := a.Out.Write(data); err != nil && !readerGone(err) {
			return failure(err)
		}
	} else {
		printTable(a.Out, rep)
		if s.outDir != "" {
			fmt.Fprintf(a.Out, "report: %s\n", filepath.Join(s.outDir, id, "report.html"))
		}
	}
	return exitFor(verdict.Verdict(rep.Verdict))
}

func exitFor(v verdict.Verdict) error {
	switch v {
	case verdict.Pass:
		return nil
	case verdict.Fail:
		return &exitError{code: run.Fail}
	}
	return &exitError{code: run.Inconclusive}
}

func randomID() (string, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", failure(err)
	}
	return hex.EncodeToString(b), nil
}

func sorted(ss []string) []string {
	slices.Sort(ss)
	return ss
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/services/injector"
)

// withSession runs f with a connection to a running firedrill.
func (a *app) withSession(f func(cmd *cobra.Command, s *session, args []string) error) func(*cobra.Command, []string) error {
	return withSessionOf(a.reach, f)
}

// withSessionOf is withSession by connect or, for who wants work to be done, join.
func withSessionOf(connect func(context.Context) (*session, error), f func(cmd *cobra.Command, s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s, err := connect(cmd.Context())
		if err != nil {
			return err
		}
		defer s.close()
		return f(cmd, s, args)
	}
}

func (a *app) abortCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "abort DRILL", Short: "End a drill now and put everything back", Args: oneDrill,
		RunE: a.withSession(func(cmd *cobra.Command, s *session, args []string) error {
			if err := call(cmd, s, "abort", injector.AbortRequest{Drill: args[0], By: requester(), Reason: reason}); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "%s is being aborted and everything put back: %s shows how\n", args[0], a.command("watch "+args[0]))
			return nil
		}),
	}
	c.Flags().StringVar(&reason, "reason", "aborted at the command line", "what the report says")
	return c
}

func (a *app) approveCmd() *cobra.Command {
	return &cobra.Command{
		Use: "approve DRILL", Short: "Let a drill that waits for approval go on", Args: oneDrill,
		RunE: a.withSession(func(cmd *cobra.Command, s *session, args []string) error {
			return call(cmd, s, "approve", injector.ApproveRequest{Drill: args[0], By: requester()})
		}),
	}
}

func call(cmd *cobra.Command, s *session, endpoint string, in any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	_, err = s.bus.Call(cmd.Context(), endpoint, data)
	return err
}

// oneDrill wants the name of one drill as a command's only argument.
func oneDrill(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("it takes the name of one drill, not %d words: `firedrill list` shows them", len(args))
	}
	return nil
}

// errNoDrill says how to find the right id.
var errNoDrill = errors.New("no such drill: `firedrill list` shows them")

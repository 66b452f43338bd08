package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
)

func (a *app) haltCmd() *cobra.Command {
	var release bool
	var reason string
	c := &cobra.Command{
		Use:   "halt [REASON]",
		Short: "Stop every drill and block new ones",
		Long: `Abort every drill that is running, put everything back, and reject new ones until
` + "`firedrill halt --release`" + `. REASON is what rejected requests and reports say. When
all is halted already, that stays as it is, with its reason.`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.withSession(func(cmd *cobra.Command, s *session, args []string) error {
			if len(args) > 0 {
				reason = args[0]
			}
			return a.halt(cmd.Context(), s.bus, bus.Halt{Halted: !release, By: requester(), Reason: reason})
		}),
	}
	c.Flags().BoolVar(&release, "release", false, "accept drills again")
	c.Flags().StringVar(&reason, "reason", "halted at the command line", "the same as REASON")
	return c
}

// halt switches to what is wanted. Nobody's halt replaces an earlier one: whoever
// releases it must see why the first was given.
func (a *app) halt(ctx context.Context, b *bus.Bus, want bus.Halt) error {
	before, switched, err := b.SwitchHalt(ctx, want)
	switch {
	case err != nil:
		return failure(err)
	case !switched && want.Halted:
		fmt.Fprintf(a.Out, "halted already, and that stays: %s\n", before)
	case !switched:
		fmt.Fprintln(a.Out, "nothing is halted: new drills are accepted")
	case want.Halted:
		fmt.Fprintln(a.Out, "halted: running drills are being aborted, new ones are rejected")
	default:
		fmt.Fprintf(a.Out, "released: new drills are accepted; it was halted %s\n", before)
	}
	return nil
}

// warnHalted says in a line that all drills are halted, if they are.
func warnHalted(ctx context.Context, w io.Writer, b *bus.Bus) error {
	h, err := b.HaltState(ctx)
	if err != nil {
		return failure(err)
	}
	if h.Halted {
		warnOf(w, h)
	}
	return nil
}

func warnOf(w io.Writer, h bus.Halt) {
	fmt.Fprintf(w, "ALL DRILLS ARE HALTED %s\nnew ones are rejected until `firedrill halt --release`\n\n", h)
}

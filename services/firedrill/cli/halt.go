package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
)

func (a *app) haltCmd() *cobra.Command {
	var release bool
	var reason string
	c := &cobra.Command{
		Use:   "halt [REASON]",
		Short: "Stop every drill and block new ones",
		Long: `Abort every drill that is running, that of a firedrill run too, put everything
back, and reject new ones until ` + "`firedrill halt --release`" + `. REASON is what rejected
requests and reports say. When all is halted already, that stays as it is, with its
reason. Both also work while no firedrill runs, for the state directory; halt also
where none ever ran. They wait for one that is just starting or ending.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				reason = args[0]
			}
			fresh := a.nats.URL == "" && !a.hasStore()
			if fresh && release {
				return a.noServer()
			}
			if fresh {
				fmt.Fprintf(a.Err, "firedrill: WARNING: no firedrill ever ran in %s, so this stops none that runs elsewhere: name its --state-dir, or its servers with --nats-url\n", a.where())
			}
			return a.switching(cmd.Context(), func(ctx context.Context, b *bus.Bus, running bool) error {
				return a.halt(ctx, b, running, bus.Halt{Halted: !release, By: requester(), Reason: reason})
			})
		},
	}
	c.Flags().BoolVar(&release, "release", false, "accept drills again")
	c.Flags().StringVar(&reason, "reason", "no reason given", "the same as REASON")
	return c
}

// switching has f switch, and says what it waits for.
func (a *app) switching(ctx context.Context, f func(ctx context.Context, b *bus.Bus, running bool) error) error {
	err := a.patiently(ctx, f, func() {
		fmt.Fprintf(a.Err, "firedrill: %v: waiting for that, up to %s\n", errChanging, changeWait)
	})
	switch {
	case errors.Is(err, errChanging) && ctx.Err() != nil:
		return interrupted(ctx, "nothing was switched", err)
	case errors.Is(err, errChanging):
		return failure(fmt.Errorf("nothing was switched in %s: %w", changeWait, err))
	}
	return err
}

// halt switches to what is wanted. Nobody's halt replaces an earlier one: whoever
// releases it must see why the first was given. running is false where only the event
// store is there.
func (a *app) halt(ctx context.Context, b *bus.Bus, running bool, want bus.Halt) error {
	before, switched, err := b.SwitchHalt(ctx, want)
	switch {
	case err != nil:
		return failure(err)
	case !switched && want.Halted:
		fmt.Fprintf(a.Out, "halted already, and that stays: %s\n", before)
	case !switched:
		fmt.Fprintln(a.Out, "nothing is halted: new drills are accepted")
	case want.Halted:
		return a.sayHalted(ctx, b, running)
	default:
		fmt.Fprintf(a.Out, "released: new drills are accepted; it was halted %s\n", before)
	}
	return nil
}

// sayHalted says what a halt does, and to which drills.
func (a *app) sayHalted(ctx context.Context, b *bus.Bus, running bool) error {
	drills, err := unfinished(ctx, b)
	does := ""
	if running && (err != nil || slices.ContainsFunc(drills, func(d bus.Summary) bool { return accepted(d).Settles == "" })) {
		does = "running drills are being aborted, "
	}
	fmt.Fprintf(a.Out, "halted: %snew ones are rejected until %s\n", does, a.command("halt --release"))
	if err != nil {
		fmt.Fprintf(a.Err, "firedrill: which drills run is not known: %v\n", err) // they are aborted all the same
		return nil
	}
	for _, d := range drills {
		switch {
		case !running:
			fmt.Fprintf(a.Out, "  %s was left before everything was put back: %s does that\n", d.Drill, a.command("up"))
		case accepted(d).Settles != "":
			fmt.Fprintf(a.Out, "  %s goes on: it only puts back what %s broke\n", d.Drill, accepted(d).Settles)
		default:
			fmt.Fprintf(a.Out, "  %s is being aborted and everything put back: %s shows how\n", d.Drill, a.command("watch "+d.Drill))
		}
	}
	if len(drills) == 0 {
		fmt.Fprintln(a.Out, "  none is running")
	}
	return nil
}

// warnHalted says in a line that all drills are halted, if they are.
func (a *app) warnHalted(ctx context.Context, w io.Writer, b *bus.Bus) error {
	h, err := b.HaltState(ctx)
	if err != nil {
		return failure(err)
	}
	if h.Halted {
		a.warnOf(w, h)
	}
	return nil
}

func (a *app) warnOf(w io.Writer, h bus.Halt) {
	fmt.Fprintf(w, "ALL DRILLS ARE HALTED %s\nnew ones are rejected until %s\n\n", h, a.command("halt --release"))
}

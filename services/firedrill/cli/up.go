package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/telemetry"
	"github.com/firedrill/firedrill/services/firedrill/allinone"
	"github.com/firedrill/firedrill/services/injector"
	"github.com/firedrill/firedrill/services/mirror"
	"github.com/firedrill/firedrill/services/reporter"
)

func (a *app) upCmd() *cobra.Command {
	o := allinone.Options{}
	c := &cobra.Command{
		Use:   "up",
		Short: "Run everything in one process until it is interrupted",
		Long: `Run the five services and a NATS server in one process, until interrupted.
Drills that were under way when it ended are taken up again at the next start.

Requests name entries of the inventory, a file that only whoever runs firedrill
writes: hosts, commands and references to secrets come from there.

The HTTP API needs a token: put it in FIREDRILL_HTTP_TOKEN.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.up(cmd.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Listen, "listen", "127.0.0.1:4222", "address for NATS clients")
	f.StringVar(&o.NATSConfig, "nats-config", "", "NATS server configuration, for accounts and TLS")
	f.StringVar(&o.HTTPAddr, "http", "127.0.0.1:8080", "address of the page and the API; empty for neither")
	a.inventoryFlag(f, "file that lists the systems which requests may drill; without one every request is rejected")
	f.StringVar(&o.OutDir, "out", "out/drills", "folder for reports")
	f.DurationVar(&o.LeaseTTL, "lease-ttl", 0, "how long a silent injector keeps a drill (default 15s)")
	return c
}

func (a *app) up(ctx context.Context, o allinone.Options) error {
	log, err := a.log()
	if err != nil {
		return err
	}
	if o.Inventory, err = injector.ReadInventory(a.inventory, a.registry, mirror.CheckInventory); err != nil {
		return err
	}
	switch spec := o.Inventory.Spec; {
	case len(spec.Targets) > 0 || spec.InlineTargets:
	case len(spec.Mirrors) > 0:
		fmt.Fprintln(a.Err, "firedrill: the inventory lists mirrors and no system: every request for a drill will be rejected")
	default:
		fmt.Fprintln(a.Err, "firedrill: the inventory lists no system: every request for a drill will be rejected; give one with --inventory")
	}
	o.StateDir, o.Registry, o.Log, o.HTTPToken = a.stateDir, a.registry, log, os.Getenv("FIREDRILL_HTTP_TOKEN")
	o.Locks = machine.Shared()
	if o.HTTPAddr != "" && o.HTTPToken == "" {
		fmt.Fprintln(a.Err, "firedrill: FIREDRILL_HTTP_TOKEN is not set: the HTTP API is off")
		o.HTTPAddr = ""
	}
	if err := reporter.CheckToken(o.HTTPToken); err != nil {
		return err
	}
	// What is under way is put back all the same, so this does not keep it from starting.
	if err := tryOut("--out", o.OutDir, o.OutDir); err != nil {
		fmt.Fprintf(a.Err, "firedrill: finished drills will have no report: %v\n", err)
	}
	flush, err := telemetry.Setup(ctx, "firedrill", "allinone")
	if err != nil {
		return failure(err)
	}
	stack, err := allinone.Start(ctx, o)
	if err != nil {
		return failure(withFlag(err))
	}
	rec, _ := allinone.ReadRecord(a.stateDir)
	fmt.Fprintf(a.Out, "firedrill is up: NATS at %s", rec.NATSURL)
	if rec.HTTP != "" {
		fmt.Fprintf(a.Out, ", page and API at http://%s", rec.HTTP)
	}
	fmt.Fprintln(a.Out)
	a.sayTaken(ctx, stack, cmp.Or(o.LeaseTTL, injector.DefaultLeaseTTL))
	select {
	case <-ctx.Done():
	case <-stack.Ended():
	}
	left := underWay(context.WithoutCancel(ctx), stack)
	stack.Close()
	for _, id := range left {
		fmt.Fprintf(a.Err, "firedrill: %s is under way: what it broke may not be put back before the next `firedrill up` in this state directory\n", id)
	}
	if err := flush(context.WithoutCancel(ctx)); err != nil {
		log.Warn("traces not flushed", "error", err)
	}
	if err := stack.Err(); err != nil || len(left) == 0 {
		return failure(err)
	}
	return &exitError{code: run.Inconclusive}
}

// sayTaken says which drills are taken up again, and who has to have been silent for how
// long before.
func (a *app) sayTaken(ctx context.Context, stack *allinone.Stack, ttl time.Duration) {
	left, err := unfinished(ctx, stack.Bus)
	for _, d := range left {
		h, failed := stack.Bus.History(ctx, d.Drill)
		if failed != nil {
			err = failed
			continue
		}
		switch l := drill.Fold(bus.Trusted(h)).Lease; l.Holder {
		case "", allinone.Instance:
			fmt.Fprintf(a.Out, "%s is under way, and is taken up again: %s shows it\n", d.Drill, a.command("watch "+d.Drill))
		default:
			until := time.Now().Add(ttl).Format(time.TimeOnly)
			fmt.Fprintf(a.Out, "%s is under way, conducted by %s of another process (lease %d): it is taken over when that was silent for %s, if it is, at %s (--lease-ttl)\n", d.Drill, l.Holder, l.Epoch, ttl, until)
		}
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintf(a.Err, "firedrill: not every drill that is under way could be looked at: %v\n", err)
	}
}

// withFlag names the flag of an address that cannot be had.
func withFlag(err error) error {
	if http, ok := errors.AsType[*allinone.HTTPError](err); ok {
		return fmt.Errorf("--http %w", http.Err)
	}
	if nats, ok := errors.AsType[*bus.ListenError](err); ok {
		return fmt.Errorf("--listen %w", nats)
	}
	return err
}

// underWay names the drills that are not finished.
func underWay(ctx context.Context, stack *allinone.Stack) []string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	drills, err := unfinished(ctx, stack.Bus)
	if err != nil {
		return nil // it is stopping because of that very server, most likely
	}
	var out []string
	for _, d := range drills {
		out = append(out, d.Drill)
	}
	return out
}

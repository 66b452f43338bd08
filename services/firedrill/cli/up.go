package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

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
	if o.HTTPAddr != "" && o.HTTPToken == "" {
		fmt.Fprintln(a.Err, "firedrill: FIREDRILL_HTTP_TOKEN is not set: the HTTP API is off")
		o.HTTPAddr = ""
	}
	if err := reporter.CheckToken(o.HTTPToken); err != nil {
		return err
	}
	flush, err := telemetry.Setup(ctx, "firedrill", "allinone")
	if err != nil {
		return failure(err)
	}
	stack, err := allinone.Start(ctx, o)
	if err != nil {
		return failure(err)
	}
	rec, _ := allinone.ReadRecord(a.stateDir)
	fmt.Fprintf(a.Out, "firedrill is up: NATS at %s", rec.NATSURL)
	if o.HTTPAddr != "" {
		fmt.Fprintf(a.Out, ", page and API at http://%s", o.HTTPAddr)
	}
	fmt.Fprintln(a.Out)
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

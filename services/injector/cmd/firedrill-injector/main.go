// Command firedrill-injector runs the injector as a process of its own.
package main

import (
	"context"
	"flag"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/minio"
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/pkg/target/zfs"
	"github.com/firedrill/firedrill/services/injector"
)

func main() {
	var ttl time.Duration
	var inventory string
	registry := target.NewRegistry(minio.Driver{}, postgres.Driver{}, zfs.Driver{})
	run.Service(event.Injector, func(ctx context.Context, p run.Process) error {
		inv, err := injector.ReadInventory(inventory, registry)
		if err != nil {
			return err
		}
		return injector.Run(ctx, injector.Config{Bus: p.Bus, Registry: registry, Inventory: inv, Clock: clock.System(), Log: p.Log, LeaseTTL: ttl})
	}, run.WithFlags(func(f *flag.FlagSet) {
		f.StringVar(&inventory, "inventory", "", "file that lists the systems which requests may drill; without one every request is rejected")
		f.DurationVar(&ttl, "lease-ttl", injector.DefaultLeaseTTL, "how long a silent injector keeps a drill before another takes over")
	}))
}

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
	"github.com/firedrill/firedrill/pkg/target/postgres"
	"github.com/firedrill/firedrill/services/injector"
)

func main() {
	var ttl time.Duration
	run.Service(event.Injector, func(ctx context.Context, p run.Process) error {
		return injector.Run(ctx, injector.Config{Bus: p.Bus, Registry: target.NewRegistry(postgres.Driver{}), Clock: clock.System(), Log: p.Log, LeaseTTL: ttl})
	}, run.WithFlags(func(f *flag.FlagSet) {
		f.DurationVar(&ttl, "lease-ttl", injector.DefaultLeaseTTL, "how long a silent injector keeps a drill before another takes over")
	}))
}

// Command firedrill-observer runs the observer as a process of its own.
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
	"github.com/firedrill/firedrill/services/observer"
)

func main() {
	var silence time.Duration
	run.Service(event.Observer, func(ctx context.Context, p run.Process) error {
		return observer.Run(ctx, observer.Config{Bus: p.Bus, Registry: target.NewRegistry(minio.Driver{}, postgres.Driver{}, zfs.Driver{}), Log: p.Log, Clock: clock.System(), Silence: silence})
	}, run.WithFlags(func(f *flag.FlagSet) {
		f.DurationVar(&silence, "silence", observer.DefaultSilence, "how long an observer may be silent before another takes over")
	}))
}

// Command firedrill-validator runs the validator as a process of its own.
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
	"github.com/firedrill/firedrill/services/validator"
)

func main() {
	var limit time.Duration
	run.Service(event.Validator, func(ctx context.Context, p run.Process) error {
		return validator.Run(ctx, validator.Config{Bus: p.Bus, Registry: target.NewRegistry(minio.Driver{}, postgres.Driver{}, zfs.Driver{}), Log: p.Log, Clock: clock.System(), CheckTime: limit})
	}, run.WithFlags(func(f *flag.FlagSet) {
		f.DurationVar(&limit, "check-time", validator.DefaultCheckTime, "how long one check may take before it is inconclusive")
	}))
}

// Command firedrill-mirror runs a mirror worker as a process of its own.
package main

import (
	"context"
	"flag"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/services/mirror"
	"github.com/firedrill/firedrill/services/mirror/tree"
)

func main() {
	var jobs, workers int
	run.Service(event.Mirror, func(ctx context.Context, p run.Process) error {
		return mirror.Run(ctx, mirror.Config{Bus: p.Bus, Log: p.Log, Clock: clock.System(), Jobs: jobs, Engine: tree.Engine{Workers: workers}})
	}, run.WithFlags(func(f *flag.FlagSet) {
		f.IntVar(&jobs, "jobs", mirror.DefaultJobs, "how many copies are made at once")
		f.IntVar(&workers, "workers", 0, "how many files of a copy are copied at once; 0: twice the cores, 4 to 16")
	}))
}

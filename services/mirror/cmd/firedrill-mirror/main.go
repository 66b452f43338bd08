// Command firedrill-mirror runs a mirror worker as a process of its own.
package main

import (
	"context"
	"flag"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/pkg/run"
	"github.com/firedrill/firedrill/pkg/sched"
	"github.com/firedrill/firedrill/services/mirror"
)

func main() {
	var c mirror.Config
	var inventory string
	sched.Batch()
	run.Service(event.Mirror, func(ctx context.Context, p run.Process) (err error) {
		if c.Inventory, err = mirror.ReadInventory(inventory); err != nil {
			return err
		}
		c.Bus, c.Log, c.Clock, c.Signer = p.Bus, p.Log, clock.System(), p.Signer
		c.Locks = machine.Shared()
		return mirror.Run(ctx, c)
	}, run.WithFlags(func(f *flag.FlagSet) {
		f.StringVar(&inventory, "inventory", "", "file that lists stores and mirrors; without one only drills' copies are made")
		f.StringVar(&c.StateDir, "mirror-state-dir", "", "folder for what mirrors remember from run to run; without one this process runs no mirrors")
		f.IntVar(&c.Items, "items", 0, "how many pieces of mirrors' work are under way at once; 0 lets the mirror choose")
		f.IntVar(&c.Jobs, "jobs", mirror.DefaultJobs, "how many copies are made at once")
		f.IntVar(&c.Engine.Workers, "workers", 0, "how many files of a copy are copied at once; 0: twice the cores, 4 to 16")
	}))
}

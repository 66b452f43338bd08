package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/heavy"
	"github.com/firedrill/firedrill/services/mirror/job"
)

// Config is what a mirror process needs to take part. All fields but the numbers are
// required.
type Config struct {
	Bus       *bus.Bus
	Log       *slog.Logger
	Inventory drill.Inventory
	// Env is where runs are remembered and by what they are signed; its Stores are
	// replaced by the inventory's.
	Env job.Env
	// Runs is how many runs this process begins at once, Items how many items of one mirror
	// it carries out at once; 0 means DefaultRuns and engine.DefaultItems.
	Runs, Items int
	// Long is after how long a run no longer counts as one of Runs, and is heavy; 0 means
	// heavy.DefaultLong.
	Long time.Duration
	// Lease is how long a process that plans a run may be silent before another one
	// takes its mirror over; 0 means DefaultLease. It is the same in all processes.
	Lease time.Duration
	// SplitAbove is the size in bytes above which the parts of one file are spread over
	// the processes; 0 means engine.DefaultSplit.
	SplitAbove int64

	// dueLook is how often it is looked for what is due; 0 means defaultDueLook.
	dueLook time.Duration
}

// DefaultRuns is how many runs a process begins at once. One that takes long makes room for
// the next one.
const DefaultRuns = 2

// ErrUnknown says that the inventory of a process has no such mirror.
var ErrUnknown = errors.New("the inventory has no mirror of that name")

// Run takes part until ctx ends, and returns nil then. It may run in any number of
// processes with the same inventory: they share runs and work.
func Run(ctx context.Context, c Config) error {
	c = c.complete()
	c.warnUnresolved()
	w := &worker{Config: c, readers: newReaders(), open: map[string]*opened{}}
	defer w.closeAll(context.WithoutCancel(ctx))
	r := newRunner(c)
	queues := []struct {
		name string
		work func(ctx context.Context, name string) error
	}{
		{bus.MirrorRequests, func(ctx context.Context, name string) error {
			return c.Bus.Work(ctx, name, bus.WorkOptions{Concurrency: bus.MirrorRequestsAtOnce, Untried: r.untried}, r.onRequest)
		}},
		{bus.MirrorTicks, func(ctx context.Context, name string) error {
			return c.Bus.Work(ctx, name, bus.WorkOptions{}, r.onTick)
		}},
		{bus.MirrorWork, func(ctx context.Context, name string) error {
			return c.Bus.WorkLanes(ctx, name, c.lanes(), bus.WorkOptions{Concurrency: c.Items}, w.onWork)
		}},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { r.schedule(ctx) })
	wg.Go(func() { w.readers.tell(ctx, c) })
	errs := make([]error, len(queues))
	for i, q := range queues {
		wg.Go(func() {
			defer cancel()
			err := q.work(ctx, q.name)
			if ctx.Err() == nil {
				errs[i] = fmt.Errorf("mirror: work on %s: %w", q.name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// warnUnresolved says which mirrors cannot run in this process, before the first of their runs
// fails: others can.
func (c Config) warnUnresolved() {
	for _, m := range c.Inventory.Spec.Mirrors {
		for _, err := range c.Env.Unresolved(m) {
			c.Log.Warn("a mirror's runs will fail in this process: it cannot read what its store needs", "mirror", m.Name, "error", err)
		}
	}
}

// lanes has the mirrors' work apart, so that a small one's does not wait for all of a
// large one's. What is held back to so many bytes a second mostly waits itself: one item
// of it at a time is as fast, and leaves the hands to others.
func (c Config) lanes() []bus.Lane {
	var out []bus.Lane
	for _, m := range c.Inventory.Spec.Mirrors {
		l := bus.Lane{Name: m.Name}
		if m.BytesPerSecond > 0 {
			l.Most = 1
		}
		out = append(out, l)
	}
	return out
}

// complete fills in what was left out.
func (c Config) complete() Config {
	c.Env.Stores = c.Inventory.Spec.Stores
	c.Env.OwnKeys = c.Inventory.Spec.InlineTargets
	if c.Runs == 0 {
		c.Runs = DefaultRuns
	}
	if c.Long == 0 {
		c.Long = heavy.DefaultLong
	}
	if c.Items == 0 {
		c.Items = engine.DefaultItems
	}
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	if c.dueLook == 0 {
		c.dueLook = defaultDueLook
	}
	return c
}

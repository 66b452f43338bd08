// Package validator checks data and state after a recovery: canary ledgers, and
// whatever the targets' drivers can check. It gives one result for each
// property and repairs nothing. A check that could not be made is inconclusive,
// never passed.
package validator

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/target"
)

// Config is what a validator needs. All fields but CheckTime are required.
type Config struct {
	Bus      *bus.Bus
	Registry target.Registry
	Log      *slog.Logger
	// Clock is the process's system clock.
	Clock target.Clock
	// CheckTime bounds one check, and one baseline; 0 means 15 minutes. A check
	// that takes longer is inconclusive.
	CheckTime time.Duration
}

const (
	// DefaultCheckTime is how long one check may take.
	DefaultCheckTime = 15 * time.Minute
	// atOnce is how many steps of different drills are worked on at once, and how
	// many targets of one step.
	atOnce = 4
)

// Run works off baselines, checks and evidence until ctx ends, and returns nil
// then. It may run in any number of processes: they share the work.
func Run(ctx context.Context, c Config) error {
	if c.CheckTime == 0 {
		c.CheckTime = DefaultCheckTime
	}
	work := map[string]func(context.Context, bus.Message) error{
		"validator-baselines": c.onBaseline,
		"validator-checks":    c.onCut,
		"validator-evidence":  c.onTrouble,
	}
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for durable, fn := range work {
		wg.Go(func() {
			err := c.Bus.Work(working, durable, bus.WorkOptions{Concurrency: atOnce}, fn)
			once.Do(func() { first = fmt.Errorf("validator: work on %s: %w", durable, err) })
			cancel() // the three end together
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return first
}

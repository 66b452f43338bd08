package job

import (
	"context"
	"sync/atomic"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// comparing is a pool, and counts, by side, the contents that it reads only to compare them.
type comparing struct {
	engine.Pool
	read [2]atomic.Int64
}

// Do implements engine.Pool.
func (c *comparing) Do(ctx context.Context, it engine.Item) ([]engine.Done, error) {
	doubts := make([][2]bool, len(it.Actions)) // of which the results say nothing
	for i := range it.Actions {
		if a := &it.Actions[i]; a.Op == plan.Rehash {
			doubts[i] = a.Doubt
		}
	}
	dones, err := c.Pool.Do(ctx, it)
	for i := range min(len(dones), len(doubts)) {
		for side, doubt := range doubts[i] {
			if doubt && dones[i].Err == nil {
				c.read[side].Add(1)
			}
		}
	}
	return dones, err
}

func (c *comparing) counts() (n [2]int64) {
	for side := range n {
		n[side] = c.read[side].Load()
	}
	return n
}

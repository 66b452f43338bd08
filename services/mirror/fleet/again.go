package fleet

import (
	"context"
	"errors"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// again looks at what failed because its destination is not as it was planned: maybe
// another worker has written it, which was killed before it could say so, or which
// still worked for a planner that was. What is there with the source's content has
// not failed: it goes back as a Rehash with its hashes, for the planner to settle.
func (o *opened) again(ctx context.Context, it engine.Item, dones []engine.Done) {
	if it.Ordered || it.DryRun {
		return // What comes after a failure in order was held back: the next run sees to it.
	}
	for i := range dones {
		d := &dones[i]
		if d.Action.Op != plan.Put && d.Action.Op != plan.Meta || !errors.Is(d.Err, place.ErrChanged) {
			continue
		}
		// Where that cannot be known, it has failed as it says itself.
		if arrived, err := o.worker.Arrived(ctx, &d.Action); err == nil && arrived {
			d.Action.Op, d.Err = plan.Rehash, nil
		}
	}
}

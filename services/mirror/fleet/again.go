package fleet

import (
	"context"
	"errors"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
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
		if (d.Action.Op == plan.Put || d.Action.Op == plan.Meta) && errors.Is(d.Err, place.ErrChanged) && o.there(ctx, &d.Action) {
			d.Action.Op, d.Err = plan.Rehash, nil
		}
	}
}

// there reports whether the destination holds what the action was to bring, and then
// fills in what both sides hold.
func (o *opened) there(ctx context.Context, a *plan.Action) bool {
	to, from := o.worker.Places[a.To], o.worker.Places[a.To.Other()]
	want := a.At(a.To.Other())
	got, ok, err := to.Look(ctx, want)
	if err != nil || !ok || got.Kind != want.Kind || got.Size != want.Size || got.Target != want.Target || got.Device != want.Device {
		return false
	}
	if want.Kind == entry.File {
		// What an object's metadata says of its content is its writer's word: another
		// content may have been put under it.
		got.Sum = got.Sum.Without(entry.HasBLAKE3 | entry.HasCRC32C)
		// It fails if the source is no longer what was planned to be copied.
		sum, err := engine.Hash(ctx, from, want, got.Sum, o.worker.Limit)
		if err != nil {
			return false
		}
		known, equal := sum.SameAs(got.Sum)
		if !known {
			read, err := engine.Hash(ctx, to, got, sum, o.worker.Limit)
			if err != nil {
				return false
			}
			_, equal = sum.SameAs(read)
			got.Sum = read.Merge(got.Sum)
		}
		if !equal {
			return false
		}
		got.Sum = got.Sum.Merge(sum.Without(entry.HasETag | entry.HasPartSize))
		want.Sum = sum.Merge(want.Sum)
	}
	if a.Source, a.Dest = want, got; a.To == plan.Source {
		a.Source, a.Dest = got, want
	}
	return true
}

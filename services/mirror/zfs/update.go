package zfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/lazy"
)

// Names of what Take takes: when, in UTC.
const (
	takenPrefix = "firedrill-"
	takenLayout = "20060102T150405.000Z"
)

var takenName = lazy.Regexp(`^` + takenPrefix + `\d{8}T\d{6}\.\d{3}Z$`)

// Take takes a snapshot that is named after the time, so that a policy can be for
// those that firedrill took, and marks it as the job's.
func (h *Host) Take(ctx context.Context, dataset, job string, now time.Time) (Snapshot, error) {
	return h.Snapshot(ctx, dataset, nameOf(now), job)
}

func nameOf(now time.Time) string { return takenPrefix + now.UTC().Format(takenLayout) }

// UpdateOptions say what is done around bringing snapshots elsewhere.
type UpdateOptions struct {
	// Now is when it is. Required.
	Now time.Time
	// NoSnapshot brings over what there is, and takes no new one first.
	NoSnapshot bool
	// Keep is which of the snapshots that Take took stay; nil lets none go. On a source
	// it is for those of the job alone. Those that were taken otherwise stay anyway.
	Keep *Keep
	// KeepPoints is which of the points of an archive stay whose snapshots Take took; nil
	// lets none go.
	KeepPoints *Keep
}

func (o UpdateOptions) validate() error {
	var errs []error
	for _, k := range []*Keep{o.Keep, o.KeepPoints} {
		if k != nil {
			errs = append(errs, k.Validate())
		}
	}
	return errors.Join(errs...)
}

// Updated is what a replication's Update did, also one that failed.
type Updated struct {
	// Taken is the snapshot that was taken first; nil if none was.
	Taken *Snapshot
	Replicated
	// PrunedSource and PrunedTarget are what the policy let go.
	PrunedSource, PrunedTarget []Snapshot
}

// Update does what is done regularly: it takes a snapshot of the source, sends what
// the target lacks as Run does, and prunes both sides. Where Run could not go on, as far
// as that can be known before, nothing is taken: the target was changed, or the dataset
// that it is to be made in does not exist, which is ErrNotExist. What could not be pruned
// makes the error wrap ErrBusy or ErrCloned, as of Prune, after all has been sent.
func (r Replication) Update(ctx context.Context, o UpdateOptions) (done Updated, err error) {
	if err := o.validate(); err != nil {
		return done, err
	}
	if _, err := r.ready(ctx, o, parent(r.To)); err != nil {
		return done, err
	}
	if !o.NoSnapshot {
		taken, err := r.Source.Take(ctx, r.From, r.Job, o.Now)
		if err != nil {
			return done, err
		}
		done.Taken = &taken
	}
	if done.Replicated, err = r.Run(ctx); err != nil || o.Keep == nil {
		return done, err
	}
	source, target := r.policies(*o.Keep, done.Common.GUID)
	var serr, terr error
	done.PrunedTarget, terr = r.Target.Prune(ctx, r.To, target)
	done.PrunedSource, serr = r.Source.Prune(ctx, r.From, source)
	return done, errors.Join(terr, serr)
}

// policies are what goes on the source, where others take snapshots too, and on the
// target, where all of them arrive.
func (r Replication) policies(k Keep, common uint64) (source, target PruneOptions) {
	target = PruneOptions{Keep: k, Taken: true, Common: []uint64{common}}
	source = target
	source.Job = r.Job
	return source, target
}

// UpdatePlan is what an Update would do.
type UpdatePlan struct {
	// Take is what the snapshot would be named that is taken first, and sent last; ""
	// if none would be.
	Take string
	// Chain is how the target follows from the source now, without Take. Where its
	// Ahead is not empty a rollback would destroy that.
	Chain
	// PruneSource and PruneTarget are what the policy would let go at the end.
	PruneSource, PruneTarget []Snapshot
}

// PlanUpdate says what Update would do, and changes nothing. The error is what Update
// would fail with, as far as that can be known.
func (r Replication) PlanUpdate(ctx context.Context, o UpdateOptions) (UpdatePlan, error) {
	if err := o.validate(); err != nil {
		return UpdatePlan{}, err
	}
	both, err := r.ready(ctx, o, parent(cmp.Or(r.Root, r.To)))
	plan := UpdatePlan{Chain: both.chain}
	if err != nil {
		return plan, err
	}
	send := slices.Clone(both.chain.Send)
	if !o.NoSnapshot {
		plan.Take = nameOf(o.Now)
		// It is younger than all others, and has no guid yet: no snapshot's is 0.
		send = append(send, Snapshot{Dataset: r.From, Name: plan.Take, TXG: math.MaxUint64, Created: o.Now, Job: r.Job})
	}
	if o.Keep == nil {
		return plan, nil
	}
	source, target := both.after(send, r.To)
	var common uint64
	switch n := len(send); {
	case n > 0:
		common = send[n-1].GUID
	case both.chain.Common != nil:
		common = both.chain.Common.GUID
	}
	atSource, atTarget := r.policies(*o.Keep, common)
	var serr, terr error
	plan.PruneTarget, terr = r.Target.uncloned(ctx, r.To, atTarget.expired(target))
	plan.PruneSource, serr = r.Source.uncloned(ctx, r.From, atSource.expired(source))
	return plan, errors.Join(terr, serr)
}

// after is what both sides would have when the last of send has arrived. Of the holds
// on a source's snapshot one may be the job's own, which it would let go by then: what
// may go is named rather too often than too seldom. to is the target's name.
func (s sides) after(send []Snapshot, to string) (source, target []Snapshot) {
	source = slices.Clone(s.source)
	for i := range source {
		source[i].Holds = max(0, source[i].Holds-1)
	}
	if n := len(send); n > 0 && send[n-1].GUID == 0 {
		source = append(source, send[n-1])
	}
	target = slices.Clone(s.target[:len(s.target)-len(s.chain.Ahead)])
	var last uint64
	if n := len(target); n > 0 {
		last = target[n-1].TXG
	}
	for i, arrived := range send {
		arrived.Dataset, arrived.Holds, arrived.TXG = to, 0, last+uint64(i)+1
		target = append(target, arrived)
	}
	return source, target
}

// Archived is what an archive's Update did, also one that failed.
type Archived struct {
	// Taken is the snapshot that was taken first; nil if none was.
	Taken *Snapshot
	// Points are those that were added.
	Points []Point
	// Swept is how many parts went of uploads that were never finished.
	Swept int
	// Pruned is what the policy let go on the source.
	Pruned []Snapshot
	// Thinned is what became of the archive's points.
	Thinned Thinned
}

// abandoned is after how long without a new part an upload without an index is not
// under way any more.
const abandoned = 24 * time.Hour

// Update does what is done regularly: it takes a snapshot, archives what the archive
// lacks as Save does, sweeps what crashes have left, and prunes the archive and the
// source.
func (a *Archive) Update(ctx context.Context, h *Host, dataset string, s SaveOptions, o UpdateOptions) (done Archived, err error) {
	if err := errors.Join(checkDataset(dataset), checkJob(s.Job), o.validate()); err != nil {
		return done, err
	}
	_, damaged, err := a.behind(ctx, h, dataset)
	if err != nil && (o.NoSnapshot || !errors.Is(err, ErrNoSnapshots)) {
		return done, err
	}
	if !o.NoSnapshot {
		taken, err := h.Take(ctx, dataset, s.Job, o.Now)
		if err != nil {
			return done, err
		}
		done.Taken = &taken
	}
	if done.Points, err = a.Save(ctx, h, dataset, s); err != nil {
		return done, err
	}
	if damaged == nil {
		if done.Swept, err = a.Sweep(ctx, o.Now.Add(-abandoned)); err != nil {
			return done, err
		}
	}
	var aerr, serr error
	if o.KeepPoints != nil {
		thin := ThinOptions{Keep: *o.KeepPoints, Taken: true}
		for _, p := range done.Points {
			thin.Stay = append(thin.Stay, p.GUID)
		}
		done.Thinned, aerr = a.Thin(ctx, thin)
	}
	if o.Keep != nil {
		// The newest that is archived is held.
		done.Pruned, serr = h.Prune(ctx, dataset, PruneOptions{Keep: *o.Keep, Taken: true, Job: s.Job})
	}
	if err := errors.Join(aerr, serr); err != nil {
		return done, fmt.Errorf("archived, but: %w", err)
	}
	return done, nil
}

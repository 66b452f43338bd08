package zfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// ThinOptions say which points of an archive go.
type ThinOptions struct {
	Keep Keep
	// Prefix is what the names of the snapshots begin with that the policy is for;
	// others neither go nor count. "" is all.
	Prefix string
	// Taken limits the policy to what Take named.
	Taken bool
	// Stay are the guids of points that stay whatever the policy says: those that were
	// just archived, by a clock that may have been wrong once.
	Stay []uint64
	// Read has every part that stays be read, and its hashes compared, before anything
	// goes. Without it their sizes are compared.
	Read bool
	// DryRun only says what would go.
	DryRun bool
	// Watch, if not nil, is told how far Read is, often and from another goroutine.
	Watch func(Progress)
}

// Thinned is what became of an archive's points.
type Thinned struct {
	// Gone are those that went, or in a dry run would go: each before what it builds on.
	Gone []Point
	// Needed are those that the policy lets go, and that stay because one that stays
	// builds on them; oldest first.
	Needed []Point
}

// Thin deletes the points that the policy lets go and that no point that stays builds
// on. The newest stays, with the end of the chain that it is in, as a clock that was set
// back makes later points look older; so does what cannot be restored, or is of no concern
// to the policy: neither counts for it. An archive with an index that cannot be read is
// ErrCorrupt or ErrUnsupported, and nothing is deleted: nobody knows what that builds
// on. Nor is anything where a part that has to stay is missing or damaged, which is a
// *PartError.
//
// What is deleted is so from the newest to the oldest, and each index before its parts,
// so that whatever is left at any moment can be restored. A Thin that is broken off is
// gone on with by the next one; it may leave parts to Sweep. Afterwards it is looked
// whether all that was to stay is there. Neither Save nor Restore may run meanwhile, as it could build
// on what goes, or read it. It returns what has gone, with an error too. Where a bucket keeps
// versions, those of what went stay for as long as its rules say.
func (a *Archive) Thin(ctx context.Context, o ThinOptions) (Thinned, error) {
	if err := o.Keep.Validate(); err != nil {
		return Thinned{}, fmt.Errorf("prune the archive: %w", err)
	}
	points, err := a.Points(ctx)
	if err != nil {
		return Thinned{}, fmt.Errorf("prune the archive: nothing was deleted, as it is not known what all of its points build on: %w", err)
	}
	d := o.divide(points)
	done := Thinned{Needed: d.needed}
	if len(d.gone) == 0 {
		return done, nil
	}
	if err := a.sound(ctx, d.stay, o); err != nil {
		return done, fmt.Errorf("prune the archive: nothing was deleted: what has to stay is not whole: %w", err)
	}
	if o.DryRun {
		done.Gone = d.gone
		return done, nil
	}
	for _, p := range d.gone {
		if err := a.remove(ctx, p); err != nil {
			return done, fmt.Errorf("prune %s from the archive: %w", p.Name(), err)
		}
		done.Gone = append(done.Gone, p)
	}
	return done, a.proveThere(ctx, d.stay)
}

// divided are the points of an archive, by what becomes of them.
type divided struct {
	stay, gone, needed []Point
}

// divide says what becomes of points, which are in the order of Points.
func (o ThinOptions) divide(points []Point) (d divided) {
	depth, from := depths(points), make(map[uint64]uint64, len(points))
	var under []Snapshot
	young := map[uint64]bool{}
	for i, p := range points {
		from[p.GUID] = p.From
		young[p.GUID] = !older(p, points[len(points)-1])
		if depth[p.GUID] > 0 && o.concerns(p) {
			under = append(under, Snapshot{Dataset: p.Dataset, Name: p.Snapshot, GUID: p.GUID, TXG: uint64(i) + 1, Created: p.Created})
		}
	}
	expired := map[uint64]bool{}
	for _, s := range o.Keep.Expired(under) {
		expired[s.GUID] = !young[s.GUID]
	}
	for _, guid := range slices.Concat(o.Stay, ends(points, depth, from)) {
		delete(expired, guid)
	}
	needed := map[uint64]bool{}
	for _, p := range points {
		if expired[p.GUID] {
			continue
		}
		for below := p.From; below != 0 && !needed[below]; below = from[below] {
			needed[below] = true
		}
	}
	for _, p := range points {
		switch {
		case expired[p.GUID] && !needed[p.GUID]:
			d.gone = append(d.gone, p)
			continue
		case expired[p.GUID]:
			d.needed = append(d.needed, p)
		}
		d.stay = append(d.stay, p)
	}
	// A clock that was set back makes an increment look older than what it builds on.
	slices.SortStableFunc(d.gone, func(x, y Point) int { return cmp.Compare(depth[y.GUID], depth[x.GUID]) })
	return d
}

// older reports whether a point was certainly taken before the newest. Points know
// seconds only: of those of the last one only firedrill's names say which came first.
func older(p, newest Point) bool {
	return p.Created.Before(newest.Created) || p.Created.Equal(newest.Created) && byName(p, newest) < 0
}

// ends are the points of the chain of the newest one, and of those that may be it, on
// which most lies.
func ends(points []Point, depth map[uint64]int, from map[uint64]uint64) (out []uint64) {
	root := func(guid uint64) uint64 {
		for from[guid] != 0 {
			guid = from[guid]
		}
		return guid
	}
	deepest := map[uint64]int{}
	for _, p := range points {
		if depth[p.GUID] > 0 {
			deepest[root(p.GUID)] = max(deepest[root(p.GUID)], depth[p.GUID])
		}
	}
	last := map[uint64]bool{}
	for _, p := range points {
		if depth[p.GUID] > 0 && !older(p, points[len(points)-1]) {
			last[root(p.GUID)] = true
		}
	}
	for _, p := range points {
		if d := depth[p.GUID]; d > 0 && last[root(p.GUID)] && d == deepest[root(p.GUID)] {
			out = append(out, p.GUID)
		}
	}
	return out
}

// concerns says whether the policy is for a point.
func (o ThinOptions) concerns(p Point) bool {
	return named(p.Snapshot, o.Prefix, o.Taken)
}

// sound makes sure that what stays can be restored, as far as it could before. Points
// of which it is known that they cannot be are let be.
func (a *Archive) sound(ctx context.Context, stay []Point, o ThinOptions) error {
	good := Restorable(stay)
	whole := slices.DeleteFunc(slices.Clone(stay), func(p Point) bool { return !good[p.GUID] })
	if err := a.look(ctx, whole); err != nil || !o.Read {
		return err
	}
	for i, p := range whole {
		at := Progress{Snapshot: p.Name(), Number: i + 1, Of: len(whole), Total: p.Stream.Bytes}
		damaged, err := a.checkPoint(ctx, p, at.watch(o.Watch))
		if err := errors.Join(append(damaged, err)...); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes one point. Without its index it is not there, whatever is left of its
// parts.
func (a *Archive) remove(ctx context.Context, p Point) error {
	if err := a.store.Delete(ctx, []string{p.key()}); err != nil {
		return fmt.Errorf("delete its index: %w", err)
	}
	keys := make([]string, len(p.Parts))
	for i := range keys {
		keys[i] = p.partKey(i)
	}
	if err := a.store.Delete(ctx, keys); err != nil {
		return fmt.Errorf("delete its parts, which the next archiving sweeps: %w", err)
	}
	return nil
}

// proveThere looks whether points are there, with their parts, and build on what is
// there. What a Save has added meanwhile has to be so as well.
func (a *Archive) proveThere(ctx context.Context, stay []Point) error {
	points, err := a.Points(ctx)
	if err != nil {
		return fmt.Errorf("look at the archive after it was pruned: %w", err)
	}
	was, is := Restorable(stay), Restorable(points)
	known := make(map[uint64]bool, len(stay))
	for _, p := range stay {
		known[p.GUID] = true
		if was[p.GUID] && !is[p.GUID] {
			return fmt.Errorf("look at the archive after it was pruned: %w: %s was to stay and cannot be restored any more: somebody else deletes there", ErrCorrupt, p.Name())
		}
	}
	whole := slices.DeleteFunc(slices.Clone(points), func(p Point) bool { return !is[p.GUID] })
	for _, p := range points {
		if !known[p.GUID] && !is[p.GUID] {
			return fmt.Errorf("look at the archive after it was pruned: %w: %s was archived meanwhile, on top of what went: archive once more, as the next run begins before it", ErrCorrupt, p.Name())
		}
	}
	if err := a.look(ctx, whole); err != nil {
		return fmt.Errorf("look at the archive after it was pruned: %w", err)
	}
	return nil
}

package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// What was deleted is brought back on both sides: where it is missing on one, the next run
// would delete it again.

// RestoreOptions say what is brought back, and how.
type RestoreOptions struct {
	DeletedOptions
	// DryRun only looks at what would be brought back, and what stands in its way.
	DryRun bool
	// Each, if not nil, is told of each entry; by one goroutine at a time.
	Each func(Restored)
}

// Restored is what became of one entry.
type Restored struct {
	Deleted
	// Err says why it is not back, Alone why it is back where it was deleted only.
	Err, Alone error
}

// Restoration is what bringing back came to.
type Restoration struct {
	// Entries and Bytes count what is back on both sides, or, of a dry run, would be; Alone
	// what is back where it was deleted only, Failed what is not.
	Entries, Bytes, Alone, Failed int64
}

var (
	// ErrNothingDeleted says that nothing that was deleted has a path, or is of a run.
	ErrNothingDeleted = errors.New("nothing that can be brought back")
	// ErrInTheWay says that something has the name of what was to be brought back.
	ErrInTheWay = errors.New("something has its name by now, and stays: move it away, and restore again")
	// ErrOneSide says that the other side cannot be written to: what lacks there the next
	// runs delete again.
	ErrOneSide = errors.New("the source is a dataset, which cannot be written to: copy it there by hand before the next run, which would delete it again")
)

// restoring is one call of Restore.
type restoring struct {
	*Job
	ctx  context.Context
	o    RestoreOptions
	keep map[plan.Side]place.Keeper
	// plain are the places without the mirror's rules for permissions.
	plain [2]place.Place

	res   Restoration
	pasts []plan.Past
}

// Restore brings back what runs have deleted: the newest of each path, where no run is
// named. It never writes over anything. Where it is back on both sides the next run finds
// them equal. The job was opened for Repairs. The error says why it could not go on, and is
// ErrNothingDeleted, with nothing done, where one of the paths was not deleted.
func (j *Job) Restore(ctx context.Context, o RestoreOptions) (Restoration, error) {
	r := &restoring{Job: j, ctx: ctx, o: o, keep: j.keepers(), plain: j.places}
	r.plain[plan.Source] = plainly(j.places[plan.Source])
	if err := r.right(); err != nil {
		return r.res, err
	}
	chosen, err := r.choose()
	if err != nil {
		return r.res, err
	}
	var dirs, files []Deleted
	for _, key := range slices.SortedFunc(maps.Keys(chosen), entry.Compare) {
		if d := chosen[key]; d.Entry.Kind == entry.Dir {
			dirs = append(dirs, d)
		} else {
			files = append(files, d)
		}
	}
	for _, d := range dirs { // each before what lies in it
		if err := r.bringBack([]Deleted{d}); err != nil {
			return r.res, err
		}
	}
	for chunk := range slices.Chunk(files, restoreAtOnce) {
		if err := r.bringBack(chunk); err != nil {
			return r.res, err
		}
	}
	if o.DryRun {
		return r.res, nil
	}
	return r.res, r.remember()
}

// right refuses places that are not those that the mirror was set up with.
func (r *restoring) right() error {
	facts, _, err := r.Facts()
	if err != nil {
		return fmt.Errorf("mirror %s: %w", r.spec.Name, err)
	}
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		if want := facts.Identities[side]; want != "" && want != r.places[side].Traits().Identity {
			return fmt.Errorf("mirror %s: %w", r.spec.Name, engine.Elsewhere(side, r.places[side]))
		}
	}
	return nil
}

const (
	// restoreAtOnce is how many files are written to the other side together.
	restoreAtOnce = 256
	// restoreWide is how many requests are under way at once.
	restoreWide = 16
)

// choose gives, by key, what is brought back: of each key the newest, and the directories
// above that are gone as well.
func (r *restoring) choose() (map[string]Deleted, error) {
	chosen := map[string]Deleted{}
	found := make([]bool, len(r.o.Under))
	err := r.newest(r.o.DeletedOptions, chosen, func(d Deleted) bool {
		for i, under := range r.o.Under {
			found[i] = found[i] || (place.KeptOptions{Under: []string{under}}).Takes(d.Entry.Path)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	of := ""
	if r.o.Run != "" {
		of = fmt.Sprintf(" by the run %q", r.o.Run)
	}
	if i := slices.Index(found, false); i >= 0 {
		return nil, fmt.Errorf("mirror %s: %q: there is %w that was deleted there%s", r.spec.Name, r.o.Under[i], ErrNothingDeleted, of)
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("mirror %s: there is %w that was deleted%s", r.spec.Name, ErrNothingDeleted, of)
	}
	gone, err := r.goneAbove(chosen)
	if err != nil || len(gone) == 0 {
		return chosen, err
	}
	// Whichever run has deleted them.
	return chosen, r.newest(DeletedOptions{Under: slices.Sorted(maps.Keys(gone))}, chosen, func(d Deleted) bool {
		_, listed := chosen[d.Entry.Key()]
		return d.Entry.Kind == entry.Dir && gone[d.Entry.Path] && !listed
	})
}

// newest adds the newest of what was deleted, by key, as far as it is wanted.
func (r *restoring) newest(o DeletedOptions, into map[string]Deleted, wanted func(Deleted) bool) error {
	added := map[string]Deleted{}
	for d, err := range r.Deleted(r.ctx, o) {
		if err != nil {
			return err
		}
		key := d.Entry.Key()
		if was, ok := added[key]; wanted(d) && (!ok || was.Bin.At.Before(d.Bin.At)) {
			added[key] = d
		}
	}
	maps.Copy(into, added)
	return nil
}

// goneAbove gives the directories above what was chosen that are gone, too.
func (r *restoring) goneAbove(chosen map[string]Deleted) (map[string]bool, error) {
	gone := map[string]bool{}
	looked := map[string]bool{}
	for _, d := range chosen {
		for dir := parent(d.Entry.Path); dir != "" && !looked[dir]; dir = parent(dir) {
			looked[dir] = true
			e := entry.Entry{Path: dir, Kind: entry.Dir}
			_, there, err := r.plain[d.Side].Look(r.ctx, e)
			if err != nil {
				return nil, err
			}
			if _, listed := chosen[e.Key()]; !there && !listed {
				gone[dir] = true
			}
		}
	}
	return gone, nil
}

// parent is the path of the directory that a path lies in; "" is the root.
func parent(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// bringBack brings entries back that do not need each other, and tells of each.
func (r *restoring) bringBack(all []Deleted) error {
	back := make([]Restored, len(all))
	now := make([]entry.Entry, len(all))
	var g errgroup.Group
	g.SetLimit(restoreWide)
	for i, d := range all {
		g.Go(func() error {
			back[i].Deleted = d
			if back[i].Err = r.clear(d); back[i].Err == nil && !r.o.DryRun {
				now[i], back[i].Err = r.keep[d.Side].Restore(r.ctx, d.Kept)
			}
			if errors.Is(back[i].Err, place.ErrChanged) {
				back[i].Err = fmt.Errorf("%w: %w", ErrInTheWay, back[i].Err)
			}
			return nil
		})
	}
	_ = g.Wait() // Each keeps its own error.
	if !r.o.DryRun {
		r.across(back, now)
	}
	for i := range back {
		r.count(&back[i])
	}
	return context.Cause(r.ctx)
}

// clear reports whether nothing stands, on either side, where an entry is to be. A
// directory may be on the other side already.
func (r *restoring) clear(d Deleted) error {
	for _, side := range []plan.Side{d.Side, d.Side.Other()} {
		for _, kind := range []entry.Kind{entry.File, entry.Dir} {
			if kind == entry.Dir && d.Entry.Kind == entry.Dir && side != d.Side {
				continue
			}
			_, there, err := r.plain[side].Look(r.ctx, entry.Entry{Path: d.Entry.Path, Kind: kind})
			if err != nil {
				return err
			}
			if there {
				return fmt.Errorf("at the %s: %w", side, ErrInTheWay)
			}
		}
	}
	return nil
}

// across copies what is back on one side to the other.
func (r *restoring) across(back []Restored, now []entry.Entry) {
	w := r.Worker()
	w.Places = r.plain
	it := engine.Item{Seq: 1, Single: true}
	var of []int
	for i := range back {
		side := back[i].Side
		switch {
		case back[i].Err != nil:
			continue
		case r.spec.at[side.Other()].Scheme == location.ZFS:
			back[i].Alone = ErrOneSide
			continue
		}
		if now[i].Kind == entry.Dir {
			// One that is there keeps its attributes, and the next run carries them.
			_, there, err := r.plain[side.Other()].Look(r.ctx, now[i])
			if back[i].Alone = err; there || err != nil {
				continue
			}
		}
		a := plan.Action{Op: plan.Put, Key: now[i].Key(), To: side.Other(), Source: now[i]}
		if now[i].Kind == entry.Dir {
			a.Op = plan.MakeDir
		}
		if side == plan.Dest {
			a.Source, a.Dest = entry.Entry{}, now[i]
		}
		it.Actions, of = append(it.Actions, a), append(of, i)
	}
	if len(of) == 0 {
		return
	}
	dones, err := w.Do(r.ctx, it)
	for n, i := range of {
		if err == nil || len(dones) == len(of) {
			back[i].Alone = dones[n].Err
		}
		if back[i].Alone = cmp.Or(back[i].Alone, err); back[i].Alone != nil {
			continue
		}
		a := dones[n].Action
		if a.Source, back[i].Alone = r.remembered(r.ctx, plan.Source, a.Source); back[i].Alone != nil {
			continue
		}
		r.pasts = append(r.pasts, plan.Past{Key: a.Key, Source: a.Source, Dest: a.Dest})
	}
}

func (r *restoring) count(b *Restored) {
	switch {
	case b.Err != nil:
		r.res.Failed++
	case b.Alone != nil:
		r.res.Alone++
	default:
		r.res.Entries++
		r.res.Bytes += b.Entry.Size
	}
	if r.o.Each != nil {
		r.o.Each(*b)
	}
}

// remember has the next run find both sides as they are now.
func (r *restoring) remember() error {
	switch _, known, err := r.Facts(); {
	case err != nil:
		return fmt.Errorf("mirror %s: %w", r.spec.Name, err)
	case known && len(r.pasts) > 0:
		return r.note(r.ctx, r.pasts)
	}
	// What is not noted a run compares.
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		if err := r.places[side].Finish(r.ctx); err != nil {
			return fmt.Errorf("mirror %s: finish the %s: %w", r.spec.Name, side, err)
		}
	}
	return nil
}

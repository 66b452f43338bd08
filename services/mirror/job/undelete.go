package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
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
	// sorted is what was deleted, done what both sides hold again; news says that it is not
	// empty.
	sorted *state.Sorted
	done   *state.Spill
	news   bool

	res Restoration
	// above is what leads from the root to the path at hand, waiting the files that are
	// brought back next, together.
	above   []level
	waiting []*Restored
}

// level is a path above the one at hand, or that one.
type level struct {
	path string
	// spare is a directory that comes back if something in it does.
	spare *Deleted
	// file is what the path has, or will have, if that is no directory.
	file *Restored
	// looked says that it is known whether something can lie in it: err is why not.
	looked bool
	err    error
}

// Restore brings back what runs have deleted: the newest of each path, where no run is
// named. It never writes over anything, and looks at both sides before it changes one: what
// cannot be on both is brought back on none, and nor is what lies in it. Where it is back on
// both sides the next run finds them equal. The job was opened for Repairs, or, for a dry
// run, to look. The error says why it could not go on, and is
// ErrNothingDeleted, with nothing done, where one of the paths was not deleted.
func (j *Job) Restore(ctx context.Context, o RestoreOptions) (Restoration, error) {
	r := &restoring{Job: j, ctx: ctx, o: o, keep: j.keepers(), plain: j.places}
	r.plain[plan.Source] = plainly(j.places[plan.Source])
	err := r.right()
	if err == nil && o.DryRun {
		err = j.mayWrite(Repairs)
	}
	if err == nil {
		err = r.restore()
	}
	return r.res, err
}

func (r *restoring) restore() (err error) {
	if r.sorted, err = r.store.Sorted(); err != nil {
		return fmt.Errorf("mirror %s: %w", r.spec.Name, err)
	}
	defer func() { err = errors.Join(err, r.sorted.Close()) }()
	if r.done, err = r.store.Spill(); err != nil {
		return fmt.Errorf("mirror %s: %w", r.spec.Name, err)
	}
	defer func() { err = errors.Join(err, r.done.Close()) }()
	if err := r.choose(); err != nil {
		return err
	}
	err = r.all()
	if r.o.DryRun {
		return err
	}
	ctx := r.ctx
	if err != nil {
		// What is back gets its attributes, and is noted, whatever keeps the rest from it.
		var end context.CancelFunc
		ctx, end = context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
		defer end()
	}
	return errors.Join(err, r.remember(ctx))
}

// settleWithin is how long a job that was called off, or failed, may see to what it has done.
const settleWithin = time.Minute

// all brings back what was chosen.
func (r *restoring) all() error {
	for d, err := range r.newest() {
		if err == nil {
			err = r.next(d)
		}
		if err != nil {
			return err
		}
	}
	return r.flush()
}

// right refuses places that are not those that the mirror was set up with.
func (r *restoring) right() error {
	facts, _, err := r.Facts()
	if err != nil {
		return fmt.Errorf("mirror %s: %w", r.spec.Name, err)
	}
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		if want := facts.Identities[side]; want != "" && !engine.IsPlace(want, r.places[side].Traits()) {
			return fmt.Errorf("mirror %s: %w", r.spec.Name, engine.Elsewhere(side, r.places[side]))
		}
	}
	return nil
}

const (
	// restoreAtOnce is how many files are held, and written to the other side together.
	restoreAtOnce = 256
	// restoreWide is how many requests are under way at once.
	restoreWide = 16
)

// next sees to what comes next, in an order in which directories come before what is in them.
func (r *restoring) next(d Deleted) error {
	r.climb(d.Entry.Path)
	if !r.asked(d) {
		r.above = append(r.above, level{path: d.Entry.Path, spare: &d})
		return nil
	}
	err := r.reach()
	if err != nil {
		return err
	}
	b := &Restored{Deleted: d}
	at := level{path: d.Entry.Path}
	if n := len(r.above); n > 0 {
		b.Err = r.above[n-1].err
	}
	switch {
	case b.Err != nil:
		r.count(b)
		at.looked, at.err = true, b.Err
	case d.Entry.Kind == entry.Dir:
		err = r.bringBack([]*Restored{b})
		at.looked, at.err = true, under(at.path, b.Err)
		r.count(b)
	default:
		at.file = b
		if r.waiting = append(r.waiting, b); len(r.waiting) == restoreAtOnce {
			err = r.flush()
		}
	}
	r.above = append(r.above, at)
	return err
}

// climb has above lead to a path: without what is not above it, and with all that is.
func (r *restoring) climb(path string) {
	n := len(r.above)
	for n > 0 && !strings.HasPrefix(path, r.above[n-1].path+"/") {
		n--
	}
	known := 0
	if r.above = r.above[:n]; n > 0 {
		known = len(r.above[n-1].path) + 1
	}
	for i := known; i < len(path); i++ {
		if path[i] == '/' {
			r.above = append(r.above, level{path: path[:i]})
		}
	}
}

// reach finds out of all that is above whether something can lie in it, and brings back the
// directories that are kept. Its error ends the restoring.
func (r *restoring) reach() error {
	above := context.Cause(r.ctx)
	if above != nil {
		return above
	}
	for i := range r.above {
		l := &r.above[i]
		if !l.looked {
			l.looked, l.err = true, above
			if err := r.look(l); err != nil {
				return err
			}
		}
		above = l.err
	}
	return nil
}

// look is reach for one level, of which all above are directories, or can be.
func (r *restoring) look(l *level) error {
	switch {
	case l.err != nil:
		return nil
	case l.spare != nil:
		b := &Restored{Deleted: *l.spare}
		err := r.bringBack([]*Restored{b})
		if l.err = under(l.path, b.Err); l.err == nil {
			r.count(b)
		}
		return err
	case l.file != nil && !r.both():
		if err := r.flush(); err != nil {
			return err
		}
		if l.file.Err == nil {
			l.err = under(l.path, errFile)
			return nil
		}
	}
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		if l.err = under(l.path, r.free(side, place.Kept{Entry: entry.Entry{Path: l.path, Kind: entry.Dir}})); l.err != nil {
			return nil
		}
	}
	return nil
}

// errFile says that a path is that of a file that comes back.
var errFile = errors.New("the newest of that name is no directory, and comes back")

// under says why nothing in a directory can come back; nil if something can.
func under(path string, why error) error {
	if why == nil {
		return nil
	}
	return fmt.Errorf("it lies in %q, which cannot be a directory: %w", path, why)
}

// flush brings back the files that wait for it.
func (r *restoring) flush() error {
	all := r.waiting
	r.waiting = nil
	if len(all) == 0 {
		return nil
	}
	err := r.bringBack(all)
	for _, b := range all {
		r.count(b)
	}
	return err
}

// bringBack brings entries back that do not need each other.
func (r *restoring) bringBack(back []*Restored) error {
	now := make([]entry.Entry, len(back))
	var g errgroup.Group
	g.SetLimit(restoreWide)
	for i, b := range back {
		g.Go(func() error {
			if b.Err = r.clear(b.Deleted); b.Err == nil && !r.o.DryRun {
				now[i], b.Err = r.keep[b.Side].Restore(r.ctx, b.Kept)
			}
			if errors.Is(b.Err, place.ErrChanged) {
				b.Err = fmt.Errorf("%w: %w", ErrInTheWay, b.Err)
			}
			return nil
		})
	}
	_ = g.Wait() // Each keeps its own error.
	if err := r.across(back, now); err != nil {
		return err
	}
	return context.Cause(r.ctx)
}

// clear reports whether an entry can be on both sides.
func (r *restoring) clear(d Deleted) error {
	e := d.Entry
	err := r.free(d.Side, d.Kept)
	if err == nil {
		err = r.free(d.Side.Other(), place.Kept{Entry: e})
	}
	if err != nil {
		return err
	}
	if e.Kind == entry.Symlink && e.Target == "" {
		e.Kind = entry.File // whose target is not known yet
	}
	if err := r.plain[d.Side.Other()].Traits().Holds(e); err != nil {
		return fmt.Errorf("the %s cannot hold it: %w", d.Side.Other(), err)
	}
	return nil
}

// free reports whether nothing stands where an entry is to be on a side.
func (r *restoring) free(side plan.Side, what place.Kept) error {
	k, ok := r.plain[side].(place.Keeper)
	if !ok {
		return fmt.Errorf("the %s keeps nothing", side)
	}
	err := k.Free(r.ctx, what)
	if errors.Is(err, place.ErrChanged) {
		return fmt.Errorf("at the %s: %w", side, ErrInTheWay)
	}
	return err
}

// across copies what is back on one side to the other.
func (r *restoring) across(back []*Restored, now []entry.Entry) error {
	w := r.Worker()
	w.Places = r.plain
	it := engine.Item{Seq: 1, Single: true}
	var of []*Restored
	for i, b := range back {
		other := b.Side.Other()
		if b.Err == nil && r.spec.at[other].Scheme == location.ZFS {
			b.Alone = ErrOneSide
		}
		if b.Err != nil || b.Alone != nil || r.o.DryRun {
			continue
		}
		a := plan.Action{Op: plan.Put, Key: now[i].Key(), To: other, Source: now[i]}
		if now[i].Kind == entry.Dir {
			// One that is there keeps its attributes, and the next run carries them.
			_, there, err := r.plain[other].Look(r.ctx, now[i])
			if b.Alone = err; there || err != nil {
				continue
			}
			a.Op = plan.MakeDir
		}
		if b.Side == plan.Dest {
			a.Source, a.Dest = entry.Entry{}, now[i]
		}
		it.Actions, of = append(it.Actions, a), append(of, b)
	}
	if len(of) == 0 {
		return nil
	}
	dones, err := w.Do(r.ctx, it)
	for n, b := range of {
		if err == nil || len(dones) == len(of) {
			b.Alone = dones[n].Err
		}
		if b.Alone = cmp.Or(b.Alone, err); b.Alone != nil {
			continue
		}
		a := dones[n].Action
		if a.Source, b.Alone = r.remembered(r.ctx, plan.Source, a.Source); b.Alone != nil {
			continue
		}
		a.Op = plan.Equal
		if err := r.done.Push(a); err != nil {
			return fmt.Errorf("mirror %s: %w", r.spec.Name, err)
		}
		r.news = true
	}
	return nil
}

// count counts what became of an entry, and tells of it.
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
func (r *restoring) remember(ctx context.Context) error {
	_, known, err := r.Facts()
	if err != nil {
		return fmt.Errorf("mirror %s: %w", r.spec.Name, err)
	}
	if known && r.news {
		return r.note(ctx, func(yield func(plan.Past, error) bool) {
			for a, err := range r.done.All() {
				if !yield(plan.Past{Key: a.Key, Source: a.Source, Dest: a.Dest}, err) {
					return
				}
			}
		})
	}
	// What is not noted a run compares.
	for _, side := range []plan.Side{plan.Source, plan.Dest} {
		if err := r.places[side].Finish(ctx); err != nil {
			return fmt.Errorf("mirror %s: finish the %s: %w", r.spec.Name, side, err)
		}
	}
	return nil
}

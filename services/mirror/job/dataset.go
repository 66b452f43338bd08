package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/local"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
	"github.com/firedrill/firedrill/services/mirror/state"
	"github.com/firedrill/firedrill/services/mirror/zfs"
)

// dataset is a source that is read as it was at one moment. Its methods do nothing for
// nil, which stands for a source that is none.
type dataset struct {
	host    *zfs.Host
	reading *zfs.Reading
	// asOf is just before the moment: what is written from then on may not be read.
	asOf time.Time
	// last is what the last run read that came to its end; nil if that is not known, or
	// not there any more.
	last *zfs.Snapshot
	// children are other datasets in its tree, which it was not read with; at has their
	// paths.
	children []zfs.Child
	at       map[string]bool
}

// lastName is the document that says what the last run has read.
const lastName = "dataset"

// lastRead is the snapshot that was kept by the last run that came to its end.
type lastRead struct {
	GUID uint64 `json:"guid"`
}

// openDataset takes a snapshot and reads that, so that the source stands still.
func (j *Job) openDataset(ctx context.Context, l location.Location) (place.Place, error) {
	where := j.env.zfs
	where.Kind = cmp.Or(where.Kind, control.KindLocal)
	m, err := zfs.NewMachine(where)
	if err != nil {
		return nil, err
	}
	h, err := zfs.Open(ctx, m)
	if err != nil {
		return nil, err
	}
	var last lastRead
	if _, err := j.store.Load(lastName, &last); err != nil {
		return nil, fmt.Errorf("see what the last run has read: %w", err)
	}
	// The state's lock says that nobody else runs this mirror: what is there of it
	// was left by a crash.
	swept, err := h.Sweep(ctx, l.Path, j.spec.Name, last.GUID)
	if err != nil {
		return nil, fmt.Errorf("clear up after an interrupted run: %w", err)
	}
	d := &dataset{host: h, asOf: j.env.Now(), last: swept.Kept}
	if d.reading, err = h.Read(ctx, l.Path, zfs.ReadOptions{Job: j.spec.Name, Dir: j.env.dir(j.spec.Name)}); err != nil {
		return nil, err
	}
	j.cleanUp = append(j.cleanUp, d.reading.Close)
	// After the snapshot, so that none is missed that was there then.
	if d.children, err = h.Children(ctx, l.Path); err != nil {
		return nil, err
	}
	d.at = map[string]bool{}
	for _, c := range d.children {
		d.at[c.Path] = true
	}
	j.dataset, j.roots[plan.Source] = d, d.reading.Path
	return local.Open(ctx, d.reading.Path, local.Options{ReadOnly: true, Xattrs: j.spec.Xattrs, FS: d.reading.FS, Name: l.String()})
}

// moment is when the source was as it is read; zero if it is read as it is.
func (d *dataset) moment() time.Time {
	if d == nil {
		return time.Time{}
	}
	return d.asOf
}

// askFor is how many bytes a stream may have that is read only to see what was written:
// two seconds of it. Where more was, times have to tell.
const askFor = 1 << 30

// touched asks ZFS which files were written since the last run, and gives what tells of
// those, whatever their times say; nil if nothing is known.
func (d *dataset) touched(ctx context.Context) (func(entry.Entry) bool, error) {
	if d == nil || d.last == nil {
		return nil, nil
	}
	c, err := d.host.Changes(ctx, *d.last, d.reading.Snapshot, askFor)
	switch {
	case errors.Is(err, zfs.ErrTooMuch):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return func(e entry.Entry) bool { return c.MayDiffer(e.Change.Inode, e.Size) }, nil
}

// keep has the next run ask for what was written since the snapshot of this one, which
// has come to its end, and lets go that of the last. On a replica nothing is left.
func (d *dataset) keep(ctx context.Context, store *state.Store) error {
	if d == nil {
		return nil
	}
	replica, err := d.host.IsReplica(ctx, d.reading.Snapshot.Dataset)
	if err != nil {
		return err
	}
	if !replica {
		if err := store.Save(lastName, lastRead{d.reading.Snapshot.GUID}); err != nil {
			return err
		}
		d.reading.Keep()
	}
	if d.last == nil {
		return nil
	}
	err = d.host.Destroy(ctx, *d.last)
	if errors.Is(err, zfs.ErrBusy) || errors.Is(err, zfs.ErrCloned) {
		return nil // Somebody else needs it.
	}
	return err
}

// without leaves out of what takes part what lies in children: it was not read, so that
// nobody knows what is missing there. keep may be nil, for everything.
func (d *dataset) without(keep func(string, entry.Kind) bool) func(string, entry.Kind) bool {
	if d == nil || len(d.children) == 0 {
		return keep
	}
	return func(path string, kind entry.Kind) bool {
		for i := range len(path) + 1 {
			if (i == len(path) || path[i] == '/') && d.at[path[:i]] {
				return false
			}
		}
		return keep == nil || keep(path, kind)
	}
}

// errChild says that a snapshot holds nothing of what lies in a child.
var errChild = errors.New("a dataset of its own, of which a snapshot of the one above it holds nothing, so that neither side is looked at there")

// leftOut are the children that are not known to be left out on purpose.
func (j *Job) leftOut() (all []engine.LeftOut) {
	if j.dataset == nil || j.spec.OneFileSystem {
		return nil
	}
	for _, c := range j.dataset.children {
		if j.spec.filter.Match(c.Path, entry.Dir) {
			all = append(all, engine.LeftOut{Path: c.Path, Err: fmt.Errorf(
				"%s is %w: give it a mirror of its own, and leave it out here with the filter %q or with oneFileSystem (--one-file-system); dir: reads it with the rest, and not at one moment",
				c.Dataset, errChild, filter.Below(c.Path))})
		}
	}
	return all
}

// unlooked notes what a comparison did not look at, on either side.
func (j *Job) unlooked(v *Verified) {
	for _, l := range j.leftOut() {
		v.Verdict.Unchecked.Add(entry.Entry{Path: l.Path, Kind: entry.Dir}.Key(), l.Err.Error())
	}
}

package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/zfs"
)

// removing is how many entries are looked at and then deleted at once: what comes
// between the two is short.
const removing = 1000

// Remove deletes what is as it was seen: files first, then directories from the
// inside out. Servers have no condition for deleting, so that what is written
// between the look and the request goes too; in a bucket with versions it stays as
// one.
func (p *Place) Remove(ctx context.Context, have []entry.Entry) []error {
	return p.remove(ctx, have, nil)
}

// remove deletes, and puts what it deletes into a bin before, if there is one.
func (p *Place) remove(ctx context.Context, have []entry.Entry, bin *place.Bin) []error {
	errs := make([]error, len(have))
	var files, claimed []int
	dirs := map[int][]int{} // by depth
	for i, e := range have {
		switch {
		case !plan.Present(e):
			errs[i] = fmt.Errorf("remove from %s: the root itself is not removed", p)
		case e.Kind != entry.Dir && zfs.InArchive(e.Key()):
			claimed = append(claimed, i)
		case e.Kind == entry.Dir:
			depth := strings.Count(e.Path, "/")
			dirs[depth] = append(dirs[depth], i)
		default:
			files = append(files, i)
		}
	}
	each(len(claimed), func(n int) { i := claimed[n]; errs[i] = p.unclaimed(ctx, "remove", have[i].Key()) })
	for _, i := range claimed {
		if errs[i] == nil {
			files = append(files, i)
		}
	}
	for chunk := range slices.Chunk(files, removing) {
		chunk = p.aside(ctx, bin, have, chunk, errs)
		p.removeFiles(ctx, have, chunk, errs)
	}
	for _, depth := range slices.Backward(slices.Sorted(maps.Keys(dirs))) {
		chosen := p.aside(ctx, bin, have, dirs[depth], errs)
		p.removeDirs(ctx, have, chosen, errs)
	}
	return errs
}

// unclaimed makes sure that an object which is named like a part of an archive was put there
// by a mirror: of such alone it asks.
func (p *Place) unclaimed(ctx context.Context, op, key string) error {
	if !zfs.InArchive(key) {
		return nil
	}
	switch o, err := p.b.Stat(ctx, key); {
	case err != nil && !errors.Is(err, bucket.ErrNotFound):
		return explain(err)
	case err == nil && isForeign(o):
		return fmt.Errorf("%s %q in %s: %w", op, key, p, place.ErrClaimed)
	}
	return nil
}

func (p *Place) removeFiles(ctx context.Context, have []entry.Entry, chosen []int, errs []error) {
	keys := make([]wanted, len(chosen))
	for n, i := range chosen {
		keys[n].key = have[i].Key()
	}
	var good []int
	for n, f := range p.survey(ctx, keys) {
		i := chosen[n]
		switch {
		case f.err != nil:
			errs[i] = f.err
		case !f.there:
		default:
			if why := p.differs(have[i], f.object); why != "" {
				errs[i] = p.changed("remove", keys[n].key, why)
				continue
			}
			good = append(good, i)
		}
	}
	p.deleteAll(ctx, have, good, errs)
}

// deleteAll deletes the chosen entries, which were looked at.
func (p *Place) deleteAll(ctx context.Context, have []entry.Entry, chosen []int, errs []error) {
	if len(chosen) == 0 {
		return
	}
	keys := make([]string, len(chosen))
	for n, i := range chosen {
		keys[n] = have[i].Key()
	}
	failed := map[string]error{}
	if many, ok := errors.AsType[*bucket.KeysError](p.b.Delete(ctx, keys)); ok {
		for _, f := range many.Failed {
			failed[f.Key] = f.Err
		}
	}
	for n, i := range chosen {
		errs[i] = explain(failed[keys[n]])
	}
}

// removeDirs removes directories of which none lies in another.
func (p *Place) removeDirs(ctx context.Context, have []entry.Entry, chosen []int, errs []error) {
	there := make([]bool, len(have))
	each(len(chosen), func(n int) { i := chosen[n]; there[i], errs[i] = p.isEmpty(ctx, have[i]) })
	p.deleteAll(ctx, have, slices.DeleteFunc(slices.Clone(chosen), func(i int) bool { return !there[i] || errs[i] != nil }), errs)
}

// isEmpty reports whether there is an object for the directory; the error is
// [place.ErrNotEmpty] if something lies in it.
func (p *Place) isEmpty(ctx context.Context, dir entry.Entry) (there bool, err error) {
	key := dir.Key()
	for o, err := range p.b.List(ctx, bucket.ListOptions{Prefix: key, PageSize: 2}) {
		switch {
		case err != nil:
			return false, err
		case o.Key != key:
			return there, fmt.Errorf("remove %q from %s: %w: there is %q", key, p, place.ErrNotEmpty, o.Key)
		}
		there = true
	}
	return there, nil
}

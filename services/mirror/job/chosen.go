package job

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// What is brought back is sorted first, in files, as there may be any number of it: each
// directory comes before what lies in it, and of each path the oldest first.

// both reports whether a file and a directory may have one name, on both sides.
func (r *restoring) both() bool {
	return r.plain[plan.Source].Traits().Both && r.plain[plan.Dest].Traits().Both
}

// orderTime sorts as times do.
const orderTime = "20060102T150405.000000000"

// order is what something deleted is sorted by, and what is remembered of it beside its
// entry. No name holds a NUL.
func (r *restoring) order(d Deleted) string {
	apart, kind := "", ""
	if d.Entry.Kind == entry.Dir {
		kind = "/"
	}
	if r.both() {
		apart, kind = kind, ""
	}
	return strings.Join([]string{
		strings.ReplaceAll(d.Entry.Path, "/", "\x00") + "\x00", apart,
		d.Bin.At.UTC().Format(orderTime), strconv.Itoa(int(d.Side)), d.Bin.Of, d.Bin.Run, kind,
	}, "\x00")
}

// recalled is the inverse of order. of is equal of all that compete for one name.
func recalled(p plan.Past) (d Deleted, of string, err error) {
	fields := strings.Split(p.Key, "\x00")
	if len(fields) < 6 {
		return d, "", fmt.Errorf("sort what was deleted: %q is not what was added", p.Key)
	}
	last := fields[len(fields)-5:]
	side, err := strconv.Atoi(last[1])
	if err != nil {
		return d, "", err
	}
	d.Side, d.Entry, d.Bin.Of, d.Bin.Run = plan.Side(side), p.Source, last[2], last[3]
	d.Bin.At, err = time.Parse(orderTime, last[0])
	return d, strings.Join(fields[:len(fields)-5], "\x00"), err
}

// asked reports whether something deleted is to be brought back for its own sake, and not
// only if something in it is.
func (r *restoring) asked(d Deleted) bool {
	return (r.o.Run == "" || r.o.Run == d.Bin.Run) && (place.KeptOptions{Under: r.o.Under}).Takes(d.Entry.Path)
}

// choose sorts what was deleted: what is asked for, and the directories above it.
func (r *restoring) choose() error {
	seeks := newSought(r.spec.Name, r.o.DeletedOptions)
	for d, err := range r.deleted(r.ctx, r.o.DeletedOptions, place.KeptOptions{Under: r.o.Under, Above: true}) {
		if bad, is := errors.AsType[*place.KeptError](err); is {
			if r.o.Run == "" || r.o.Run == d.Bin.Run {
				d.Entry.Path = bad.Key
				r.count(&Restored{Deleted: d, Err: bad})
				seeks.sees(func(o place.KeptOptions) bool { return o.TakesKey(bad.Key) })
			}
			continue
		}
		if err != nil {
			return err
		}
		asked := r.asked(d)
		if !asked && d.Entry.Kind != entry.Dir {
			continue
		}
		if asked {
			seeks.sees(func(o place.KeptOptions) bool { return o.Takes(d.Entry.Path) })
		}
		if err := r.sorted.Add(plan.Past{Key: r.order(d), Source: d.Entry}); err != nil {
			return fmt.Errorf("mirror %s: %w", r.spec.Name, err)
		}
	}
	return seeks.missing()
}

// sought is what is asked for of all that was deleted.
type sought struct {
	mirror string
	DeletedOptions
	// found says which of the paths there are, some that there is anything.
	found []bool
	some  bool
}

func newSought(mirror string, o DeletedOptions) *sought {
	return &sought{mirror: mirror, DeletedOptions: o, found: make([]bool, len(o.Under))}
}

// sees notes something that was deleted: takes reports whether it is what options ask for.
func (s *sought) sees(takes func(place.KeptOptions) bool) {
	s.some = true
	for i, under := range s.Under {
		s.found[i] = s.found[i] || takes(place.KeptOptions{Under: []string{under}})
	}
}

// missing says what of it there is not: the error is ErrNothingDeleted.
func (s *sought) missing() error {
	of := ""
	if s.Run != "" {
		of = fmt.Sprintf(" by the run %q", s.Run)
	}
	if i := slices.Index(s.found, false); i >= 0 {
		return fmt.Errorf("mirror %s: %q: there is %w that was deleted there%s", s.mirror, s.Under[i], ErrNothingDeleted, of)
	}
	if !s.some {
		return fmt.Errorf("mirror %s: there is %w that was deleted%s", s.mirror, ErrNothingDeleted, of)
	}
	return nil
}

// newest gives of each path the newest that is asked for, or else the newest.
func (r *restoring) newest() iter.Seq2[Deleted, error] {
	return func(yield func(Deleted, error) bool) {
		var best Deleted
		name := ""
		for p, err := range r.sorted.All() {
			var d Deleted
			of := ""
			if err == nil {
				d, of, err = recalled(p)
			}
			if err != nil {
				yield(Deleted{}, fmt.Errorf("mirror %s: %w", r.spec.Name, err))
				return
			}
			if of != name {
				if name != "" && !yield(best, nil) {
					return
				}
				best, name = d, of
			} else if r.asked(d) || !r.asked(best) {
				best = d
			}
		}
		if name != "" {
			yield(best, nil)
		}
	}
}

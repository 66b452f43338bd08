package job

import (
	"context"
	"iter"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// ruling says what the rules of a side make of its entries. They come in the order of their
// keys, so that it knows the directory that each lies in. It is used by one goroutine.
type ruling struct {
	rules []right
	// look gives the directory that the side holds at a path, "" being the root; false if
	// none. It is asked for those that did not come by.
	look func(ctx context.Context, path string) (entry.Entry, bool, error)
	// above are the directories that the last entry lay in, as the rules make them; nil
	// where no rule asks.
	above []entry.Entry
}

// inherits reports whether a rule asks for the directory that an entry lies in.
func inherits(rules []right) bool {
	for _, r := range rules {
		if r.inherit {
			return true
		}
	}
	return false
}

// apply gives the entry the attributes that the rules want; false if it has them.
func (u *ruling) apply(ctx context.Context, e entry.Entry) (entry.Entry, bool, error) {
	var in entry.Entry
	if inherits(u.rules) {
		var err error
		if in, err = u.dir(ctx, parent(e.Path)); err != nil {
			return e, false, err
		}
	}
	want := u.within(in, e)
	if in.Kind == entry.Dir && e.Kind == entry.Dir {
		u.above = append(u.above, want)
	}
	return want, want.Mode != e.Mode || want.UID != e.UID || want.GID != e.GID, nil
}

// within gives the attributes that the rules want to what lies in a directory.
func (u *ruling) within(in, e entry.Entry) entry.Entry {
	if e.Kind == entry.Symlink {
		return e // its mode means nothing, and its owner next to nothing
	}
	was, given := e, false
	for i := range u.rules {
		r := &u.rules[i]
		if r.match.Match(e.Path, e.Kind) {
			continue
		}
		mode := r.files
		if e.Kind == entry.Dir {
			mode = r.dirs
		}
		if mode != nil {
			e.Mode, given = *mode, true
		}
		if r.uid != nil {
			e.UID = *r.uid
		}
		if r.gid != nil {
			e.GID = *r.gid
		}
		if r.inherit {
			e = born(in, e)
		}
	}
	if e.Kind != entry.Dir && !given && (e.UID != was.UID || e.GID != was.GID) {
		// As with chown: what anybody may have made is no program that runs as another one.
		e.Mode &^= unix.S_ISUID | unix.S_ISGID
	}
	return e
}

// born gives an entry what the kernel gives to one that is made in the directory.
func born(in, e entry.Entry) entry.Entry {
	if in.Mode&unix.S_ISGID == 0 {
		return e
	}
	if e.GID = in.GID; e.Kind == entry.Dir {
		e.Mode |= unix.S_ISGID
	}
	return e
}

// dir gives a directory as the rules make it. A bucket need not list those that its keys
// imply: the side may have it, or gets it made in the one above.
func (u *ruling) dir(ctx context.Context, path string) (entry.Entry, error) {
	for n := len(u.above); n > 0; n-- {
		if top := u.above[n-1]; top.Path == path {
			return top, nil
		} else if top.Path == "" || len(path) > len(top.Path) && path[:len(top.Path)] == top.Path && path[len(top.Path)] == '/' {
			break
		}
		u.above = u.above[:n-1]
	}
	e, there, err := u.look(ctx, path)
	if err != nil {
		return e, err
	}
	if path != "" {
		in, err := u.dir(ctx, parent(path))
		if err != nil {
			return e, err
		}
		if !there {
			e = born(in, entry.Entry{Path: path, Kind: entry.Dir, Mode: 0o755, GID: uint32(os.Getegid())})
		}
		e = u.within(in, e)
	}
	u.above = append(u.above, e)
	return e, nil
}

// ruled is the source as it is to be copied: what is copied anew has the right attributes
// from its first moment, and a run that finds nothing new changes nothing.
type ruled struct {
	place.Place
	ruling
	// asked, if not nil, is told what the rules were asked about.
	asked *asked
}

// asked counts what a walk of the source has shown.
type asked struct {
	// differs is how many entries the rules want otherwise, files how many are no directory.
	differs, files int64
	// planned are, by key, what a dry run would write to the destination, and delete there,
	// where its rules set what no plan sees.
	planned map[string]bool
}

// Entries implements place.Place.
func (r ruled) Entries(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		rules := r.ruling
		for e, err := range r.Place.Entries(ctx, o) {
			if err == nil {
				var altered bool
				if e, altered, err = rules.apply(ctx, e); altered && !e.Change.OfInode() {
					// Nobody may take it, later and by other rules, for what the bucket holds.
					e.Change = entry.Change{}
				}
				r.asked.about(e, altered)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (a *asked) about(e entry.Entry, altered bool) {
	if a == nil {
		return
	}
	if altered {
		a.differs++
	}
	if e.Kind != entry.Dir {
		a.files++
	}
}

// Look implements place.Place.
func (r ruled) Look(ctx context.Context, e entry.Entry) (entry.Entry, bool, error) {
	e, there, err := r.Place.Look(ctx, e)
	if there && err == nil {
		rules := r.ruling // which knows no directory yet
		e, _, err = rules.apply(ctx, e)
	}
	return e, there, err
}

// plainly is a place without rules.
func plainly(p place.Place) place.Place {
	for {
		r, is := p.(ruled)
		if !is {
			return p
		}
		p = r.Place
	}
}

// ruling begins a walk by the rules of a side.
func (j *Job) ruling(side plan.Side) ruling {
	return ruling{rules: j.spec.rights[side], look: func(ctx context.Context, path string) (entry.Entry, bool, error) {
		if path != "" {
			return plainly(j.places[side]).Look(ctx, entry.Entry{Path: path, Kind: entry.Dir})
		}
		root, err := lookAtRoot(j.roots[side])
		return entry.Entry{Kind: entry.Dir, Mode: root.Mode, UID: root.UID, GID: root.GID}, err == nil, err
	}}
}

// ruledBy is the source with what the rules of a side make of it.
func (j *Job) ruledBy(side plan.Side, p place.Place, a *asked) place.Place {
	if len(j.spec.rights[side]) == 0 {
		return p
	}
	return ruled{p, j.ruling(side), a}
}

// copied are the places of a run: the source as its own rules are about to make it, and as
// the destination's want the copy to be. a is told of the former; it may be nil.
func (j *Job) copied(a *asked) [2]place.Place {
	if len(j.spec.rights[plan.Source]) == 0 {
		return j.places
	}
	source := j.ruledBy(plan.Source, plainly(j.places[plan.Source]), a)
	return [2]place.Place{plan.Source: j.ruledBy(plan.Dest, source, nil), plan.Dest: j.places[plan.Dest]}
}

// remembered is an entry, which a side holds, as a run would remember it.
func (j *Job) remembered(ctx context.Context, side plan.Side, e entry.Entry) (entry.Entry, error) {
	for _, s := range []plan.Side{plan.Source, plan.Dest} {
		if s < side || len(j.spec.rights[s]) == 0 {
			continue
		}
		rules := j.ruling(s)
		var err error
		if e, _, err = rules.apply(ctx, e); err != nil {
			return e, err
		}
	}
	return e, nil
}

// parent is the path of the directory that a path lies in.
func parent(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

package job

import (
	"context"
	"fmt"
	"iter"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
)

// right is a rule for modes and owners, understood.
type right struct {
	match       *filter.Filter
	files, dirs *uint32
	uid, gid    *uint32
}

func parseRights(mirror string, rules []drill.Permission) ([]right, error) {
	var out []right
	for i, p := range rules {
		at := fmt.Sprintf("permissions[%d]", i)
		r := right{}
		var err error
		// What the pattern matches is excluded by this filter, which includes the rest.
		if r.match, err = filter.Parse([]string{"- " + p.Match}); err != nil {
			return nil, &SpecError{mirror, at + ".match", err.Error(), "mend the pattern"}
		}
		for _, m := range []struct {
			field, text string
			to          **uint32
		}{{"files", p.Files, &r.files}, {"dirs", p.Dirs, &r.dirs}} {
			if *m.to, err = parseMode(m.text); err != nil {
				return nil, &SpecError{mirror, at + "." + m.field, fmt.Sprintf("%q is no mode", m.text), `write it in octal, such as "0640"`}
			}
		}
		for _, who := range owners(p) {
			id, err := lookUp(who.name, who.byName)
			if err != nil {
				return nil, &SpecError{mirror, at + "." + who.field, err.Error(), who.fix}
			}
			if who.field == "owner" {
				r.uid = id
			} else {
				r.gid = id
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// Strangers finds the users and groups in rules that this machine does not know: a run
// here would be refused. Their fields are those of [drill.Mirror].
func Strangers(rules []drill.Permission) (out []drill.Problem) {
	for i, p := range rules {
		for _, who := range owners(p) {
			if _, err := lookUp(who.name, who.byName); err != nil {
				out = append(out, drill.Problem{Field: fmt.Sprintf("permissions[%d].%s", i, who.field), Value: who.name,
					Fix: fmt.Sprintf("%v on this machine: %s", err, who.fix)})
			}
		}
	}
	return out
}

// ownerField is a field of a rule that names a user or a group.
type ownerField struct {
	field, name, fix string
	byName           func(string) (string, error)
}

func owners(p drill.Permission) [2]ownerField {
	return [2]ownerField{
		{"owner", p.Owner, "make that user, or give its name in /etc/passwd or its number", func(n string) (string, error) {
			u, err := user.Lookup(n)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}},
		{"group", p.Group, "make that group, or give its name in /etc/group or its number", func(n string) (string, error) {
			g, err := user.LookupGroup(n)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		}},
	}
}

func parseMode(s string) (*uint32, error) {
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return nil, err
	}
	mode := uint32(n)
	return &mode, nil
}

func lookUp(s string, byName func(string) (string, error)) (*uint32, error) {
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		number, lerr := byName(s)
		if lerr != nil {
			return nil, lerr
		}
		if n, err = strconv.ParseUint(number, 10, 32); err != nil {
			return nil, fmt.Errorf("the number %q of %q: %w", number, s, err)
		}
	}
	id := uint32(n)
	return &id, nil
}

// apply gives the entry the attributes that the rules want; false if it has them.
func apply(rules []right, e entry.Entry) (entry.Entry, bool) {
	if e.Kind == entry.Symlink {
		return e, false // its mode means nothing, and its owner next to nothing
	}
	was := e
	for _, r := range rules {
		if r.match.Match(e.Path, e.Kind) {
			continue
		}
		mode := r.files
		if e.Kind == entry.Dir {
			mode = r.dirs
		}
		if mode != nil {
			e.Mode = *mode
		}
		if r.uid != nil {
			e.UID = *r.uid
		}
		if r.gid != nil {
			e.GID = *r.gid
		}
	}
	return e, e.Mode != was.Mode || e.UID != was.UID || e.GID != was.GID
}

// ruled is a source as the rules want its copy to be: what is copied anew has the
// right attributes from its first moment, and a run that finds nothing new changes
// nothing.
type ruled struct {
	place.Place
	rules []right
}

// Entries implements place.Place.
func (r ruled) Entries(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for e, err := range r.Place.Entries(ctx, o) {
			e, altered := apply(r.rules, e)
			if altered && !e.Change.OfInode() {
				// Nobody may take it, later and by other rules, for what the bucket holds.
				e.Change = entry.Change{}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Look implements place.Place.
func (r ruled) Look(ctx context.Context, e entry.Entry) (entry.Entry, bool, error) {
	e, there, err := r.Place.Look(ctx, e)
	e, _ = apply(r.rules, e)
	return e, there, err
}

// settable refuses rules about owners where this process may not give files away:
// no run would ever be done.
func (j *Job) settable() error {
	if j.places[plan.Dest].Traits().Lists&plan.AttrOwner != 0 {
		return nil
	}
	for i, r := range j.spec.rights {
		if r.uid != nil || r.gid != nil {
			field := "owner"
			if r.uid == nil {
				field = "group"
			}
			return &SpecError{j.spec.Name, fmt.Sprintf("permissions[%d].%s", i, field), "this process may not change owners", "leave owner and group out, or run it as root"}
		}
	}
	return nil
}

// disowned reports whether what a run has done leaves an entry with an owner or a group
// that is not the other side's, because this process may not change owners there.
func (j *Job) disowned(d *engine.Done, dry bool) bool {
	a := &d.Action
	switch {
	case d.Err != nil, a.Op != plan.Put && a.Op != plan.MakeDir && a.Op != plan.Meta:
		return false
	case j.places[a.To].Traits().Lists&plan.AttrOwner != 0:
		return false
	}
	want, got := a.At(a.To.Other()), a.At(a.To)
	if dry {
		// What it would be written as. The group is that of a setgid directory for what is made
		// in one, which is not known here.
		return int64(want.UID) != int64(os.Geteuid()) || int64(want.GID) != int64(os.Getegid())
	}
	return want.UID != got.UID || want.GID != got.GID
}

// mendRights sets modes and owners in the destination by the job's rules: after
// the copy, never beside it. It returns how many entries were changed; what could
// not be changed is in the report. pass, if not nil, is asked before each, as by the run.
func (j *Job) mendRights(ctx context.Context, pass func(context.Context) error, report *engine.Report) (int64, error) {
	if len(j.spec.rights) == 0 {
		return 0, nil
	}
	dest := j.places[plan.Dest]
	n := int64(0)
	for e, err := range dest.Entries(ctx, j.listOptions()) {
		if err == nil && pass != nil {
			err = pass(ctx)
		}
		if err != nil {
			return n, fmt.Errorf("set permissions in %s: %w", dest, err)
		}
		want, differs := apply(j.spec.rights, e)
		if !differs {
			continue
		}
		if _, err := dest.SetAttrs(ctx, want, e); err != nil {
			if ctx.Err() != nil {
				return n, fmt.Errorf("set permissions in %s: %w", dest, ctx.Err())
			}
			report.Fail(e.Key(), plan.Meta, err)
			continue
		}
		n++
	}
	if n == 0 {
		return 0, nil
	}
	if err := dest.Finish(ctx); err != nil {
		return n, fmt.Errorf("set permissions in %s: %w", dest, err)
	}
	return n, j.distrust()
}

// distrust has the next run list the destination: what is remembered of it is not
// what is there any more.
func (j *Job) distrust() error {
	facts, known, err := j.Facts()
	if err == nil && known && !facts.Listed.IsZero() {
		facts.Listed = time.Time{}
		err = j.store.Save(engine.FactsName, facts)
	}
	if err != nil {
		return fmt.Errorf("mirror %s: %w", j.spec.Name, err)
	}
	return nil
}

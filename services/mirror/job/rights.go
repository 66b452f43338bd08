package job

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
)

// right is a rule for modes and owners, understood.
type right struct {
	// at is the rule's place in the inventory.
	at          string
	match       *filter.Filter
	files, dirs *uint32
	uid, gid    *uint32
	// inherit is the group that a setgid directory gives.
	inherit bool
}

// sideOf is the side that a rule is for.
func sideOf(p drill.Permission) plan.Side {
	if p.Side == drill.SideSource {
		return plan.Source
	}
	return plan.Dest
}

func parseRights(mirror string, rules []drill.Permission) ([2][]right, error) {
	var out [2][]right
	for i, p := range rules {
		at := fmt.Sprintf("permissions[%d]", i)
		if !slices.Contains([]string{"", drill.SideSource, drill.SideDestination}, p.Side) {
			return out, &SpecError{mirror, at + ".side", fmt.Sprintf("%q is no side", p.Side), "use source or destination"}
		}
		r := right{at: at, inherit: p.Group == drill.GroupInherit}
		var err error
		// What the pattern matches is excluded by this filter, which includes the rest.
		if r.match, err = filter.Parse([]string{"- " + p.Match}); err != nil {
			return out, &SpecError{mirror, at + ".match", err.Error(), "mend the pattern"}
		}
		for _, m := range []struct {
			field, text string
			to          **uint32
		}{{"files", p.Files, &r.files}, {"dirs", p.Dirs, &r.dirs}} {
			if *m.to, err = parseMode(m.text); err != nil {
				return out, &SpecError{mirror, at + "." + m.field, fmt.Sprintf("%q is no mode", m.text), `write it in octal, such as "0640"`}
			}
		}
		for _, who := range owners(p) {
			id, err := lookUp(who.name, who.byName)
			if err != nil {
				return out, &SpecError{mirror, at + "." + who.field, err.Error(), who.fix}
			}
			if who.field == "owner" {
				r.uid = id
			} else {
				r.gid = id
			}
		}
		side := sideOf(p)
		out[side] = append(out[side], r)
	}
	return out, nil
}

// Unruled finds the rules for permissions that no run of a mirror between two places could
// follow. The fields are those of [drill.Mirror].
func Unruled(m drill.Mirror, from, to location.Location) (out []drill.Problem) {
	for _, u := range unruled(m, from, to) {
		out = append(out, drill.Problem{Field: u.field, Value: u.value, Fix: u.why + ": " + u.fix})
	}
	return out
}

// ruleless says why there can be no rules for a side, and what to do.
type ruleless struct{ field, value, why, fix string }

// unruled finds, for each side that there are rules for, why there can be none.
func unruled(m drill.Mirror, from, to location.Location) (out []ruleless) {
	for side, at := range []location.Location{plan.Source: from, plan.Dest: to} {
		i := slices.IndexFunc(m.Permissions, func(p drill.Permission) bool { return sideOf(p) == plan.Side(side) })
		if i < 0 {
			continue
		}
		u := ruleless{field: "permissions", value: m.Permissions[i].Side}
		if u.value != "" {
			u.field = fmt.Sprintf("permissions[%d].side", i)
		}
		switch {
		case plan.Side(side) == plan.Dest && m.Overwrite == drill.OverwriteUnedited:
			u.why, u.fix = "they change what was edited, too, which overwrite: unedited is to leave alone", "leave one of them out"
		case m.Mode == drill.MirrorTwoWay:
			u.why, u.fix = "what is set on one side a two-way mirror carries to the other like any edit", "leave permissions out, or mirror one way (mode copy or mirror)"
		case at.IsBucket() && plan.Side(side) == plan.Source:
			u.why, u.fix = "a bucket has none", "leave them out, or write side: destination for the directory that is mirrored into"
		case at.IsBucket():
			u.why, u.fix = "a bucket has none", "leave them out, mirror into a directory, or write side: source for the directory that is mirrored"
		case at.Scheme == location.ZFS && plan.Side(side) == plan.Source:
			u.why, u.fix = "a snapshot cannot be written to", "name the dataset's mount point with dir: in from, or leave them out"
		default:
			continue
		}
		out = append(out, u)
	}
	return out
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
	group := p.Group
	if group == drill.GroupInherit {
		group = ""
	}
	return [2]ownerField{
		{"owner", p.Owner, "make that user, or give its name in /etc/passwd or its number", func(n string) (string, error) {
			u, err := user.Lookup(n)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}},
		{"group", group, "make that group, or give its name in /etc/group or its number", func(n string) (string, error) {
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

// settable refuses rules about owners where this process may not give files away: no run would
// ever be done. To a group that it is in, and to that of a directory if it is in that, it may
// give what it owns.
func (j *Job) settable() error {
	for side, rules := range j.spec.rights {
		if j.places[side].Traits().Lists&plan.AttrOwner != 0 {
			continue
		}
		for _, r := range rules {
			switch {
			case r.uid != nil:
				return &SpecError{j.spec.Name, r.at + ".owner", "this process may not change owners", "leave it out, or run it as root"}
			case r.gid != nil && !inGroup(*r.gid):
				return &SpecError{j.spec.Name, r.at + ".group", fmt.Sprintf("this process is not in the group %d, to which only root may give files then", *r.gid),
					"name one that it is in, put its user into that group and log in anew, write group: inherit, or run it as root"}
			}
		}
	}
	return nil
}

// inGroup reports whether this process is in a group.
func inGroup(gid uint32) bool {
	groups, err := os.Getgroups()
	return int(gid) == os.Getegid() || err == nil && slices.Contains(groups, int(gid))
}

// groupsAlone reports whether the destination's rules set groups that no plan sees, as this
// process may not change owners.
func (j *Job) groupsAlone() bool {
	return j.places[plan.Dest].Traits().Lists&plan.AttrOwner == 0 &&
		slices.ContainsFunc(j.spec.rights[plan.Dest], func(r right) bool { return r.gid != nil || r.inherit })
}

// groupRuled reports whether a rule of a side names the group of an entry: it is set after the
// copy.
func (j *Job) groupRuled(side plan.Side, e entry.Entry) bool {
	return e.Kind != entry.Symlink && slices.ContainsFunc(j.spec.rights[side], func(r right) bool {
		return r.gid != nil && !r.match.Match(e.Path, e.Kind)
	})
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
		got.UID, got.GID = uint32(os.Geteuid()), uint32(os.Getegid())
	}
	return want.UID != got.UID || want.GID != got.GID && !j.groupRuled(a.To, want)
}

// foresee notes, of a dry run, what is planned for the destination whose group is set by rules
// after the copy, and counts it.
func (j *Job) foresee(d *engine.Done, a *asked, res *Result) {
	if d.Action.To != plan.Dest || d.Err != nil || !d.Action.Op.Changes() || d.Action.Op == plan.Meta {
		return
	}
	a.planned[d.Action.Key] = true
	if e := d.Action.Source; d.Action.Op != plan.Delete && e.GID != uint32(os.Getegid()) && j.groupRuled(plan.Dest, e) {
		res.Mended[plan.Dest]++
	}
}

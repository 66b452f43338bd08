package mirror

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
	"github.com/firedrill/firedrill/services/mirror/snapshots"
)

// CheckInventory finds what would keep the mirrors of an inventory from being run,
// as far as that can be told without looking into a place: of directories no more is
// looked at than where links lead. It is a [drill.InventoryCheck].
func CheckInventory(inv drill.Inventory) []drill.Problem {
	var out []drill.Problem
	for i, m := range inv.Spec.Mirrors {
		for _, p := range Check(m, inv.Spec.Stores) {
			p.Field = fmt.Sprintf("spec.mirrors[%d].%s", i, p.Field)
			out = append(out, p)
		}
	}
	all := understood(inv.Spec)
	for _, m := range all {
		out = append(out, m.intoItself()...)
	}
	out = append(out, againstEachOther(all)...)
	sure, _ := disputes(all)
	return append(out, sure...)
}

// Doubts finds what of a valid inventory may not be what was meant, or may go wrong: it
// depends on what there is in the mirrors' places. The fields are those of the inventory.
func Doubts(inv drill.Inventory) []drill.Problem {
	_, out := disputes(understood(inv.Spec))
	for i, m := range inv.Spec.Mirrors {
		for k, p := range m.Permissions {
			if mode, err := strconv.ParseUint(p.Files, 8, 12); err == nil && mode&0o6000 != 0 {
				out = append(out, drill.Problem{Field: fmt.Sprintf("spec.mirrors[%d].permissions[%d].files", i, k), Value: p.Files,
					Fix: fmt.Sprintf("who runs a file that %q names, runs it as its owner or its group (setuid, setgid): if that is meant for directories only, write it in dirs", p.Match)})
			}
		}
	}
	return out
}

// copies reports whether a mirror is a copy.
func copies(m drill.Mirror) bool { return m.Mode == "" || m.Mode == drill.MirrorCopy }

// againstEachOther finds mirrors that delete what others of them have written, or write
// over what others have not carried yet.
func againstEachOther(ms []numbered) (out []drill.Problem) {
	for i, m := range ms {
		for _, other := range ms[:i] {
			switch {
			case m.Snapshots != nil && other.Snapshots != nil:
				out = append(out, m.intoOne(other)...)
			case m.Snapshots != nil || other.Snapshots != nil:
				out = append(out, m.overArchive(other)...)
			default:
				out = append(out, m.against(other)...)
			}
		}
	}
	return out
}

// numbered is a mirror at its place in the inventory. The locations are by their one name,
// as far as that is known.
type numbered struct {
	drill.Mirror
	number   int
	from, to location.Location
}

// patience is how long it is waited for where links lead: a mount that does not answer says
// it never.
const patience = 2 * time.Second

// understood leaves out mirrors whose locations are none.
func understood(spec drill.InventorySpec) (all []numbered) {
	for i, m := range spec.Mirrors {
		n := numbered{Mirror: m, number: i}
		var err1, err2 error
		n.from, err1 = location.Parse(m.From)
		n.to, err2 = location.Parse(m.To)
		if err1 == nil && err2 == nil {
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return nil
	}
	env := job.Env{Stores: spec.Stores}
	found := make(chan []numbered, 1)
	go func() { // which goes on with such a mount alone
		settled := slices.Clone(all)
		for i := range settled {
			settled[i].from, settled[i].to = env.Settled(settled[i].from), env.Settled(settled[i].to)
		}
		found <- settled
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case settled := <-found:
		return settled
	case <-late.C:
		return all
	}
}

// intoItself finds that the two places of a mirror, which are written as if they were apart,
// are not.
func (m numbered) intoItself() []drill.Problem {
	from, err1 := location.Parse(m.From)
	to, err2 := location.Parse(m.To)
	if err1 != nil || err2 != nil || m.Snapshots != nil || location.Overlap(from, to) || !location.Overlap(m.from, m.to) {
		return nil // or Check says so
	}
	return []drill.Problem{m.problem("to", m.To, fmt.Sprintf("this and %s lie within each other: they are %s and %s; name places that are apart", m.From, m.to, m.from))}
}

// against finds what is wrong between a mirror and one before it.
func (m numbered) against(other numbered) []drill.Problem {
	back := location.Overlap(m.to, other.from) && location.Overlap(m.from, other.to)
	p := m.problem("to", m.To, "")
	switch {
	case (!copies(m.Mirror) || !copies(other.Mirror)) && location.Overlap(m.to, other.to):
		p.Fix = fmt.Sprintf("mirror %s writes to %s, and each would delete what the other brings: give them places that are apart", other.Name, other.To)
	case back && !copies(m.Mirror) && !copies(other.Mirror):
		p.Fix = fmt.Sprintf("mirror %s goes the other way, and each would undo what is new on the other side: make one of them a copy, or both one in mode two-way", other.Name)
	case back && m.reverts(other):
		p = stale(m.number, m.Mirror, other.Mirror)
	case back && other.reverts(m):
		p = stale(other.number, other.Mirror, m.Mirror)
	default:
		return nil
	}
	return []drill.Problem{p}
}

// overwrites reports whether a mirror is a copy that writes over what was edited.
func (m numbered) overwrites() bool {
	return copies(m.Mirror) && m.Overwrite != drill.OverwriteUnedited
}

// reverts reports whether a copy writes over what one that goes the other way has not
// carried yet, which does not leave alone what it finds either.
func (m numbered) reverts(other numbered) bool {
	return m.overwrites() && (!copies(other.Mirror) || other.overwrites())
}

// stale is the problem of a copy that goes back where another mirror comes from.
func stale(i int, m, other drill.Mirror) drill.Problem {
	return drill.Problem{
		Field: fmt.Sprintf("spec.mirrors[%d].overwrite", i), Value: m.Overwrite,
		Fix: fmt.Sprintf("mirror %s goes the other way, and this would write the older content over what that has not carried yet: write overwrite: unedited, which leaves alone and reports what was changed at %s", other.Name, m.To),
	}
}

// Check finds what is wrong with one mirror, whose buckets are in those stores or
// named by their address. The problems' fields are those of [drill.Mirror].
func Check(m drill.Mirror, stores []drill.Store) []drill.Problem {
	c := &checking{stores: stores}
	from, okFrom := c.location("from", m.From)
	to, okTo := c.location("to", m.To)
	if m.Snapshots != nil {
		if okFrom && okTo {
			c.problems = append(c.problems, snapshots.Check(m)...)
		}
		return c.problems
	}
	if !slices.Contains([]string{"", drill.MirrorCopy, drill.MirrorMirror, drill.MirrorTwoWay}, m.Mode) {
		c.add("mode", m.Mode, "this must be copy, mirror or two-way")
	}
	switch {
	case !slices.Contains([]string{"", drill.OverwriteAlways, drill.OverwriteUnedited}, m.Overwrite):
		c.add("overwrite", m.Overwrite, "this must be always or unedited")
	case m.Overwrite == drill.OverwriteUnedited && !copies(m):
		c.add("overwrite", m.Overwrite, "only a copy leaves alone what was edited: use mode copy; two-way reports what was changed on both sides")
	}
	switch {
	case m.KeepDeleted < 0:
		c.add("keepDeleted", m.KeepDeleted.String(), "this is how long what was deleted can be brought back, such as 168h, or 0 for not at all")
	case m.KeepDeleted > 0 && copies(m):
		c.add("keepDeleted", m.KeepDeleted.String(), "a copy deletes nothing: leave it out, or use mode mirror or two-way")
	}
	c.filter(m.Filter)
	for i, p := range m.Permissions {
		c.permission(fmt.Sprintf("permissions[%d]", i), p)
	}
	if !okFrom || !okTo {
		return c.problems
	}
	if location.Overlap(from, to) {
		c.add("to", m.To, fmt.Sprintf("this and %s lie within each other: name places that are apart", m.From))
	}
	if to.Scheme == location.ZFS {
		c.add("to", m.To, "a dataset is read through snapshots and cannot be written to: name its mount point with dir:")
	}
	if from.Scheme == location.ZFS && m.Mode == drill.MirrorTwoWay {
		c.add("from", m.From, "a snapshot cannot be written to: for two-way, name the dataset's mount point with dir:")
	}
	return append(c.problems, job.Unruled(m, from, to)...)
}

// checking collects problems.
type checking struct {
	stores   []drill.Store
	problems []drill.Problem
}

func (c *checking) add(field, value, fix string) {
	c.problems = append(c.problems, drill.Problem{Field: field, Value: value, Fix: fix})
}

func (c *checking) location(field, text string) (location.Location, bool) {
	l, err := location.Parse(text)
	if e, ok := errors.AsType[*location.SyntaxError](err); ok {
		c.add(field, e.Location, e.Fix)
		return l, false
	}
	if l.Store == "" || slices.ContainsFunc(c.stores, func(s drill.Store) bool { return s.Name == l.Store }) {
		return l, true
	}
	known := "it has none"
	if len(c.stores) > 0 {
		var names []string
		for _, s := range c.stores {
			names = append(names, s.Name)
		}
		known = "it has " + strings.Join(names, ", ")
	}
	c.add(field, text, fmt.Sprintf("the inventory has no store %q: add it to spec.stores; %s", l.Store, known))
	return l, false
}

func (c *checking) filter(rules []string) {
	for i, r := range rules {
		field := fmt.Sprintf("filter[%d]", i)
		if strings.TrimSpace(r) == "" {
			c.add(field, r, `the rule is empty: write "+ pattern" to include or "- pattern" to exclude, or leave it out`)
			continue
		}
		if _, err := filter.Parse([]string{r}); err != nil {
			c.rule(field, r, err)
		}
	}
}

// permission finds what of a rule for permissions would never do anything.
func (c *checking) permission(at string, p drill.Permission) {
	if p.Match != strings.TrimSpace(p.Match) {
		c.add(at+".match", p.Match, "blanks at its ends are no part of a pattern: leave them out, or write [ ] for one that the name has")
		return
	}
	match, err := filter.Parse([]string{"- " + p.Match})
	if err != nil {
		c.rule(at+".match", p.Match, err)
		return
	}
	paths, _ := filter.Samples(maxSamples, filter.Placed{Filter: match})
	ofDir := func(path string) bool { return !match.Match(path, entry.Dir) }
	if p.Dirs != "" && !slices.ContainsFunc(paths, ofDir) {
		c.add(at+".dirs", p.Dirs, fmt.Sprintf("%q is no pattern for directories, which end with / or **: write %q, leave this out, or give directories a rule of their own", p.Match, p.Match+"/"))
	}
}

func (c *checking) rule(field, value string, err error) {
	fix := err.Error()
	if e, ok := errors.AsType[*filter.RuleError](err); ok {
		fix = e.Problem + ": " + e.Fix
	}
	c.add(field, value, fix)
}

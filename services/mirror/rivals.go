package mirror

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
)

// Two mirrors whose rules for permissions want one entry otherwise would set it back and
// forth for ever. Whether there is, or can be, such an entry is asked of a few paths that stand
// for all, as what patterns tell of paths is finite.

// ruled is a directory in which a mirror sets modes and owners.
type ruled struct {
	numbered
	side  string
	at    location.Location
	keeps *filter.Filter
	rules []rule
	// writes says that the mirror brings what has no rule with its source's attributes.
	writes bool
}

// rule is one for a side of a mirror.
type rule struct {
	drill.Permission
	// number is its place among all rules of the mirror.
	number int
	match  *filter.Filter
}

// ruledBy gives the directories in which a mirror sets something. What is wrong with the mirror
// itself is for others to tell.
func ruledBy(m numbered) (out []ruled) {
	keeps, err := filter.Parse(m.Filter)
	if err != nil || m.Mode == drill.MirrorTwoWay || m.Snapshots != nil {
		return nil
	}
	for _, r := range []ruled{{side: drill.SideSource, at: m.from}, {side: drill.SideDestination, at: m.to, writes: true}} {
		// What is copied is what the source's rules make of it.
		if r.writes {
			r.rules = append(r.rules, rulesOf(m.Mirror, drill.SideSource)...)
		}
		r.rules = append(r.rules, rulesOf(m.Mirror, r.side)...)
		if r.at.Scheme == location.Dir && (r.writes || len(r.rules) > 0) {
			r.numbered, r.keeps = m, keeps
			out = append(out, r)
		}
	}
	return out
}

func rulesOf(m drill.Mirror, side string) (out []rule) {
	for i, p := range m.Permissions {
		match, err := filter.Parse([]string{"- " + p.Match})
		if err == nil && (p.Side == drill.SideSource) == (side == drill.SideSource) {
			out = append(out, rule{p, i, match})
		}
	}
	return out
}

// setting is what rules can set of an entry.
type setting struct {
	field string
	of    func(drill.Permission) string
	kinds []entry.Kind
}

func settings() []setting {
	both := []entry.Kind{entry.File, entry.Dir}
	return []setting{
		{"files", func(p drill.Permission) string { return p.Files }, both[:1]},
		{"dirs", func(p drill.Permission) string { return p.Dirs }, both[1:]},
		{"owner", func(p drill.Permission) string { return p.Owner }, both},
		{"group", func(p drill.Permission) string { return p.Group }, both},
	}
}

// decides is the index of the rule that sets something of an entry; -1 if none does.
func (r ruled) decides(s setting, path string, kind entry.Kind) int {
	for i, one := range slices.Backward(r.rules) {
		if s.of(one.Permission) != "" && !one.match.Match(path, kind) {
			return i
		}
	}
	return -1
}

// field names what a rule says.
func (r ruled) field(i int, s setting) string {
	return fmt.Sprintf("spec.mirrors[%d].permissions[%d].%s", r.number, r.rules[i].number, s.field)
}

// clash is what two rules say of one path.
type clash struct {
	one, other int
	path       string
}

// maxSamples is how many paths are tried: far more than the rules of people need.
const maxSamples = 2000

// disputes finds what the rules of mirrors contradict each other in: for sure, as one rule can
// set nothing that the other mirror's would not set back, or else perhaps, if there is a file
// that both are for.
func disputes(ms []numbered) (sure, perhaps []drill.Problem) {
	var all []ruled
	for _, m := range ms {
		for _, r := range ruledBy(m) {
			for _, other := range all {
				if other.number != m.number && len(r.rules)+len(other.rules) > 0 && location.Overlap(r.at, other.at) {
					s, p := r.dispute(other)
					sure, perhaps = append(sure, s...), append(perhaps, p...)
				}
			}
			all = append(all, r)
		}
	}
	return sure, perhaps
}

// dispute compares the rules of two places, of which one lies in the other.
func (r ruled) dispute(other ruled) (sure, perhaps []drill.Problem) {
	outer, inner := other, r
	if len(r.at.Path) < len(other.at.Path) {
		outer, inner = r, other
	}
	below := strings.TrimPrefix(strings.TrimPrefix(inner.at.Path, outer.at.Path), "/")
	asked := []filter.Placed{{Filter: outer.keeps, Dir: below}, {Filter: inner.keeps}}
	for _, one := range outer.rules {
		asked = append(asked, filter.Placed{Filter: one.match, Dir: below})
	}
	for _, one := range inner.rules {
		asked = append(asked, filter.Placed{Filter: one.match})
	}
	paths, all := filter.Samples(maxSamples, asked...)
	var overruled *drill.Problem
	for _, s := range settings() {
		c := comparison{outer: outer, inner: inner, below: below, setting: s, free: [2]map[int]bool{{}, {}}}
		c.compare(paths)
		switch p, certain := c.problem(r, other, all); {
		case certain:
			sure = append(sure, *p)
		case p != nil:
			perhaps = append(perhaps, *p)
		case overruled == nil:
			overruled = c.overruled()
		}
	}
	if overruled != nil {
		perhaps = append(perhaps, *overruled)
	}
	if !all {
		perhaps = append(perhaps, drill.Problem{Field: fmt.Sprintf("spec.mirrors[%d].permissions", r.number),
			Fix: fmt.Sprintf("the patterns are too many to tell whether mirror %s sets the same in %s: see to it that its rules agree", other.Name, inner.at)})
	}
	return sure, perhaps
}

// comparison is of one setting.
type comparison struct {
	setting
	outer, inner ruled
	// below is where inner lies in outer.
	below   string
	clashes []clash
	// lone is a path of which only one mirror sets anything, where the other brings what it has.
	lone *clash
	// free are the rules, of outer and of inner, that decide something that is not disputed.
	free [2]map[int]bool
}

func (c *comparison) compare(paths []string) {
	for _, p := range paths {
		for _, kind := range c.kinds {
			full := path.Join(c.below, p)
			if !c.outer.keeps.Match(full, kind) || !c.inner.keeps.Match(p, kind) {
				continue
			}
			one := clash{c.outer.decides(c.setting, full, kind), c.inner.decides(c.setting, p, kind), p}
			switch {
			case one.one < 0 && one.other < 0:
				continue
			case one.one >= 0 && one.other >= 0 && !c.agree(one):
				c.clashes = append(c.clashes, one)
				continue
			case c.lone == nil && (one.one < 0 && c.outer.overrules(c.inner) || one.other < 0 && c.inner.overrules(c.outer)):
				c.lone = &one
			}
			c.free[0][one.one], c.free[1][one.other] = true, true
		}
	}
}

// overrules reports whether a mirror gives what it writes other attributes than the rules of
// another one's, as far as that is known: what it brings back from where that has taken it has
// what those have made of it.
func (r ruled) overrules(other ruled) bool {
	return r.writes && (other.side != drill.SideSource || !location.Overlap(r.from, other.to))
}

// agree reports whether two rules set the same.
func (c *comparison) agree(one clash) bool {
	a, b := c.of(c.outer.rules[one.one].Permission), c.of(c.inner.rules[one.other].Permission)
	base := 10
	if c.field == "files" || c.field == "dirs" {
		base = 8
	}
	x, errX := strconv.ParseUint(a, base, 32)
	y, errY := strconv.ParseUint(b, base, 32)
	if errX == nil && errY == nil {
		return x == y
	}
	return a == b
}

// certain reports whether a clash is more than two rules that might be for one file: they are
// for the same names, or one of them sets nothing that is not set back.
func (c *comparison) certain(one clash, all bool) bool {
	a, b := c.outer.rules[one.one], c.inner.rules[one.other]
	if c.field == "owner" || c.field == "group" {
		// A name and a number, or what is inherited, may be the same.
		if number(c.of(a.Permission)) != number(c.of(b.Permission)) || c.of(a.Permission) == drill.GroupInherit || c.of(b.Permission) == drill.GroupInherit {
			return false
		}
	}
	return c.below == "" && a.Match == b.Match || all && (!c.free[0][one.one] || !c.free[1][one.other])
}

func number(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

// problem is what is to be said of the setting, at a place of the later mirror, r; nil if
// nothing. all says that all paths were compared.
func (c *comparison) problem(r, other ruled, all bool) (p *drill.Problem, certain bool) {
	if len(c.clashes) == 0 {
		return nil, false
	}
	of := c.clashes[0]
	if i := slices.IndexFunc(c.clashes, func(one clash) bool { return c.certain(one, all) }); i >= 0 {
		of, certain = c.clashes[i], true
	}
	mine, theirs := of.other, of.one
	if r.number == c.outer.number {
		mine, theirs = theirs, mine
	}
	would := "each of the two would undo"
	if !certain {
		would = "if there is such a one, each of the two undoes"
	}
	return &drill.Problem{Field: r.field(mine, c.setting), Value: c.of(r.rules[mine].Permission), Fix: fmt.Sprintf(
		"mirror %s sets this, and mirror %s %q (%s) for the same, such as %q in %s: %s for ever what the other sets: write the same in both, or leave one out",
		r.Name, other.Name, c.of(other.rules[theirs].Permission), other.field(theirs, c.setting), of.path, c.inner.at, would)}, certain
}

// overruled says that one mirror has no rule for what another one's sets.
func (c *comparison) overruled() *drill.Problem {
	if c.lone == nil {
		return nil
	}
	sets, i, writes := c.inner, c.lone.other, c.outer
	if i < 0 {
		sets, i, writes = c.outer, c.lone.one, c.inner
	}
	return &drill.Problem{Field: sets.field(i, c.setting), Value: c.of(sets.rules[i].Permission), Fix: fmt.Sprintf(
		"mirror %s brings %q to %s as it is at %s: unless it is the same there, each of the two undoes for ever what the other sets: give mirror %s the same rule for its destination",
		writes.Name, c.lone.path, c.inner.at, writes.From, writes.Name)}
}

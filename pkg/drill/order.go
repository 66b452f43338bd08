package drill

import (
	"fmt"
	"slices"
	"strings"
)

// checkOrder checks which mirrors come after which.
func (c *checker) checkOrder(ms []Mirror) {
	for i, m := range ms {
		at := fmt.Sprintf("spec.mirrors[%d].after", i)
		if len(m.After) > 0 && (m.Cadence(MirrorSync) == Cadence{}) {
			c.add(at, strings.Join(m.After, ", "), "this is for the runs that the mirror makes by itself, and it makes none: add every or daily")
		}
		for j, name := range m.After {
			at := fmt.Sprintf("%s[%d]", at, j)
			known := slices.ContainsFunc(ms, func(other Mirror) bool { return other.Name == name })
			switch {
			case !known:
				c.add(at, name, "the inventory has no such mirror: "+suggest(name, namesOf(ms, func(m Mirror) string { return m.Name })))
			case slices.Contains(m.After[:j], name):
				c.add(at, name, "it is named twice: leave one out")
			case name == m.Name:
				c.add(at, name, "a mirror cannot wait for itself: leave it out")
			default:
				if round := wayBack(ms, m.Name, name); round != nil {
					c.add(at, name, "these would wait for each other for ever: "+strings.Join(round, " after ")+": leave one of them out")
				}
			}
		}
	}
}

// wayBack gives the mirrors by which one comes after itself that comes after next, first
// and last being that one; nil if it does not.
func wayBack(ms []Mirror, name, next string) []string {
	seen := map[string]bool{}
	var look func(way []string) []string
	look = func(way []string) []string {
		last := way[len(way)-1]
		if last == name {
			return way
		}
		if seen[last] {
			return nil
		}
		seen[last] = true
		for _, m := range ms {
			if m.Name != last {
				continue
			}
			for _, before := range m.After {
				if round := look(append(slices.Clone(way), before)); round != nil {
					return round
				}
			}
		}
		return nil
	}
	if way := look([]string{next}); way != nil {
		return append([]string{name}, way...)
	}
	return nil
}

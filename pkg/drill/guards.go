package drill

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/event"
)

// GuardParts applies the blast-radius guards to what a fault would hit: the
// protect list and the cap.
func GuardParts(g Guards, parts []event.Part) error {
	if limit := max(1, g.MaxParts); len(parts) > limit {
		return fmt.Errorf("it would hit %d parts, and guards.maxParts is %d: narrow the fault or raise the cap", len(parts), limit)
	}
	for _, p := range parts {
		for _, pattern := range g.Protect {
			switch by, ok := p.Match(pattern); {
			case !ok:
			case by == p.ID:
				return fmt.Errorf("it would hit %q, which guards.protect %q protects", p.ID, pattern)
			default:
				return fmt.Errorf("it would hit %q, whose label %s guards.protect %q protects", p.ID, by, pattern)
			}
		}
	}
	return nil
}

// Unmatched says of the first pattern of a protect list that matches none of the parts
// that the drill's targets have, what is wrong with it; "" if there is none. Such a
// pattern guards nothing, and who wrote it believes that it does. own are the patterns
// that the drill itself brings: an inventory's are for every drill.
func Unmatched(own []string, parts []event.Part) string {
	for _, pattern := range own {
		if slices.ContainsFunc(parts, func(p event.Part) bool { _, ok := p.Match(pattern); return ok }) {
			continue
		}
		known := map[string]bool{}
		for _, p := range parts {
			known[p.ID] = true
			for k, v := range p.Labels {
				known[k+"="+v] = true
			}
		}
		names := slices.Collect(maps.Keys(known))
		fix := suggest(pattern, names)
		// A value without its label, or an ID without its driver, is the likeliest slip.
		for _, n := range slices.Sorted(maps.Keys(known)) {
			if strings.HasSuffix(n, "="+pattern) || strings.HasSuffix(n, ":"+pattern) {
				fix = fmt.Sprintf("did you mean %q?", n)
				break
			}
		}
		return fmt.Sprintf("guards.protect: %q matches no part of the drill's targets, so it protects nothing: %s", pattern, fix)
	}
	return ""
}

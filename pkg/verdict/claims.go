package verdict

import (
	"cmp"
	"slices"
)

// sameLane reports whether two lanes are one lane's under different claims.
func sameLane(a, b *Lane) bool {
	return a.Probe == b.Probe && a.Kind == b.Kind && a.Name == b.Name && a.Clock == b.Clock && a.Target == b.Target
}

// joinClaims makes one lane of those of different claims. A lane of one claim only
// is returned as it is.
func joinClaims(lanes []*Lane) []*Lane {
	var out []*Lane
	for i, l := range lanes {
		if slices.ContainsFunc(lanes[:i], func(o *Lane) bool { return sameLane(o, l) }) {
			continue
		}
		claims := slices.DeleteFunc(slices.Clone(lanes[i:]), func(o *Lane) bool { return !sameLane(o, l) })
		if len(claims) > 1 {
			l = joinLane(claims)
		}
		out = append(out, l)
	}
	return out
}

// claimed is an attempt, the claim it was made under, and the distance between it
// and the nearest slot of that claim that says how often was asked then: 0 when
// there is no other.
type claimed struct {
	Attempt
	claim int
	slot  int64
}

// joinLane puts a lane's claims in one row, in the order of their schedule, with
// numbers and an epoch of its own. Where a claim follows another after longer than
// either asked, nobody watched: a skipped slot stands for all that was missed, at
// the end of it, so that no stable stretch is sure to reach across.
func joinLane(claims []*Lane) *Lane {
	one := *claims[0]
	one.Epoch, one.Attempts = 0, nil
	var all []claimed
	for n, l := range claims {
		one.Deadline = max(one.Deadline, l.Deadline)
		for i, a := range l.Attempts {
			c := claimed{Attempt: a, claim: n}
			if i > 0 {
				c.slot = a.Scheduled - l.Attempts[i-1].Scheduled
			} else if len(l.Attempts) > 1 {
				c.slot = l.Attempts[1].Scheduled - a.Scheduled
			}
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(x, y claimed) int { return cmp.Compare(x.Scheduled, y.Scheduled) })
	for i, c := range all {
		if i > 0 && c.claim != all[i-1].claim && c.Scheduled-all[i-1].Scheduled > min(c.slot, all[i-1].slot) {
			at := c.Scheduled
			one.Attempts = append(one.Attempts, Attempt{Scheduled: at, Started: at, Completed: at, Outcome: Skipped})
		}
		one.Attempts = append(one.Attempts, c.Attempt)
	}
	for n := range one.Attempts {
		one.Attempts[n].Seq = int64(n)
	}
	return &one
}

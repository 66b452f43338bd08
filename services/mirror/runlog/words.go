package runlog

import (
	"fmt"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Words say what a run that has ended came to, in a line.
func (r *Run) Words() string {
	text := fmt.Sprintf("%s by %s, took %s: ", r.Began.UTC().Format(time.RFC3339), r.By, r.Ended.Sub(r.Began).Round(time.Millisecond))
	switch {
	case r.Cancelled:
		by, _ := strings.CutPrefix(r.Problem, ErrCancelled.Error())
		if by == r.Problem {
			by = "" // as an older version has noted it
		}
		return text + "called off" + by + "; the next run goes on from there"
	case r.Failed:
		return text + "failed: " + r.Problem
	case r.Problems > 1:
		return text + fmt.Sprintf("%d problems, the first: %s", r.Problems, r.Problem)
	case !r.Whole:
		return text + r.Problem
	case r.Copied+r.Deleted == 0:
		return text + "nothing was to be copied or deleted"
	}
	return text + fmt.Sprintf("%d copied, %d deleted", r.Copied, r.Deleted)
}

// Words say what a comparison came to, but for its sides.
func (c *Check) Words() string {
	found := "all is as it should be"
	if !c.Good {
		found = "not all is as it should be"
	}
	return fmt.Sprintf("%s by %s, %s at %s: %s", c.Ended.UTC().Format(time.RFC3339), c.By, c.What, c.Level, found)
}

// Problems are, in words, the first of what a run left undone, and at their end what it
// left for others to clear away, which [Left] does not count.
func Problems(r *engine.Report) []string {
	var out []string
	for i := range r.Causes {
		out = append(out, r.Causes[i].String())
	}
	if r.NotTried > 0 {
		out = append(out, fmt.Sprintf("%d were not tried, as all before them was refused", r.NotTried))
	}
	for _, c := range r.Conflicts {
		out = append(out, fmt.Sprintf("conflict %s: %s", entry.Quote(c.Key), c.Reason))
	}
	for _, u := range r.Unholdable {
		out = append(out, fmt.Sprintf("cannot be held: %s: %v", entry.Quote(u.Key), u.Err))
	}
	for _, g := range r.Refusals {
		out = append(out, g.String())
	}
	for _, err := range r.Errors {
		out = append(out, err.Error())
	}
	if r.HeldBack > 0 {
		out = append(out, fmt.Sprintf("%d deletes held back: something before them failed", r.HeldBack))
	}
	for _, u := range r.LeftUploads {
		out = append(out, u.String())
	}
	return out
}

// Left counts what a run left undone.
func Left(r *engine.Report) int64 {
	return r.Failed + r.NotTried + r.Faults + int64(len(r.Refusals)) + r.HeldBack + r.Done[plan.Conflict] + r.Done[plan.Unholdable]
}

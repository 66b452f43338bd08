package runlog

import (
	"fmt"
	"time"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Words say what a run that has ended came to, in a line.
func (r *Run) Words() string {
	text := fmt.Sprintf("%s by %s, %s: ", r.Began.UTC().Format(time.RFC3339), r.By, r.Ended.Sub(r.Began).Round(time.Millisecond))
	switch {
	case r.Failed:
		return text + "failed: " + r.Problem
	case r.Problems > 1:
		return text + fmt.Sprintf("%d problems, the first: %s", r.Problems, r.Problem)
	case !r.Whole:
		return text + r.Problem
	case r.Copied+r.Deleted == 0:
		return text + "nothing to do"
	}
	return text + fmt.Sprintf("%d copied, %d deleted", r.Copied, r.Deleted)
}

// Problems are, in words, the first of what a run left undone, and at their end what it
// left for others to clear away, which [Left] does not count.
func Problems(r *engine.Report) []string {
	var out []string
	for _, f := range r.Failures {
		out = append(out, fmt.Sprintf("%s %q: %v", f.Op, f.Key, f.Err))
	}
	for _, c := range r.Conflicts {
		out = append(out, fmt.Sprintf("conflict %q: %s", c.Key, c.Reason))
	}
	for _, u := range r.Unholdable {
		out = append(out, fmt.Sprintf("cannot be held: %q: %v", u.Key, u.Err))
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
	return r.Failed + r.Faults + int64(len(r.Refusals)) + r.HeldBack + r.Done[plan.Conflict] + r.Done[plan.Unholdable]
}

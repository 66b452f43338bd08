package fold

import (
	"slices"

	"github.com/firedrill/firedrill/pkg/verdict"
)

// cause is what a result's being INVALID comes from; empty where there is no more to
// say about it than the reason itself.
type cause string

// The causes, of which the first that applies is what to begin with.
const (
	causeSchedule cause = "schedule"
	causeUnproven cause = "unproven"
	causeUnsteady cause = "unsteady"
	causeReplaced cause = "replaced"
	causeAltered  cause = "altered"
)

// cause is the first of the causes of what makes the phase INVALID.
func (f *phaseFold) cause() cause {
	of := slices.Clone(f.causes)
	for _, p := range f.measured.Problems {
		switch p.Kind {
		case verdict.KindSchedule:
			of = append(of, causeSchedule)
		case verdict.KindUnproven:
			of = append(of, causeUnproven)
		}
	}
	for _, c := range []cause{causeSchedule, causeUnproven, causeUnsteady, causeReplaced, causeAltered} {
		if slices.Contains(of, c) {
			return c
		}
	}
	return ""
}

// advice is what to do about a cause.
func (c cause) advice() string {
	switch c {
	case causeSchedule:
		return "Give the observer a host of its own, or less to do: fewer probes, or longer “burst” and “interval” of theirs."
	case causeUnproven:
		return "Let the fault prove its effect."
	case causeUnsteady:
		return "Repair the system, or the steady state's definition."
	case causeReplaced:
		return "Find out why the service died in mid-drill."
	case causeAltered:
		return "Find out who changed the stored events; run firedrill verify on them."
	}
	return "The reason is given above."
}

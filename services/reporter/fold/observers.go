package fold

import (
	"fmt"
	"math"
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// observers notes where the observer was replaced in the middle of the
// measurement: what each of them measured, and what nobody did.
func (f *phaseFold) observers() {
	end := f.settleOrder
	if end < 0 {
		end = f.log.entries[len(f.log.entries)-1].order
	}
	if f.steadyOrder < 0 {
		return
	}
	for i, c := range f.h.claims {
		p := c.payload.(*event.ObserverClaimed)
		if i == 0 || p.Epoch <= 1 || c.order < f.steadyOrder || c.order > end {
			continue
		}
		f.replaced = true
		before := f.h.claims[i-1].payload.(*event.ObserverClaimed)
		f.invalidBy(causeReplaced, "the observer was replaced in the middle of the measurement: %s", f.handover(before, p))
	}
}

// handover says what the observers before and after a claim measured.
func (f *phaseFold) handover(before, after *event.ObserverClaimed) string {
	_, last, okBefore := f.stint(before.Epoch)
	first, _, okAfter := f.stint(after.Epoch)
	name := func(c *event.ObserverClaimed) string { return fmt.Sprintf("%s (claim %d)", c.Instance, c.Epoch) }
	switch {
	case okBefore && okAfter && first > last:
		return fmt.Sprintf("%s measured up to %s, %s from %s on; how the service was for the %s in between is not known",
			name(before), f.fromFault(last), name(after), f.fromFault(first), ShowDuration(sub(first, last)))
	case okBefore && okAfter:
		return fmt.Sprintf("%s measured up to %s, %s from %s on", name(before), f.fromFault(last), name(after), f.fromFault(first))
	case okBefore:
		return fmt.Sprintf("%s measured up to %s; of %s there are no attempts on the same clock, so how the service was after that is not known", name(before), f.fromFault(last), name(after))
	case okAfter:
		return fmt.Sprintf("%s measured from %s on; of %s there are no attempts on the same clock, so how the service was before that is not known", name(after), f.fromFault(first), name(before))
	}
	return fmt.Sprintf("neither of %s nor of %s are there attempts on one clock", name(before), name(after))
}

// stint is the stretch of the phase that a claim's attempts cover on the
// observer's clock.
func (f *phaseFold) stint(claim int64) (first, last int64, ok bool) {
	first, last = math.MaxInt64, math.MinInt64
	for _, l := range f.lanes {
		if l.Epoch == claim {
			first, last, ok = min(first, l.Attempts[0].Scheduled), max(last, l.Attempts[len(l.Attempts)-1].Completed), true
		}
	}
	return first, last, ok
}

// fromFault writes a moment of the observer's clock as a distance from the fault.
func (f *phaseFold) fromFault(at int64) string {
	if len(f.faults) == 0 {
		return ShowDuration(sub(at, f.axis.zero)) + " after the phase began"
	}
	if at < f.axis.zero {
		return ShowDuration(sub(f.axis.zero, at)) + " before the fault"
	}
	return ShowDuration(sub(at, f.axis.zero)) + " after the fault"
}

// observerOf names the observer of a claim, where the phase's attempts are of
// more than one.
func (f *phaseFold) observerOf(claim int64) string {
	all := slices.Concat(f.lanes, f.foreign)
	if !slices.ContainsFunc(all, func(l verdict.Lane) bool { return l.Epoch != all[0].Epoch }) {
		return ""
	}
	for _, c := range f.h.claims {
		if p := c.payload.(*event.ObserverClaimed); p.Epoch == claim {
			return fmt.Sprintf("%s, claim %d", p.Instance, p.Epoch)
		}
	}
	return fmt.Sprintf("claim %d", claim)
}

// stillDown reports whether the last observer's lanes were down as the measured
// window ended: an earlier one cannot have seen the end.
func (f *phaseFold) stillDown() bool {
	var claim int64
	for _, l := range f.measured.Lanes {
		claim = max(claim, l.Epoch)
	}
	return slices.ContainsFunc(f.measured.Lanes, func(l verdict.LaneResult) bool { return l.Epoch == claim && l.Downtime.Open })
}

// problems are what verdict found wrong with the measurement. Where the observer
// was replaced, that its lanes end early or begin late has been said.
func (f *phaseFold) problems() []string {
	var out []string
	for _, p := range f.measured.Problems {
		if !f.replaced || p.Kind != verdict.KindEdge {
			out = append(out, p.String())
		}
	}
	return out
}

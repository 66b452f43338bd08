package fold

import (
	"fmt"
	"slices"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// judgeChecks judges what the validator found after the recovery.
func (f *phaseFold) judgeChecks() {
	if len(f.spec.Checks) == 0 && !slices.ContainsFunc(f.out.Checks, func(c CheckRun) bool { return c.When == drill.Recovered }) {
		return
	}
	v, n, why := f.out.properties(drill.Recovered, nil)
	if f.checksDone.IsZero() {
		why = append(why, "the checks were not completed")
		if v == verdict.Pass {
			v = verdict.Inconclusive
		}
	}
	f.addResult(ofChecks, "every property holds", n, v, reasonOr(why, "every property holds"))
}

func reasonOr(why []string, otherwise string) string {
	if len(why) == 0 {
		return otherwise
	}
	return joinReasons(why)
}

// Names of the validator's properties that other parts of a report speak of too.
const (
	propLost  = "lost"
	propStale = "stale-reads"
)

// properties sums up the properties that were checked at one moment, without
// those to be skipped, and says which did not hold.
func (p Phase) properties(when string, skip func(event.Property) bool) (v verdict.Verdict, holding string, why []string) {
	v = verdict.Pass
	good, judged := 0, 0
	for _, c := range p.Checks {
		if c.When != when {
			continue
		}
		for _, q := range c.Properties {
			if q.Result == event.ResultInfo || skip != nil && skip(q) {
				continue
			}
			judged++
			switch q.Result {
			case event.ResultPass:
				good++
			case event.ResultFail:
				v = verdict.Fail
				why = append(why, fmt.Sprintf("%s: %s: %s", c.Check, q.Name, q.Found))
			default:
				if v == verdict.Pass {
					v = verdict.Inconclusive
				}
				why = append(why, fmt.Sprintf("%s: %s could not be decided: %s", c.Check, q.Name, q.Found))
			}
		}
	}
	if judged == 0 {
		return v, "no property was judged", why
	}
	return v, fmt.Sprintf("%d of %s", good, Plural(judged, "property")), why
}

// failed are the properties of a name that did not hold after the recovery, each
// with its check.
func (p Phase) failed(name string) []string {
	_, _, why := p.properties(drill.Recovered, func(q event.Property) bool { return q.Name != name || q.Result != event.ResultFail })
	return why
}

// withinReach adds to a pass of the stale reads, beside lost writes, how far it
// goes: reads that came after the loss may have passed too.
func withinReach(props []event.Property) []event.Property {
	props = slices.Clone(props)
	if !slices.ContainsFunc(props, func(q event.Property) bool { return q.Name == propLost && q.Result == event.ResultFail }) {
		return props
	}
	for i := range props {
		if q := &props[i]; q.Name == propStale && q.Result == event.ResultPass {
			q.Found += "; a read shows the newest write alone, so this says nothing about the lost ones, which newer writes hide"
		}
	}
	return props
}

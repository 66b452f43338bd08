package drill

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// LedgerCheck is the check that every target with a writing probe has: what was
// acknowledged, compared with what is there.
const LedgerCheck = "ledger"

func (c *checker) checkPhase(at string, p Phase) {
	c.line(at+".title", p.Title)
	c.checkObjective(at+".objective", p.Objective)
	c.checkProbes(at+".probes", p.Probes)
	c.checkSteady(at+".steadyState", p.SteadyState)
	c.checkFaults(at+".faults", p.Faults)
	c.checkActions(at+".recovery", p.Recovery)
	if p.Stable.Timeout != 0 && p.Stable.Timeout < defaultedStable(p).Window {
		c.add(at+".stable.timeout", p.Stable.Timeout.String(),
			"this is shorter than the window of "+brief(defaultedStable(p).Window.D())+" that it waits for: raise it")
	}
	c.checkKeep(at+".keep", p.Keep)
	c.checkActions(at+".restore.actions", p.Restore.Actions)
	c.checkChecks(at, p)
	c.checkStop(at, p)
}

func (c *checker) checkObjective(at string, o Objective) {
	if o.RTO == 0 {
		c.add(at+".rto", "0s", "no system recovers in no time: give an objective such as 30s")
	}
	c.percent(at+".availability", o.Availability)
	if o.RPO == nil {
		return
	}
	if o.RPO.Records == nil && o.RPO.Time == nil {
		c.add(at+".rpo", "", "give records, time or both, or remove rpo")
	}
	if o.RPO.Records != nil && *o.RPO.Records < 0 {
		c.add(at+".rpo.records", strconv.FormatInt(*o.RPO.Records, 10), "this cannot be negative: 0 means that no write may be lost")
	}
}

func (c *checker) percent(at string, v float64) {
	if v < 0 || v > 100 {
		c.add(at, strconv.FormatFloat(v, 'g', -1, 64), "a percentage lies between 0 and 100")
	}
}

func (c *checker) checkProbes(list string, ps []Probe) {
	if len(ps) == 0 {
		c.add(list, "", "the list is empty: without a probe nothing is measured")
	}
	c.unique(list, "probe", namesOf(ps, func(p Probe) string { return p.Name }))
	for i, p := range ps {
		at := fmt.Sprintf("%s[%d]", list, i)
		c.target(at+".target", p.Target)
		c.operation(at+".probe", "probe", p.Probe)
		for _, f := range []struct {
			name  string
			value event.Duration
		}{{"interval", p.Interval}, {"burst", p.Burst}, {"fresh", p.Fresh}, {"deadline", p.Deadline}} {
			c.between(at+"."+f.name, f.value, minInterval, maxInterval)
		}
		if q := defaultedProbe(p); q.Burst > q.Interval && !c.below(at) {
			c.addf(at+".burst", given(p.Burst), "the burst of %s would be slower than the interval of %s: set it to %s or less",
				brief(q.Burst.D()), brief(q.Interval.D()), brief(q.Interval.D()))
		}
	}
}

func (c *checker) checkSteady(at string, s SteadyState) {
	c.percent(at+".minAvailability", s.MinAvailability)
	if q := defaultedSteady(s); q.Timeout < q.Window {
		c.addf(at+".timeout", given(s.Timeout), "the timeout of %s is shorter than the window of %s that it waits for: raise it",
			brief(q.Timeout.D()), brief(q.Window.D()))
	}
}

func (c *checker) checkFaults(list string, fs []Fault) {
	if len(fs) == 0 {
		c.add(list, "", "the list is empty: a phase has at least one fault")
	}
	c.unique(list, "fault", namesOf(fs, func(f Fault) string { return f.Name }))
	for i, f := range fs {
		at := fmt.Sprintf("%s[%d]", list, i)
		c.target(at+".target", f.Target)
		c.operation(at+".fault", "fault", f.Fault)
	}
}

func (c *checker) checkActions(list string, as []Action) {
	c.unique(list, "action", namesOf(as, func(a Action) string { return a.Name }))
	for i, a := range as {
		at := fmt.Sprintf("%s[%d]", list, i)
		c.target(at+".target", a.Target)
		c.operation(at+".action", "action", a.Action)
	}
}

func (c *checker) checkKeep(list string, ks []Keep) {
	c.unique(list, "copy", namesOf(ks, func(k Keep) string { return k.Name }))
	for i, k := range ks {
		at := fmt.Sprintf("%s[%d]", list, i)
		if k.Mirror != "" {
			if k.From+k.To != "" {
				c.add(at+".mirror", k.Mirror, "a mirror has its locations in the inventory: remove from and to, or mirror")
			}
			continue
		}
		for _, f := range []struct{ name, value string }{{"from", k.From}, {"to", k.To}} {
			if !locationPattern().MatchString(f.value) {
				c.add(at+"."+f.name, f.value, "a location has a kind, a colon and a path, such as dir:/var/lib/postgresql")
			}
			if holdsSecret(f.value) {
				c.add(at+"."+f.name, "", "a drill never holds a secret: remove it from the location")
			}
		}
		if k.From == k.To {
			c.add(at+".to", k.To, "this is where the copy comes from: name another place")
		}
	}
}

// checkChecks checks both lists of checks. A name that stands in both means one
// check made twice, because a check's baseline is kept under its name.
func (c *checker) checkChecks(at string, p Phase) {
	first := map[string]Check{}
	for _, l := range []struct {
		list   string
		checks []Check
	}{{at + ".checks", p.Checks}, {at + ".restore.checks", p.Restore.Checks}} {
		c.unique(l.list, "check", namesOf(l.checks, func(k Check) string { return k.Name }))
		for i, k := range l.checks {
			pos := fmt.Sprintf("%s[%d]", l.list, i)
			c.target(pos+".target", k.Target)
			c.operation(pos+".check", "check", k.Check)
			if k.Check == LedgerCheck && !c.below(at+".probes") && !slices.ContainsFunc(p.Probes, func(q Probe) bool { return q.Target == k.Target }) {
				c.addf(pos+".check", k.Check, "no probe of this phase writes to target %s: add one, or remove the check", k.Target)
			}
			if f, ok := first[k.Name]; ok && (f.Target != k.Target || f.Check != k.Check) {
				c.add(pos+".name", k.Name, "another check before the restore has this name: give one of them another")
			}
			first[k.Name] = k
		}
	}
}

func (c *checker) checkStop(at string, p Phase) {
	probes := namesOf(p.Probes, func(q Probe) string { return q.Name })
	for i, s := range p.Stop {
		pos := fmt.Sprintf("%s.stopConditions[%d]", at, i)
		if !slices.Contains(probes, s.Probe) && !c.unnamed(at+".probes") {
			c.add(pos+".probe", s.Probe, "no probe of this phase has this name: "+suggest(s.Probe, probes))
		}
		if s.DownFor == 0 {
			c.add(pos+".downFor", "0s", "this would stop the drill at its first failed attempt: give a time such as 5m")
		}
	}
}

// checkDeadline compares the deadline with the waits that the drill asks for. A
// mistake among those leaves their sum unknown.
func (c *checker) checkDeadline() {
	if c.below("spec.phases") || c.below("spec.guards") {
		return
	}
	d := WithDefaults(*c.drill)
	var least time.Duration
	for _, p := range d.Spec.Phases {
		least += 2*p.SteadyState.Window.D() + p.Stable.Window.D()
		for _, f := range p.Faults {
			least += f.After.D()
		}
		for _, a := range slices.Concat(p.Recovery, p.Restore.Actions) {
			least += a.After.D()
		}
	}
	if deadline := d.Spec.Guards.Deadline.D(); least > deadline {
		c.addf("spec.guards.deadline", given(c.drill.Spec.Guards.Deadline),
			"the drill cannot end within its deadline of %s: its windows and waits alone take %s", brief(deadline), brief(least))
	}
}

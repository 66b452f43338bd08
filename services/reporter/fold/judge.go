package fold

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// What a result is of, beyond verdict's own.
const (
	ofChecks  = "checks"
	ofKeep    = "keep"
	ofRestore = "restore"
)

// recovery is a fault's line of the recovery table.
func (f *phaseFold) recovery(i int, r verdict.FaultResult) Recovery {
	_, name := cutStep(r.Step)
	out := Recovery{
		Step: r.Step, Name: name, Objective: f.out.Objective.RTO, Achieved: r.TTStable, FirstSuccess: r.TTFS,
		NeverFailed: neverFailed(r), Censored: r.Censored, Decisive: r.Decisive, Slow: r.Slow,
	}
	at := slices.IndexFunc(f.faults, func(t verdict.FaultTime) bool { return t.Step == r.Step })
	if at < 0 {
		at = min(i, len(f.faults)-1)
	}
	out.Splits = f.splits(f.faults[at], r)
	return out
}

// splits cuts the way from a fault to verified data.
func (f *phaseFold) splits(t verdict.FaultTime, r verdict.FaultResult) Splits {
	var s Splits
	fault := event.Interval{Lo: t.F0, Hi: t.F1}
	stable := event.Interval{Lo: add(t.F1, r.TTStable.Lo), Hi: add(t.F0, r.TTStable.Hi), Open: r.TTStable.Open}
	stable.Hi = max(stable.Hi, stable.Lo)
	first := event.Interval{Lo: add(t.F1, r.TTFS.Lo), Hi: max(add(t.F0, r.TTFS.Hi), add(t.F1, r.TTFS.Lo)), Open: r.TTFS.Open}
	began, ended, acted := f.recoveryActions(t.F0)
	switch {
	case acted:
		s.Detect = known(distance(began, fault))
		s.Failover = known(distance(ended, began))
		s.Restore = known(distance(stable, ended))
	case !r.NeverFailed:
		if start, ok := f.outageStart(r.Step); ok {
			s.Detect = known(distance(start, fault))
			s.Failover = known(distance(first, start))
			s.Restore = known(distance(stable, first))
		}
	}
	if done, ok := f.axis.exact(f.checksDone); ok && !f.checksDone.IsZero() && !stable.Open {
		s.Verify = known(distance(done, stable))
	}
	return s
}

func known(i event.Interval) Figure { return Figure{Known: true, Interval: i} }

// recoveryActions bounds the recovery actions after a fault.
func (f *phaseFold) recoveryActions(after int64) (began, ended event.Interval, ok bool) {
	for _, n := range f.log.entries {
		p, is := n.payload.(*event.ActionDone)
		if !is {
			continue
		}
		if kind, _ := cutStep(p.Step); kind != drill.StepRecovery {
			continue
		}
		b, okB := f.axis.exact(p.Began)
		e, okE := f.axis.exact(p.Ended)
		if !okB || !okE || b.Hi < after {
			continue
		}
		if !ok || b.Lo < began.Lo {
			began = b
		}
		if !ok || e.Hi > ended.Hi {
			ended = e
		}
		ok = true
	}
	return began, ended, ok
}

// outageStart is when the first lane saw the fault.
func (f *phaseFold) outageStart(step string) (event.Interval, bool) {
	var first event.Interval
	ok := false
	for _, o := range f.out.Outages {
		if o.Fault != step || o.Restore {
			continue
		}
		if !ok {
			first, ok = o.Start, true
		}
		first.Lo, first.Hi = min(first.Lo, o.Start.Lo), min(first.Hi, o.Start.Hi)
	}
	return first, ok
}

// judge gives the phase its verdict and says why, line by line.
func (f *phaseFold) judge() {
	if f.out.State != StateFinished && f.settleOrder < 0 {
		return // nothing can be said yet
	}
	f.judgeMeasured()
	for i := range f.out.Recovery {
		f.out.Recovery[i].Status = f.statusOf(f.out.Recovery[i])
	}
	f.judgeChecks()
	f.judgeKeep()
	f.judgeRestore()
	var all []verdict.Measurement
	for _, r := range f.out.Results {
		all = append(all, verdict.Measurement{Verdict: r.Verdict})
	}
	f.out.Verdict = verdict.Total(all)
	if !f.h.sound {
		f.out.Verdict = verdict.Invalid
	}
	if f.out.Verdict == verdict.Invalid {
		f.out.cost, f.out.costly = f.withoutService()
	}
}

// judgeMeasured takes over verdict's judgements and applies what it cannot know:
// drills cut short and injectors replaced.
func (f *phaseFold) judgeMeasured() {
	if f.out.Window == nil {
		f.unmeasured()
		return
	}
	cut := f.out.State == StateFinished && !f.out.Window.Complete
	replaced := f.takenOver()
	if cut {
		f.invalid("%s", f.cutReason())
	}
	if !f.h.sound {
		f.invalidBy(causeAltered, "the history is not whole: events are missing or were altered")
	}
	invalid := len(f.out.Invalidities) > 0
	for _, j := range f.measured.Judgements {
		r := Result{Of: j.Of, Verdict: j.Verdict, Why: j.Why}
		r.Objective, r.Achieved = f.figures(j)
		switch {
		case j.Of == verdict.OfRPORecords && len(f.measured.Ledgers) == 0:
			// Nothing was counted, so there is no number of writes to give.
			r.Why = "objective " + r.Objective + "; no ledger was read, so it is not known what was lost"
		case j.Of == verdict.OfValidity && invalid:
			r.Verdict, r.Why = verdict.Invalid, joinReasons(append(slices.Clone(f.out.Invalidities), f.problems()...))
		case replaced != "" && j.Verdict == verdict.Fail && j.Of != verdict.OfRPORecords && j.Of != verdict.OfRPOTime:
			r.Verdict, r.cause = verdict.Invalid, causeReplaced
			r.Why += "; the injector was replaced meanwhile (by " + replaced + "): the tool, not the system, may have been late"
		}
		if j.Of == verdict.OfRTO && f.unexplained() {
			r.Why += "; the observer says: " + joinReasons(f.missed)
		}
		if r.Why = ShowUnits(r.Why); r.Of == verdict.OfValidity && r.Verdict == verdict.Invalid {
			r.cause = f.cause()
		}
		f.out.Results = append(f.out.Results, r)
	}
	f.settleInvalid(cut)
}

// settleInvalid lets an invalid measurement speak for all that was measured in it. A
// failure that was counted stays: a write that was acknowledged and is not there is lost,
// whoever was late to see when. That none is missing proves nothing then, as a late
// observer wrote less. What was timed stays only where a drill was cut short: what was
// too late before the cut is.
func (f *phaseFold) settleInvalid(cut bool) {
	validity := slices.IndexFunc(f.out.Results, func(r Result) bool { return r.Of == verdict.OfValidity })
	if validity < 0 || f.out.Results[validity].Verdict != verdict.Invalid {
		return
	}
	keep := cut && f.measured.Verdict != verdict.Invalid && f.h.sound
	for i := range f.out.Results {
		r := &f.out.Results[i]
		switch {
		case r.Verdict == verdict.Fail && r.Of == verdict.OfRPORecords && f.h.sound:
			r.Why += "; this is counted and not timed, so it holds all the same"
		case r.Verdict == verdict.Fail && r.Of == verdict.OfRTO && keep:
		default:
			r.Verdict = verdict.Invalid
		}
	}
}

// unexplained reports whether the observer alone can say why the service was not
// seen to get stable: the measurement names those that were too slow itself.
func (f *phaseFold) unexplained() bool {
	return len(f.missed) > 0 && !slices.ContainsFunc(f.measured.Faults, func(r verdict.FaultResult) bool { return len(r.Slow) > 0 })
}

// unmeasured is for phases without anything to measure.
func (f *phaseFold) unmeasured() {
	before := f.steadyBefore()
	switch {
	case before != nil && before.Status == statusViolated:
		f.invalidBy(causeUnsteady, "the steady state did not hold before the fault, so nothing was broken: %s", joinReasons(before.Reasons))
	case f.steadyOrder < 0:
		f.invalidBy(causeUnsteady, "the steady state was not established before the fault")
	case len(f.lanes) == 0:
		f.invalid("no attempts were recorded")
	default:
		f.invalid("the measured window is empty")
	}
	if f.out.State == StateFinished && !f.out.Complete {
		f.invalid("%s", f.cutReason())
	}
	f.addResult(verdict.OfValidity, Never, Never, verdict.Invalid, joinReasons(f.out.Invalidities))
	f.out.Results[len(f.out.Results)-1].cause = f.cause()
}

func (f *phaseFold) steadyBefore() *Steady {
	for i := range f.out.Steady {
		if f.out.Steady[i].When == drill.Before {
			return &f.out.Steady[i]
		}
	}
	return nil
}

func (f *phaseFold) cutReason() string {
	for _, a := range f.h.aborts {
		if p := a.payload.(*event.AbortRequested); f.during(a.order) {
			return fmt.Sprintf("the drill was aborted before the measurement was complete (%s, by %s: %s)", p.Cause, p.By, reasonOf(p))
		}
	}
	return "the phase was cut short before the measurement was complete" + suffix(f.out.Reason)
}

func suffix(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// counted joins reasons, with repeated ones once.
func counted(rs []string) string {
	var parts []string
	for i, r := range rs {
		if slices.Contains(rs[:i], r) {
			continue
		}
		n := 0
		for _, x := range rs {
			if x == r {
				n++
			}
		}
		if n > 1 {
			r = fmt.Sprintf("%s (%d times)", r, n)
		}
		parts = append(parts, r)
	}
	return joinReasons(parts)
}

func joinReasons(rs []string) string { return strings.Join(rs, "; ") }

func (f *phaseFold) addResult(of, objective, achieved string, v verdict.Verdict, why string) {
	f.out.Results = append(f.out.Results, Result{Of: of, Objective: objective, Achieved: achieved, Verdict: v, Why: ShowUnits(why)})
}

// figures writes a judgement's objective and what was achieved.
func (f *phaseFold) figures(j verdict.Judgement) (objective, achieved string) {
	o := f.out.Objective
	objective, achieved = Never, Never
	switch j.Of {
	case verdict.OfRTO:
		if o.RTO > 0 {
			objective = "≤ " + ShowDuration(o.RTO)
		}
		if len(f.out.Recovery) > 0 {
			achieved = ShowRecovery(worstRecovery(f.out.Recovery))
		}
	case verdict.OfRPORecords:
		if o.RPORecords != nil {
			objective = "≤ " + Plural(*o.RPORecords, "record")
		}
		if n, ok := lostRecovered(f.out); ok {
			achieved = Plural(n, "record")
		}
	case verdict.OfRPOTime:
		if o.RPOTime != nil {
			objective = "≤ " + ShowDuration(*o.RPOTime)
		}
		if f.measured.RPA != nil {
			achieved = Show(*f.measured.RPA)
		}
	case verdict.OfAvailability:
		objective = "≥ " + ShowPercent(o.Availability)
		if len(f.measured.Lanes) > 0 {
			worst := slices.MinFunc(f.measured.Lanes, func(a, b verdict.LaneResult) int { return cmp.Compare(a.Availability, b.Availability) })
			achieved = ShowPercent(worst.Availability)
		}
	}
	return objective, achieved
}

func worstRecovery(rs []Recovery) Recovery {
	return slices.MaxFunc(rs, func(a, b Recovery) int { return longer(a.Achieved, b.Achieved) })
}

// longer orders intervals by their upper end; an open one has none.
func longer(a, b event.Interval) int {
	switch {
	case a.Open != b.Open && a.Open:
		return 1
	case a.Open != b.Open:
		return -1
	case a.Open:
		return cmp.Compare(a.Lo, b.Lo)
	}
	return cmp.Compare(a.Hi, b.Hi)
}

// lostRecovered counts the acknowledged writes that were not there after the
// recovery.
func lostRecovered(p Phase) (int64, bool) {
	return overLanes(p, func(l Ledger) int64 { return l.LostCount })
}

// ackedRecovered counts the acknowledged writes that the ledgers were compared
// with after the recovery.
func ackedRecovered(p Phase) int64 {
	n, _ := overLanes(p, func(l Ledger) int64 { return l.Acked })
	return n
}

// overLanes sums a figure of the ledgers that were read after the recovery: per
// lane and claim the most of any ledger. It is false when none was read.
func overLanes(p Phase, of func(Ledger) int64) (int64, bool) {
	most := map[verdict.LaneKey]int64{}
	for _, l := range p.Ledgers {
		if _, when := cutStep(l.Step); when == drill.Recovered {
			id := verdict.LaneKey{Probe: l.Probe, Name: l.Lane, Epoch: l.Epoch}
			most[id] = max(most[id], of(l))
		}
	}
	var sum int64
	for _, n := range most {
		sum += n
	}
	return sum, len(most) > 0
}

// statusOf judges one fault's recovery by itself; what the whole measurement
// lacks, a line of it lacks too.
func (f *phaseFold) statusOf(r Recovery) verdict.Verdict {
	var rto *Result
	for i := range f.out.Results {
		if f.out.Results[i].Of == verdict.OfRTO {
			rto = &f.out.Results[i]
		}
		if f.out.Results[i].Of == verdict.OfValidity && f.out.Results[i].Verdict == verdict.Invalid {
			return verdict.Invalid
		}
	}
	switch {
	case rto == nil || r.Objective == 0:
		return verdict.Inconclusive
	case len(f.out.Recovery) == 1 || rto.Verdict == verdict.Invalid || rto.Verdict == verdict.Pass:
		return rto.Verdict
	case r.Achieved.Lo > r.Objective:
		return verdict.Fail
	case !r.Achieved.Open && r.Achieved.Hi <= r.Objective:
		return verdict.Pass
	}
	return verdict.Inconclusive
}

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

// settleMargin is how long after the observer's word the measured window goes
// on at most: the lanes' last slots before it must be seen to have gone well. It
// never reaches into the restore.
const settleMargin = 1_000_000_000

// phaseFold is one phase being folded.
type phaseFold struct {
	h    *history
	log  *phaseLog
	spec drill.Phase
	axis axis
	out  Phase
	// lanes are all lanes on the observer's clock, foreign those on another, faults
	// the injected ones.
	lanes, foreign []verdict.Lane
	faults         []verdict.FaultTime
	// claim is the observer's epoch whose clock the measurement is on; replaced is
	// true when another took over in the middle of it.
	claim    int64
	replaced bool
	// measured is the phase's measurement; ledgers were checked after recovery.
	measured verdict.Measurement
	ledgers  []found
	marks    []Mark
	// orders of events in the history: -1 when there was none.
	steadyOrder, faultOrder, settleOrder, restoreOrder int
	steadyFrom, settleAt, restoreAt                    int64
	settled, missing                                   bool
	checksDone                                         event.Reading
	// causes are what the invalidities come from.
	causes []cause
	// missed is why the observer did not see the service get stable.
	missed []string
	// restoredDone is true when the checks after the restore are all in.
	restoredDone bool
	// broke is true when something was intended that has to be undone.
	broke bool
	// targets maps a probe to its target.
	targets map[string]string
	// met is what went wrong on each lane, by the number that it went wrong at first.
	met map[claimLane][]event.ProbeError
}

// claimLane is a lane as one claim had it.
type claimLane struct {
	probe, lane string
	claim       int64
}

// found is one ledger as a check read it.
type found struct {
	step string
	verdict.Ledger
}

func foldPhase(h *history, name string) Phase {
	spec, known := h.spec(name)
	log := h.phases[name]
	f := &phaseFold{h: h, log: log, spec: spec, steadyOrder: -1, faultOrder: -1, settleOrder: -1, restoreOrder: -1, targets: map[string]string{}, met: map[claimLane][]event.ProbeError{}}
	f.out = emptyPhase(name, spec)
	if !known {
		f.invalid("the drill's spec has no phase %q", name)
	}
	if log == nil {
		f.neverStarted()
		return f.out
	}
	f.openAxis()
	f.walk()
	f.openLanes()
	f.setZero()
	f.describe()
	f.times()
	f.observers()
	f.measure()
	f.goesOn()
	f.failback()
	f.judge()
	f.draw()
	return f.out
}

func emptyPhase(name string, spec drill.Phase) Phase {
	p := Phase{
		Name: name, Title: spec.Title, State: "waiting",
		Results: []Result{}, Recovery: []Recovery{}, Availability: []LaneRow{}, Outages: []Outage{}, Ledgers: []Ledger{},
		Faults: []FaultRun{}, Actions: []ActionRun{}, Undos: []UndoRun{}, Steady: []Steady{}, Checks: []CheckRun{},
		Objective: Objective{RTO: int64(spec.Objective.RTO), Availability: spec.Objective.Availability},
	}
	if p.Title == "" {
		p.Title = name
	}
	if r := spec.Objective.RPO; r != nil {
		p.Objective.RPORecords = r.Records
		if r.Time != nil {
			t := int64(*r.Time)
			p.Objective.RPOTime = &t
		}
	}
	return p
}

func (f *phaseFold) neverStarted() {
	if f.h.finished == nil {
		return
	}
	f.invalid("the phase never began")
	f.out.Reason = f.h.finished.Reason
	f.out.Verdict = verdict.Invalid
	f.addResult("validity", Never, Never, verdict.Invalid, joinReasons(f.out.Invalidities))
}

func (f *phaseFold) invalid(format string, args ...any) { f.invalidBy("", format, args...) }

func (f *phaseFold) invalidBy(c cause, format string, args ...any) {
	f.causes = append(f.causes, c)
	f.out.Invalidities = append(f.out.Invalidities, fmt.Sprintf(format, args...))
}

// openAxis chooses the observer's clock: that of the claim under which the fault
// was injected, or the first one that wrote attempts.
func (f *phaseFold) openAxis() {
	faultAt := -1
	for _, n := range f.log.entries {
		if _, ok := n.payload.(*event.FaultInjected); ok {
			faultAt = n.order
			break
		}
	}
	for _, c := range f.h.claims {
		if p := c.payload.(*event.ObserverClaimed); f.claim == 0 || c.order < faultAt {
			f.claim = p.Epoch
		}
	}
	for _, b := range f.log.batches {
		if f.axis.clock == "" || b.Epoch == f.claim {
			f.axis.clock, f.axis.anchor = b.Origin.Clock, b.Origin
			if b.Epoch == f.claim {
				break
			}
		}
	}
	if f.axis.clock == "" {
		r := f.log.entries[0].at()
		f.axis.clock, f.axis.anchor = r.Clock, r
	}
	f.axis.clks = verdict.NewClockMap(f.axis.clock)
	for _, c := range f.h.clocks {
		p := c.payload.(*event.ClockCompared)
		if p.Observer != f.axis.clock {
			continue
		}
		if err := f.axis.clks.Add(*p, int64(c.event.Mono)); err != nil {
			f.invalid("a comparison of clocks cannot be used: %v", err)
		}
	}
}

// openLanes unpacks the attempts and sets apart what lies on another clock than
// the observer's.
func (f *phaseFold) openLanes() {
	lanes, err := verdict.LanesFromBatches(f.log.batches)
	if err != nil {
		f.invalid("the recorded attempts cannot be read: %v", err)
	}
	for _, l := range lanes {
		switch {
		case len(l.Attempts) == 0:
		case l.Clock == f.axis.clock:
			f.lanes = append(f.lanes, l)
		default:
			f.foreign = append(f.foreign, l)
		}
	}
	for _, b := range f.log.batches {
		f.targets[b.Probe] = b.Target
		id := claimLane{b.Probe, b.Lane, b.Epoch}
		f.met[id] = append(f.met[id], b.Errors...)
	}
	for _, errs := range f.met {
		slices.SortStableFunc(errs, func(a, b event.ProbeError) int { return cmp.Compare(a.FirstSeq, b.FirstSeq) })
	}
}

// walk notes the moments that bound the measurement.
func (f *phaseFold) walk() {
	for _, n := range f.log.entries {
		kind, name := cutStep(stepOf(n.payload))
		switch p := n.payload.(type) {
		case *event.SteadyEstablished:
			if name == drill.Before && f.steadyOrder < 0 {
				f.steadyOrder, f.steadyFrom = n.order, sub(f.axis.moment(n.at()), int64(p.Window))
			}
		case *event.FaultInjected:
			f.injected(n, p)
		case *event.FaultFailed:
			f.invalid("fault %s was not injected: %s", p.Step, p.Reason)
		case *event.RecoveryStable:
			if f.settleOrder < 0 {
				f.settled, f.settleOrder = true, n.order
				f.settleAt = max(f.axis.moment(n.at()), add(f.axis.moment(p.At), int64(f.spec.Stable.Window)))
			}
		case *event.RecoveryMissing:
			if f.settleOrder < 0 {
				f.missing, f.settleOrder, f.settleAt, f.missed = true, n.order, f.axis.moment(n.at()), p.Reasons
			}
		case *event.ChecksCompleted:
			if name == drill.Recovered {
				f.checksDone = n.at()
			} else {
				f.restoredDone = true
			}
		case *event.ActionIntended:
			if kind == drill.StepRestore {
				f.restoring(n)
			}
		case *event.UndoIntended:
			if f.settleOrder >= 0 || f.aborted(n.order) {
				f.restoring(n)
			}
		}
	}
}

func (f *phaseFold) injected(n entry, p *event.FaultInjected) {
	if f.faultOrder < 0 {
		f.faultOrder = n.order
	}
	t, err := f.axis.clks.Fault(*p)
	if err != nil {
		f.invalid("fault %s cannot be placed on the observer's clock: %v", p.Step, err)
		t = verdict.FaultTime{Step: p.Step, F0: f.axis.moment(p.F0), F1: f.axis.moment(p.F1), Proven: p.Proof.Proven, How: p.Proof.How}
	}
	f.faults = append(f.faults, t)
}

func (f *phaseFold) restoring(n entry) {
	if f.restoreOrder < 0 {
		f.restoreOrder, f.restoreAt = n.order, f.axis.moment(n.at())
	}
}

// aborted reports whether the drill was being aborted at that place.
func (f *phaseFold) aborted(order int) bool {
	return slices.ContainsFunc(f.h.aborts, func(a entry) bool { return a.order < order })
}

func (f *phaseFold) setZero() {
	f.axis.zero = f.axis.moment(f.log.entries[0].at())
	if len(f.faults) > 0 {
		f.axis.zero = slices.MinFunc(f.faults, func(a, b verdict.FaultTime) int {
			if a.F0 < b.F0 {
				return -1
			}
			return 1
		}).F0
	}
}

// times fills in when the phase ran and how it ended.
func (f *phaseFold) times() {
	first, last := f.log.entries[0], f.log.entries[len(f.log.entries)-1]
	if f.log.started != nil {
		first = *f.log.started
	}
	f.out.Started, f.out.State = first.event.Time, StateRunning
	if f.log.finished != nil {
		last = *f.log.finished
		p := last.payload.(*event.PhaseFinished)
		f.out.State, f.out.Complete, f.out.Reason = StateFinished, p.Complete, p.Reason
	} else if f.h.finished != nil {
		f.out.State = StateFinished
		f.out.Reason = "the drill ended without closing the phase"
	}
	f.out.Ended = last.event.Time
	f.out.Duration = int64(f.out.Ended.Sub(f.out.Started))
	if first.event.Clock == last.event.Clock {
		f.out.Duration = sub(int64(last.event.Mono), int64(first.event.Mono))
	}
}

// takenOver names the injector that took over between the fault and the settled
// system, or "".
func (f *phaseFold) takenOver() string {
	if f.steadyOrder < 0 {
		return ""
	}
	from := f.steadyOrder
	for _, n := range f.log.entries {
		if _, ok := n.payload.(*event.FaultIntended); ok {
			from = n.order
			break
		}
	}
	end := f.settleOrder
	if end < 0 {
		end = f.h.last.order
	}
	for _, t := range f.h.turns {
		if p := t.payload.(*event.LeaseTaken); t.order > from && t.order < end && p.Epoch > 1 {
			return p.Holder
		}
	}
	return ""
}

// measure builds the verdict's input and takes its result.
func (f *phaseFold) measure() {
	from, until, ok := f.window()
	if !ok {
		return
	}
	f.early(from)
	w := &Window{Clock: f.axis.clock, From: from, Until: until, Complete: f.complete()}
	f.out.Window = w
	inside, outside := lanesIn(f.lanes, from, until)
	in := verdict.Input{
		Lanes: inside, Outside: outside, Foreign: f.foreign, Faults: f.faults, From: from, Until: until,
		StableWindow: int64(f.spec.Stable.Window), RTO: f.out.Objective.RTO, Availability: f.out.Objective.Availability,
		RPORecords: f.out.Objective.RPORecords, RPOTime: f.out.Objective.RPOTime,
		Invalidities: f.out.Invalidities,
	}
	for _, l := range f.ledgers {
		if _, when := cutStep(l.step); when == drill.Recovered {
			in.Ledgers = append(in.Ledgers, l.Ledger)
		}
	}
	f.measured = verdict.Measure(in)
	unseen := f.unwatched(from, until)
	for i, l := range f.measured.Lanes {
		l.Downtime = widen(l.Downtime, l.Outages, ofRow(f.measured.Lanes, i, unseen))
		f.out.Availability = append(f.out.Availability, LaneRow{Target: f.targets[l.Probe], Observer: f.observerOf(l.Epoch), LaneResult: l})
		f.addOutages(l, false)
	}
	f.out.Downtime = Figure{Known: len(f.measured.Lanes) > 0, Interval: widen(f.measured.Downtime, outagesOf(f.measured.Lanes), unseen)}
	for i, r := range f.measured.Faults {
		f.out.Recovery = append(f.out.Recovery, f.recovery(i, r))
	}
	f.foldLedgers()
}

// window is the stretch to measure. Without a steady state before it, there is
// none.
func (f *phaseFold) window() (from, until int64, ok bool) {
	if f.steadyOrder < 0 || len(f.lanes) == 0 {
		return 0, 0, false
	}
	last := f.lastAttempt()
	switch {
	case f.settled:
		until = min(add(f.settleAt, settleMargin), last)
		until = max(until, f.settleAt)
	case f.missing:
		until = f.settleAt
	default:
		until = last
	}
	// Whatever the restore does to the service is the failback's.
	if f.restoreOrder >= 0 && f.restoreAt < until {
		until = f.restoreAt
	}
	for _, a := range f.h.aborts {
		if at := f.axis.moment(a.at()); a.order > f.steadyOrder && at < until && f.settleOrder < 0 {
			until = at
		}
	}
	return f.steadyFrom, until, until > f.steadyFrom
}

func (f *phaseFold) lastAttempt() int64 {
	last := f.lanes[0].Attempts[0].Completed
	for _, l := range f.lanes {
		last = max(last, l.Attempts[len(l.Attempts)-1].Completed)
	}
	return last
}

// complete reports whether everything that the verdict rests on was measured.
func (f *phaseFold) complete() bool {
	return f.settleOrder >= 0 && (len(f.spec.Checks) == 0 || !f.checksDone.IsZero())
}

// lanesIn sets lanes without an attempt in the window apart, such as those of an
// observer that was replaced before or after it.
func lanesIn(all []verdict.Lane, from, until int64) (inside, outside []verdict.Lane) {
	for _, l := range all {
		if slices.ContainsFunc(l.Attempts, func(a verdict.Attempt) bool { return a.Scheduled >= from && a.Scheduled <= until }) {
			inside = append(inside, l)
		} else {
			outside = append(outside, l)
		}
	}
	return inside, outside
}

func (f *phaseFold) addOutages(l verdict.LaneResult, restore bool) {
	for _, o := range l.Outages {
		f.out.Outages = append(f.out.Outages, Outage{Outage: o, From: f.axis.from(o.Start), To: f.axis.from(o.End), Restore: restore, Errors: f.errorsOf(o, l.Epoch)})
	}
}

// errorsOf collects what an outage's attempts met; their numbers are the claim's.
func (f *phaseFold) errorsOf(o verdict.Outage, claim int64) []string {
	errs := f.met[claimLane{o.Probe, o.Lane, claim}]
	i, _ := slices.BinarySearchFunc(errs, o.FirstBad, func(e event.ProbeError, seq int64) int { return cmp.Compare(e.FirstSeq, seq) })
	var out []string
	told := map[string]bool{}
	for ; i < len(errs) && errs[i].FirstSeq <= o.LastBad; i++ {
		if text := errs[i].Text; !told[text] {
			told[text] = true
			out = append(out, text)
		}
	}
	return out
}

// failback measures what came after the measured window: the way back, mostly.
func (f *phaseFold) failback() {
	if f.restoreOrder < 0 || len(f.lanes) == 0 {
		return
	}
	// What fails while the data are checked is in no measured window either.
	from, until := f.restoreAt, f.lastAttempt()
	if f.out.Window != nil {
		from = min(from, f.out.Window.Until+1)
	}
	if from >= until {
		return
	}
	inside, _ := lanesIn(f.lanes, from, until)
	m := verdict.Measure(verdict.Input{Lanes: inside, From: from, Until: until})
	unseen := f.unwatched(from, f.phaseEnd())
	b := &Failback{Downtime: widen(m.Downtime, outagesOf(m.Lanes), unseen), StillDown: f.stillDown(), unwatched: len(unseen) > 0}
	for _, l := range m.Lanes {
		b.Outages += len(l.Outages)
		f.addOutages(l, true)
	}
	for i := range f.out.Availability {
		f.out.Availability[i].After = afterwards(f.out.Availability, i, m.Lanes, unseen)
	}
	b.Longest, b.Lane = longestOutage(m.Lanes, unseen)
	f.out.Failback = b
}

// longestOutage bounds the longest single outage of all lanes, and names the lanes that
// may have seen it: it took no less than what each outage is known to have taken, and no
// more than what one of them can have, with what nobody watched beside it.
func longestOutage(lanes []verdict.LaneResult, unseen []blind) (longest *event.Interval, lane string) {
	for _, o := range outagesOf(lanes) {
		if longest == nil {
			longest = &event.Interval{}
		}
		longest.Lo, longest.Open = max(longest.Lo, o.Length.Lo), longest.Open || o.Length.Open
	}
	if longest == nil {
		return nil, ""
	}
	var names []string
	for _, l := range lanes {
		may := false
		for _, length := range mayBe(l, unseen) {
			longest.Hi = max(longest.Hi, length.Hi)
			may = may || length.Open || length.Hi >= longest.Lo
		}
		if may {
			names = append(names, l.Probe+"/"+l.Lane)
		}
	}
	return longest, strings.Join(slices.Compact(names), ", ")
}

// early measures how the service was before the measured window, where its target must
// only have been steady in the end. from is where that window begins.
func (f *phaseFold) early(from int64) {
	steady := f.steadyBefore()
	if steady == nil || len(f.lanes) == 0 {
		return
	}
	first := from
	for _, l := range f.lanes {
		first = min(first, l.Attempts[0].Scheduled)
	}
	inside, _ := lanesIn(f.lanes, first, from-1)
	if len(inside) == 0 {
		return
	}
	if down := downtime(inside, first, from-1, f.unwatched(first, from-1)); down.Lo > 0 || down.Open {
		steady.Earlier = &down
	}
}

// withoutService is for how long the service was down from the steady state to the
// phase's end, over all lanes: what the drill cost its users, whatever it proves.
func (f *phaseFold) withoutService() (event.Interval, bool) {
	if f.out.Window == nil || len(f.lanes) == 0 || !f.h.sound {
		return event.Interval{}, false
	}
	from, until := f.out.Window.From, f.lastAttempt()
	inside, _ := lanesIn(f.lanes, from, until)
	unseen := f.unwatched(from, f.phaseEnd())
	f.out.unwatched = len(unseen) > 0
	down := downtime(inside, from, until, unseen)
	return down, down.Lo > 0 || down.Open
}

package verdict

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// What a measurement must have kept to be valid.
const (
	// MinRate is the least share of the scheduled attempts that was really made.
	MinRate = 0.95
	// JitterLimit is the highest 99th percentile of started minus scheduled.
	JitterLimit = 5 * time.Millisecond
)

// view is one lane's evidence up to some moment, and the outages it shows.
type view struct {
	*evidence
	outages []outage
}

// Measure turns a phase's attempts, faults and ledgers into its result. It never
// fails: what is wrong with the input makes the verdict INVALID and is named in
// the judgement of validity. It does not change its input.
//
// Only attempts scheduled from in.From to in.Until and completed by in.Until are
// measured; ledgers are compared over the whole lanes.
func Measure(in Input) Measurement {
	m := measuring{in: in, faults: slices.Clone(in.Faults)}
	slices.SortStableFunc(m.faults, func(x, y FaultTime) int { return cmp.Compare(x.F0, y.F0) })
	m.firstFault = in.Until
	if len(m.faults) > 0 {
		m.firstFault = m.faults[0].F0
	}
	m.admit()
	m.survey()
	m.measureLanes()
	m.measureFaults()
	m.compareLedgers()
	m.judge()
	return m.out
}

// Downtime bounds for how long the service was down between two moments, over all lanes,
// and lists the outages that this comes from, lane by lane: what Measure would give for
// them, with nothing else measured or judged.
func Downtime(lanes []Lane, from, until int64) (event.Interval, []Outage) {
	m := measuring{in: Input{Lanes: lanes, From: from, Until: until}}
	m.admit()
	views := survey(m.lanes, from, until)
	var outages []Outage
	for _, v := range views {
		for _, o := range v.outages {
			outages = append(outages, o.Outage)
		}
	}
	return union(views, until), outages
}

// measuring is a measurement being made.
type measuring struct {
	in         Input
	faults     []FaultTime
	firstFault int64
	// lanes are those that can be measured, views what they showed.
	lanes []*Lane
	views []view
	bases []Latency
	// joined are the lanes with those of an observer's claims that followed each
	// other made one, for which claim an attempt was made under is all the same.
	joined      []*Lane
	joinedViews []view
	joinedBases []Latency
	out         Measurement
}

// survey gathers the whole window's evidence.
func (m *measuring) survey() {
	m.views = survey(m.lanes, m.in.From, m.in.Until)
	for _, v := range m.views {
		m.bases = append(m.bases, baseline(v.all, m.firstFault))
	}
	m.joined, m.joinedViews, m.joinedBases = m.lanes, m.views, m.bases
	joined := joinClaims(m.lanes)
	if len(joined) == len(m.lanes) {
		return
	}
	// Observers that followed each other asked the same service in the same way:
	// the recovery is seen by all of them together, and one that took over after
	// the fault goes by the baseline of those before it.
	m.joined, m.joinedViews, m.joinedBases = joined, survey(joined, m.in.From, m.in.Until), nil
	for _, v := range m.joinedViews {
		m.joinedBases = append(m.joinedBases, baseline(v.all, m.firstFault))
	}
	for i, l := range m.lanes {
		if j := slices.IndexFunc(joined, func(o *Lane) bool { return sameLane(o, l) }); m.bases[i].Max == 0 {
			m.bases[i] = m.joinedBases[j]
		}
	}
}

// survey gathers each lane's evidence and bounds its outages, then lets the
// lanes of a probe narrow each other's.
func survey(lanes []*Lane, from, until int64) []view {
	views := make([]view, len(lanes))
	for i, l := range lanes {
		views[i].evidence = gather(l, from, until)
	}
	for i, l := range lanes {
		views[i].outages = views[i].evidence.outages(workedBy(l, from, lanes, views))
	}
	for i, l := range lanes {
		var probe []*evidence
		for j, o := range lanes {
			if l.Probe == o.Probe && l.Epoch == o.Epoch && l.Kind == o.Kind {
				probe = append(probe, views[j].evidence)
			}
		}
		for k := range views[i].outages {
			views[i].outages[k].settle(views[i].evidence, probe)
			views[i].outages[k].measure(views[i].evidence)
		}
	}
	return views
}

// workedBy is when the service is known to have worked before the lane's first
// attempt, by the lanes of earlier claims; from stands in for that.
func workedBy(l *Lane, from int64, lanes []*Lane, views []view) int64 {
	for j, o := range lanes {
		if o.Epoch < l.Epoch && sameLane(o, l) && len(l.Attempts) > 0 {
			if at, ok := views[j].lastOKStart(l.Attempts[0].Started); ok {
				from = max(from, at)
			}
		}
	}
	return from
}

func (m *measuring) measureLanes() {
	for i, v := range m.views {
		l := m.lanes[i]
		r := LaneResult{Probe: l.Probe, Kind: l.Kind, Lane: l.Name, Epoch: l.Epoch, Baseline: m.bases[i]}
		r.count(v.all, m.in.From, l.Deadline)
		followed := map[string]int{}
		for _, o := range v.outages {
			for _, f := range m.faults {
				if f.F0 <= o.Start.Hi {
					o.Fault = f.Step
				}
			}
			if followed[o.Fault]++; followed[o.Fault] > 1 {
				r.Flaps++
			}
			r.Outages = append(r.Outages, o.Outage)
		}
		r.Downtime = downtime(v.outages, m.in.Until)
		if l.Kind != kindWrite {
			reader := *l
			reader.Attempts = v.all
			r.StaleReads, _ = StaleReads(reader, m.in.Lanes)
		}
		m.out.Lanes = append(m.out.Lanes, r)
	}
	m.out.Downtime = union(m.views, m.in.Until)
}

// union is the downtime over all lanes.
func union(views []view, until int64) event.Interval {
	var all []outage
	for _, v := range views {
		all = append(all, v.outages...)
	}
	return downtime(all, until)
}

// measureFaults finds each fault's recovery. One that is followed by another
// fault is measured up to that fault only.
func (m *measuring) measureFaults() {
	for i, f := range m.faults {
		views, last := m.joinedViews, i+1 == len(m.faults)
		if !last {
			views = survey(m.joined, m.in.From, m.faults[i+1].F0)
		}
		r := FaultResult{Step: f.Step, TTFS: noInterval(), TTStable: noInterval(), NeverFailed: len(views) > 0}
		recs := make([]recovery, len(views))
		for j := range views {
			rec := views[j].recover(f, m.in.StableWindow, slowLimit(m.joinedBases[j]))
			recs[j] = rec
			stable := since(rec.stable, f)
			if r.Decisive == "" || later(stable, r.TTStable) {
				r.Decisive = m.joined[j].ID()
			}
			r.TTFS = slowest(r.TTFS, since(rec.first, f))
			r.TTStable = slowest(r.TTStable, stable)
			r.NeverFailed = r.NeverFailed && rec.never
		}
		if len(views) == 0 {
			r.TTFS, r.TTStable = event.Interval{Open: true}, event.Interval{Open: true}
		}
		r.Slow = m.slow(recs)
		r.Censored = !last && r.TTStable.Open
		m.out.Faults = append(m.out.Faults, r)
	}
}

// slow lists the lanes that were too slow for longer than anything else lasted.
// recs are the lanes' recoveries from one fault.
func (m *measuring) slow(recs []recovery) []Slowness {
	soon := int64(math.MinInt64)
	for _, r := range recs {
		soon = max(soon, r.soon)
	}
	var out []Slowness
	for j, r := range recs {
		if r.slow != nil && r.slowUntil > soon {
			s := *r.slow
			s.Baseline = m.joinedBases[j].P95
			out = append(out, s)
		}
	}
	return out
}

// Kinds of lanes, as in event.ProbeBatch.
const kindWrite = "write"

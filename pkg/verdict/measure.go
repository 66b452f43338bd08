package verdict

import (
	"cmp"
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

// measuring is a measurement being made.
type measuring struct {
	in         Input
	faults     []FaultTime
	firstFault int64
	// lanes are those that can be measured, views what they showed.
	lanes []*Lane
	views []view
	bases []Latency
	// problems make the measurement INVALID.
	problems []string
	out      Measurement
}

// survey gathers the whole window's evidence.
func (m *measuring) survey() {
	m.views = survey(m.lanes, m.in.From, m.in.Until)
	for _, v := range m.views {
		m.bases = append(m.bases, baseline(v.all, m.firstFault))
	}
}

// survey gathers each lane's evidence and bounds its outages, then lets the
// lanes of a probe narrow each other's.
func survey(lanes []*Lane, from, until int64) []view {
	views := make([]view, len(lanes))
	for i, l := range lanes {
		views[i].evidence = gather(l, from, until)
		views[i].outages = views[i].evidence.outages(from)
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
			views[i].outages[k].measure()
		}
	}
	return views
}

func (m *measuring) measureLanes() {
	var all []outage
	for i, v := range m.views {
		l := m.lanes[i]
		r := LaneResult{Probe: l.Probe, Kind: l.Kind, Lane: l.Name, Baseline: m.bases[i]}
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
		r.StaleReads = m.staleReads(l, v.all)
		all = append(all, v.outages...)
		m.out.Lanes = append(m.out.Lanes, r)
	}
	m.out.Downtime = downtime(all, m.in.Until)
}

// measureFaults finds each fault's recovery. One that is followed by another
// fault is measured up to that fault only.
func (m *measuring) measureFaults() {
	for i, f := range m.faults {
		views, last := m.views, i+1 == len(m.faults)
		if !last {
			views = survey(m.lanes, m.in.From, m.faults[i+1].F0)
		}
		r := FaultResult{Step: f.Step, TTFS: noInterval(), TTStable: noInterval(), NeverFailed: len(views) > 0}
		for j := range views {
			rec := views[j].recover(f, m.in.StableWindow, slowLimit(m.bases[j]))
			stable := since(rec.stable, f)
			if r.Decisive == "" || later(stable, r.TTStable) {
				r.Decisive = m.lanes[j].ID()
			}
			r.TTFS = slowest(r.TTFS, since(rec.first, f))
			r.TTStable = slowest(r.TTStable, stable)
			r.NeverFailed = r.NeverFailed && rec.never
		}
		if len(views) == 0 {
			r.TTFS, r.TTStable = event.Interval{Open: true}, event.Interval{Open: true}
		}
		r.Censored = !last && r.TTStable.Open
		m.out.Faults = append(m.out.Faults, r)
	}
}

// staleReads is LaneResult.StaleReads.
func (m *measuring) staleReads(reader *Lane, reads []Attempt) int64 {
	if reader.Kind == kindWrite {
		return 0
	}
	var source *Lane
	for _, l := range m.lanes {
		if l.Kind != kindWrite || l.Epoch != reader.Epoch {
			continue
		}
		if reader.Reads != "" && l.ID() != reader.Reads {
			continue
		}
		if reader.Reads == "" && (l.Name != lanePooled || l.Target != reader.Target) {
			continue
		}
		if source != nil {
			return -1
		}
		source = l
	}
	if source == nil || !slices.ContainsFunc(reads, func(a Attempt) bool { return a.Outcome == OK }) {
		return -1
	}
	acked := make([]Attempt, 0, len(source.Attempts))
	for _, a := range source.Attempts {
		if a.Outcome == OK {
			acked = append(acked, a)
		}
	}
	slices.SortStableFunc(acked, func(x, y Attempt) int { return cmp.Compare(x.Completed, y.Completed) })
	newest := make([]int64, len(acked))
	for i, a := range acked {
		newest[i] = a.Seq
		if i > 0 {
			newest[i] = max(a.Seq, newest[i-1])
		}
	}
	var stale int64
	for _, r := range reads {
		if r.Outcome != OK {
			continue
		}
		n, _ := slices.BinarySearchFunc(acked, r.Started, func(a Attempt, t int64) int { return cmp.Compare(a.Completed, t) })
		if n > 0 && r.Observed < newest[n-1] {
			stale++
		}
	}
	return stale
}

// Kinds of lanes, as in event.ProbeBatch.
const kindWrite = "write"

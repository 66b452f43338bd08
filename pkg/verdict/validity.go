package verdict

import (
	"fmt"
	"slices"
	"time"
)

// admit picks the lanes that can be measured and notes what makes the
// measurement invalid.
func (m *measuring) admit() {
	in := m.in
	if in.Until <= in.From {
		m.problem("the measured window is empty")
	}
	if len(m.faults) == 0 {
		m.problem("no fault was injected: there is nothing to recover from")
	}
	for _, f := range m.faults {
		switch {
		case f.F1 < f.F0:
			m.problem("fault %s: its end lies before its begin", f.Step)
		case f.F0 < in.From || f.F1 > in.Until:
			m.problem("fault %s lies outside the measured window", f.Step)
		}
		if !f.Proven {
			m.problemOf(KindUnproven, "fault %s: no proof that it took effect%s", f.Step, because(f.How))
		}
	}
	if len(in.Lanes) == 0 {
		m.problem("no lane was probed")
	}
	seen := map[string]bool{}
	for i := range in.Lanes {
		l := &in.Lanes[i]
		id := fmt.Sprintf("%s epoch %d", l.ID(), l.Epoch)
		if seen[id] {
			m.problem("lane %s is there twice", id)
			continue
		}
		seen[id] = true
		if why := badLane(l); why != "" {
			m.laneProblem(l, "", "%s", why)
			continue
		}
		m.lanes = append(m.lanes, l)
	}
}

func because(how string) string {
	if how == "" {
		return ""
	}
	return " (" + how + ")"
}

func (m *measuring) problem(format string, args ...any) {
	m.problemOf("", format, args...)
}

func (m *measuring) problemOf(kind ProblemKind, format string, args ...any) {
	m.out.Problems = append(m.out.Problems, Problem{Kind: kind, Text: fmt.Sprintf(format, args...)})
}

func (m *measuring) laneProblem(l *Lane, kind ProblemKind, format string, args ...any) {
	m.out.Problems = append(m.out.Problems, Problem{Probe: l.Probe, Lane: l.Name, Epoch: l.Epoch, Kind: kind, Text: fmt.Sprintf(format, args...)})
}

// invalid reports whether anything makes the measurement INVALID.
func (m *measuring) invalid() bool { return len(m.in.Invalidities)+len(m.out.Problems) > 0 }

// checkLanes notes where the observer did not keep its schedule. Rates are
// judged lane by lane, jitter over the run: it is the process's, and a sparse
// lane's 99th percentile would be its one worst attempt.
func (m *measuring) checkLanes() {
	var jitter []int64
	for i, v := range m.views {
		r, l := m.out.Lanes[i], m.lanes[i]
		if r.Scheduled == 0 {
			m.laneProblem(l, KindEdge, "no attempts in the measured window")
			continue
		}
		if len(m.faults) > 0 && m.bases[i].Max == 0 {
			m.laneProblem(l, KindEdge, "no ok attempt before the first fault, so there is no baseline")
		}
		if r.RateShare < MinRate {
			m.laneProblem(l, KindSchedule, "%.1f %% of the scheduled attempts were made, %.0f %% are needed", 100*r.RateShare, 100*MinRate)
		}
		if gap := m.tail(v.evidence); gap > 0 {
			m.laneProblem(l, KindEdge, "its attempts end %s before the measured window does", show(gap))
		}
		for _, a := range v.all {
			if a.Outcome != Skipped && !a.Extra {
				jitter = append(jitter, a.Started-a.Scheduled)
			}
		}
	}
	slices.Sort(jitter)
	if p := percentile(jitter, len(jitter), 99); p > int64(JitterLimit) {
		m.problemOf(KindSchedule, "the 99th percentile of the scheduling jitter is %s, at most %s is allowed", show(p), JitterLimit)
	}
}

// tail is how long before the window's end the lane's slots end, if that is too
// long: more than a second, two slots of its own and a deadline.
func (m *measuring) tail(e *evidence) int64 {
	var longest int64
	for i := 1; i < len(e.all); i++ {
		longest = max(longest, e.all[i].Scheduled-e.all[i-1].Scheduled)
	}
	gap := m.in.Until - e.all[len(e.all)-1].Scheduled
	if gap <= int64(time.Second)+2*longest+e.lane.Deadline {
		return 0
	}
	return gap
}

// show writes nanoseconds for people.
func show(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d >= 10*time.Second || d <= -10*time.Second:
		d = d.Round(10 * time.Millisecond)
	case d >= time.Millisecond || d <= -time.Millisecond:
		d = d.Round(100 * time.Microsecond)
	}
	return d.String()
}

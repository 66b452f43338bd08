package verdict

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
)

// SteadyQuery asks for the steady state over a window of schedule times.
type SteadyQuery struct {
	From, To int64
	// MinAvailability is in percent.
	MinAvailability float64
	// MaxP95 is in nanoseconds; 0 means that it is not judged.
	MaxP95 int64
}

// Steadiness answers.
type Steadiness struct {
	// Settled is false until every lane has a settled attempt scheduled at or
	// after To: until then the window is not known whole, and Holds is false.
	Settled bool
	Holds   bool
	// Reasons say why it does not hold, a sentence a lane and cause.
	Reasons []string
	// Lanes summarise the window; a percentile of -1 stands for +inf.
	Lanes []event.LaneSummary
	// Availability is the worst lane's, in percent.
	Availability float64
	// P95 is the worst lane's from the schedule, failures included; -1 stands
	// for +inf.
	P95 int64
}

// Steady summarises the window [From, To) and judges it.
func (l *Live) Steady(q SteadyQuery) Steadiness {
	out := Steadiness{Settled: len(l.order) > 0, Availability: 100}
	if len(l.order) == 0 {
		out.Reasons, out.Availability = append(out.Reasons, "no lane is open"), 0
	}
	for _, k := range l.order {
		lane := l.lanes[k]
		in := lane.between(q.From, q.To)
		var r LaneResult
		r.count(in, q.From, lane.deadline)
		out.Lanes = append(out.Lanes, event.LaneSummary{
			Probe: k.Probe, Lane: k.Name, Scheduled: r.Scheduled, OK: r.OK,
			P50: event.Nanos(r.Latency.P50), P95: event.Nanos(r.Latency.P95), P99: event.Nanos(r.Latency.P99),
		})
		out.Availability = min(out.Availability, r.Availability)
		if out.P95 >= 0 {
			out.P95 = max(out.P95, r.Latency.P95)
		}
		if r.Latency.P95 < 0 {
			out.P95 = -1
		}
		if n := len(lane.settled); n == 0 || lane.settled[n-1].Scheduled < q.To {
			out.Settled = false
			out.Reasons = append(out.Reasons, fmt.Sprintf("%s: not all attempts of the window are settled", k))
			continue
		}
		out.Reasons = append(out.Reasons, q.against(k, r)...)
	}
	out.Holds = out.Settled && len(out.Reasons) == 0
	return out
}

// against says in which ways a lane's window misses the steady state.
func (q SteadyQuery) against(k LaneKey, r LaneResult) []string {
	var out []string
	if r.Scheduled == 0 {
		return []string{fmt.Sprintf("%s: no attempt was scheduled in the window", k)}
	}
	if r.Availability < q.MinAvailability {
		out = append(out, fmt.Sprintf("%s: %.3f %% of %d attempts met their deadline, %g %% are wanted", k, r.Availability, r.Scheduled, q.MinAvailability))
	}
	if p := r.Latency.P95; q.MaxP95 > 0 && (p < 0 || p > q.MaxP95) {
		found := "a failure"
		if p >= 0 {
			found = show(p)
		}
		out = append(out, fmt.Sprintf("%s: p95 is %s, at most %s is wanted", k, found, show(q.MaxP95)))
	}
	return out
}

// between are the settled attempts scheduled in [from, to).
func (l *liveLane) between(from, to int64) []Attempt {
	by := func(a Attempt, t int64) int { return cmp.Compare(a.Scheduled, t) }
	i, _ := slices.BinarySearchFunc(l.settled, from, by)
	j, _ := slices.BinarySearchFunc(l.settled, to, by)
	return l.settled[i:max(i, j)]
}

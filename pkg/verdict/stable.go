package verdict

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/firedrill/firedrill/pkg/event"
)

// stableQuery asks for the first ok of the stretch that lasts to the end.
type stableQuery struct {
	// since is the fault: only oks completed from then on are candidates.
	since  int64
	window int64
	// limit is the highest p95 from the schedule.
	limit int64
	// reach: all attempts scheduled up to here are known.
	reach int64
	// lax takes what shows nothing for no evidence instead of for bad. On a pooled lane
	// it also leaves out how long attempts had to wait for a connection, which may be the
	// probe's own doing.
	lax, pooled bool
}

// stability answers a stableQuery.
type stability struct {
	found bool
	first Attempt
	// slow is the start of the last ok that was turned down because the window
	// after it was too slow; wasSlow says that there was one.
	slow    int64
	wasSlow bool
	// lastBad is the index of the last bad attempt, -1 when there was none.
	lastBad int
}

// findStable looks, after the last bad attempt of all (in order of number), for
// the first ok that is followed by a whole window with its p95 within the limit.
// An attempt that is bad after such a window makes the stretch start anew: what
// fails again later was not stable.
func findStable(all []Attempt, q stableQuery) stability {
	s := stability{lastBad: -1}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Bad() && (all[i].shows() || !q.lax) {
			s.lastBad = i
			break
		}
	}
	tail := all[s.lastBad+1:]
	oks := make([]int64, len(tail)+1)
	slow := make([]int64, len(tail)+1)
	for i, a := range tail {
		oks[i+1], slow[i+1] = oks[i], slow[i]
		if a.Outcome == OK {
			oks[i+1]++
			if q.latency(a) > q.limit {
				slow[i+1]++
			}
		}
	}
	for i, k := range tail {
		if k.Scheduled+q.window > q.reach {
			break
		}
		if !q.candidate(k) {
			continue
		}
		end := q.end(tail, k)
		if slow[end]-slow[i] <= allowedSlow(oks[end]-oks[i]) {
			s.found, s.first = true, k
			return s
		}
		s.slow, s.wasSlow = k.Started, true
	}
	return s
}

// candidate reports whether a stretch may begin with k.
func (q stableQuery) candidate(k Attempt) bool {
	return k.Outcome == OK && k.Completed >= q.since && k.Completed+q.window <= q.reach
}

// latency is an ok attempt's, from its schedule.
func (q stableQuery) latency(a Attempt) int64 {
	took := a.Completed - a.Scheduled
	if q.lax && q.pooled {
		took -= a.Asked
	}
	return took
}

// end is the index of the first attempt after the window that begins with k.
func (q stableQuery) end(tail []Attempt, k Attempt) int {
	end, _ := slices.BinarySearchFunc(tail, k.Completed+q.window+1, func(a Attempt, t int64) int { return cmp.Compare(a.Scheduled, t) })
	return end
}

// worstP95 is the highest 95th percentile among the windows that findStable
// turned down; s is its answer about the same attempts. It is 0 when none was.
func (q stableQuery) worstP95(all []Attempt, s stability) int64 {
	tail := all[s.lastBad+1:]
	var windows [][2]int
	var reach int
	for i, k := range tail {
		if s.found && k.Seq >= s.first.Seq {
			break
		}
		if q.candidate(k) {
			windows = append(windows, [2]int{i, q.end(tail, k)})
			reach = max(reach, windows[len(windows)-1][1])
		}
	}
	if len(windows) == 0 {
		return 0
	}
	// It is one of the latencies: the smallest that no window exceeds too often.
	var took []int64
	for _, a := range tail[windows[0][0]:reach] {
		if a.Outcome == OK {
			took = append(took, q.latency(a))
		}
	}
	slices.Sort(took)
	oks, above := make([]int64, len(tail)+1), make([]int64, len(tail)+1)
	i := sort.Search(len(took)-1, func(n int) bool {
		for j, a := range tail {
			oks[j+1], above[j+1] = oks[j], above[j]
			if a.Outcome == OK {
				oks[j+1]++
				if q.latency(a) > took[n] {
					above[j+1]++
				}
			}
		}
		return !slices.ContainsFunc(windows, func(w [2]int) bool {
			return above[w[1]]-above[w[0]] > allowedSlow(oks[w[1]]-oks[w[0]])
		})
	})
	return took[i]
}

// recovery is when one lane was served again and stable after a fault, as
// moments on the observer's clock.
type recovery struct {
	first, stable event.Interval
	// slow is what put stability off, if latency did; else stability would have
	// come at soon, and until slowUntil it had surely not.
	slow            *Slowness
	soon, slowUntil int64
	// never: the lane saw no bad attempt; first and stable then run from the
	// fault (f0) on.
	never bool
}

// recover finds the lane's recovery from the fault in evidence that ends at the
// next fault or at the window's end.
func (v *view) recover(f FaultTime, window, limit int64) recovery {
	e := v.evidence
	q := stableQuery{since: f.F0, window: window, limit: limit, reach: e.reach, pooled: e.lane.Name == lanePooled}
	strict := findStable(e.all, q)
	q.lax = true
	lax := findStable(e.all, q)

	first, last := v.around(f.F0)
	gap, closed := e.gap(f.F0)
	r := recovery{never: last == nil && !e.badSince(f.F0)}
	if last == nil {
		r.first = event.Interval{Lo: f.F1, Hi: f.F0 + gap, Open: !closed}
		r.stable = r.first
	} else {
		r.first = first.End
		if k, ok := e.firstAskedFrom(first.cluster.firstStart); ok {
			r.first.Lo = min(r.first.Lo, first.downBefore(k)) // not all of it was without success
		}
		r.stable = last.End
	}
	// Where slowness put stability off, it begins after the last ok turned down.
	r.soon = r.stable.Lo
	if lax.wasSlow {
		r.stable.Lo = max(r.stable.Lo, lax.slow)
		r.slowUntil = lax.slow
		r.slow = &Slowness{Probe: e.lane.Probe, Lane: e.lane.Name, Limit: limit, P95: q.worstP95(e.all, lax), Window: window}
	}
	switch {
	case !strict.found:
		r.stable.Hi, r.stable.Open = r.stable.Lo, true
	case strict.wasSlow || strict.lastBad != lax.lastBad:
		r.stable.Hi = max(r.stable.Hi, strict.first.Completed)
	}
	return r
}

// around returns the first and the last outage that can have been on at or
// after the fault.
func (v *view) around(f0 int64) (first, last *outage) {
	for i := range v.outages {
		o := &v.outages[i]
		if o.End.Open || o.End.Hi > f0 {
			if first == nil {
				first = o
			}
			last = o
		}
	}
	return first, last
}

// badSince reports whether any attempt that completed from t on was not ok.
func (e *evidence) badSince(t int64) bool {
	for i := len(e.all) - 1; i >= 0; i-- {
		if e.all[i].Bad() && e.all[i].Completed >= t {
			return true
		}
	}
	return false
}

// gap is the longest time from f0's last proof of service on between two proofs
// that follow each other: an outage that no attempt met was shorter. It is false
// when no proof follows the fault.
func (e *evidence) gap(f0 int64) (int64, bool) {
	var longest int64
	found := false
	for _, a := range e.byStart {
		k, ok := e.firstOKFrom(a.Completed)
		if !ok || k.Completed < f0 {
			continue
		}
		found = true
		longest = max(longest, k.Completed-a.Started)
	}
	return longest, found
}

// since turns moments into times from a fault that took effect in [f0,f1].
func since(t event.Interval, f FaultTime) event.Interval {
	i := event.Interval{Lo: max(0, t.Lo-f.F1), Hi: max(0, t.Hi-f.F0), Open: t.Open}
	if i.Open {
		i.Hi = i.Lo
	}
	return i
}

// slowest merges lanes: the last to recover decides.
func slowest(x, y event.Interval) event.Interval {
	return event.Interval{Lo: max(x.Lo, y.Lo), Hi: max(x.Hi, y.Hi), Open: x.Open || y.Open}
}

// later reports whether x decides over y.
func later(x, y event.Interval) bool {
	if x.Open != y.Open {
		return x.Open
	}
	if x.Hi != y.Hi && !x.Open {
		return x.Hi > y.Hi
	}
	return x.Lo > y.Lo
}

// noInterval is slowest's neutral element.
func noInterval() event.Interval { return event.Interval{Lo: math.MinInt64, Hi: math.MinInt64} }

package verdict

import (
	"math"
	"slices"
	"time"
)

// LatencySlack is what the 95th percentile may rise by even where that is more
// than double: latency runs from the schedule, so this much (JitterLimit) may be
// the observer's own in a run that is still valid.
const LatencySlack = JitterLimit

// percentile is the nearest-rank percentile of n values of which the sorted
// ones are finite; -1 stands for +inf.
func percentile(sorted []int64, n int, p float64) int64 {
	if n == 0 {
		return 0
	}
	rank := max(1, int(math.Ceil(p/100*float64(n)-1e-9)))
	if rank > len(sorted) {
		return -1
	}
	return sorted[rank-1]
}

// latency sorts the finite values in place; the other n-len(oks) are +inf.
func latency(oks []int64, n int) Latency {
	slices.Sort(oks)
	return Latency{
		P50: percentile(oks, n, 50),
		P95: percentile(oks, n, 95),
		P99: percentile(oks, n, 99),
		Max: percentile(oks, n, 100),
	}
}

// okLatencies are the scheduled ok attempts' latencies from the schedule.
func okLatencies(as []Attempt) []int64 {
	out := make([]int64, 0, len(as))
	for _, a := range as {
		if a.Outcome == OK && !a.Extra {
			out = append(out, a.Completed-a.Scheduled)
		}
	}
	return out
}

// baseline is the ok-only latency of the attempts completed by the first fault.
func baseline(as []Attempt, firstFault int64) Latency {
	var oks []int64
	for _, a := range as {
		if a.Scheduled > firstFault {
			break
		}
		if a.Outcome == OK && !a.Extra && a.Completed <= firstFault {
			oks = append(oks, a.Completed-a.Scheduled)
		}
	}
	return latency(oks, len(oks))
}

// slowLimit is the highest p95 that counts as recovered. Without a baseline there is
// nothing to compare with: only failures count then, and the measurement is INVALID.
func slowLimit(base Latency) int64 {
	if base.P95 == 0 {
		return math.MaxInt64
	}
	return max(2*base.P95, base.P95+int64(LatencySlack))
}

// allowedSlow is how many of n values may exceed the limit with p95 within it.
func allowedSlow(n int64) int64 {
	return n - max(1, int64(math.Ceil(0.95*float64(n)-1e-9)))
}

// count fills in a lane's sums over the attempts, which are in schedule order.
func (r *LaneResult) count(as []Attempt, from, deadline int64) {
	bucket, met, slots := int64(math.MinInt64), int64(0), int64(0)
	r.MinAvailability = 100
	closeBucket := func() {
		if slots > 0 {
			r.MinAvailability = min(r.MinAvailability, percent(met, slots))
		}
		met, slots = 0, 0
	}
	var jitter []int64
	for _, a := range as {
		if a.Extra {
			continue
		}
		if b := (a.Scheduled - from) / int64(time.Second); b != bucket {
			closeBucket()
			bucket = b
		}
		r.Scheduled++
		slots++
		switch a.Outcome {
		case OK:
			r.OK++
			if a.Completed-a.Scheduled <= deadline {
				r.MetDeadline++
				met++
			}
		case Failed:
			r.Failed++
		case Unknown:
			r.Unknown++
		case Unsent:
			r.Unsent++
		case Skipped:
			r.Skipped++
			continue
		}
		jitter = append(jitter, a.Started-a.Scheduled)
	}
	closeBucket()
	if r.Scheduled == 0 {
		r.MinAvailability = 0
		return
	}
	r.Availability = percent(r.MetDeadline, r.Scheduled)
	r.RateShare = float64(r.Scheduled-r.Skipped) / float64(r.Scheduled)
	slices.Sort(jitter)
	r.JitterP99 = percentile(jitter, len(jitter), 99)
	oks := okLatencies(as)
	r.Latency = latency(oks, int(r.Scheduled))
	r.LatencyOK = latency(oks, len(oks))
}

func percent(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

package verdict

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
)

// ErrLedger is wrapped by every error of CompareLedger: the ledger or the lane
// is malformed, so nothing can be said about losses.
var ErrLedger = errors.New("ledger cannot be compared")

// books are a lane's attempts up to the cut, sorted by what they say.
type books struct {
	acked, unacked, tried event.Ranges
}

// CompareLedger compares one lane's acknowledgements up to the cut with what
// the target was found to hold, and bounds the recovery point from the faults.
//
// Losses are charged to the first fault that follows them, or to the last one.
// A write lost although it was acknowledged after the fault (on an old primary
// that came back, say) moves the moment of the loss to its own: until then, its
// writer had every reason to think that it was kept. Without faults, as of a lane
// on another clock than theirs, or without a survivor to measure from, the recovery
// point is open.
func CompareLedger(lane Lane, led Ledger, faults []FaultTime) (LedgerResult, error) {
	out := LedgerResult{Probe: led.Probe, Lane: led.Lane, Epoch: led.Epoch}
	if lane.Probe != led.Probe || lane.Name != led.Lane || lane.Epoch != led.Epoch {
		return out, fmt.Errorf("ledger of %s/%s epoch %d against lane %s epoch %d: %w", led.Probe, led.Lane, led.Epoch, lane.ID(), lane.Epoch, ErrLedger)
	}
	b, err := keep(lane, led.UpTo)
	if err != nil {
		return out, err
	}
	if err := led.Present.Validate(); err != nil {
		return out, fmt.Errorf("ledger of %s: %w: %w", lane.ID(), err, ErrLedger)
	}
	present := upTo(led.Present, led.UpTo)
	for _, seq := range slices.Sorted(maps.Keys(led.Duplicates)) {
		switch n := led.Duplicates[seq]; {
		case n < 2:
			return out, fmt.Errorf("ledger of %s: number %d is listed as a duplicate but was found %d times: %w", lane.ID(), seq, n, ErrLedger)
		case !led.Present.Has(seq):
			return out, fmt.Errorf("ledger of %s: number %d was found %d times but is not present: %w", lane.ID(), seq, n, ErrLedger)
		case seq <= led.UpTo:
			out.Duplicate.Add(seq)
		}
	}
	out.Acked = b.acked.Len()
	out.Lost = b.acked.Minus(present)
	out.Recovered = b.unacked.And(present)
	out.Phantom = present.Minus(b.tried)
	out.RPA = recoveryPoint(lane, out.Lost, led.UpTo, faults)
	return out, nil
}

// upTo leaves out the members above the cut.
func upTo(r event.Ranges, cut int64) event.Ranges {
	var out event.Ranges
	for _, p := range r {
		if p[0] <= cut {
			out = append(out, [2]int64{p[0], min(p[1], cut)})
		}
	}
	return out
}

func keep(lane Lane, cut int64) (books, error) {
	var b books
	for i, a := range lane.Attempts {
		if i > 0 && a.Seq <= lane.Attempts[i-1].Seq {
			return b, fmt.Errorf("lane %s: attempt %d comes after attempt %d: %w", lane.ID(), a.Seq, lane.Attempts[i-1].Seq, ErrLedger)
		}
		if a.Seq > cut {
			break
		}
		switch a.Outcome {
		case OK:
			b.acked.Add(a.Seq)
		case Failed, Unknown:
			b.unacked.Add(a.Seq)
		case Skipped, Unsent:
			continue
		default:
			return b, fmt.Errorf("lane %s: attempt %d has the unknown outcome %q: %w", lane.ID(), a.Seq, string(rune(a.Outcome)), ErrLedger)
		}
		b.tried.Add(a.Seq)
	}
	return b, nil
}

// recoveryPoint bounds how far before the fault the surviving state ends.
func recoveryPoint(lane Lane, lost event.Ranges, cut int64, faults []FaultTime) event.Interval {
	faults = slices.Clone(faults)
	slices.SortStableFunc(faults, func(x, y FaultTime) int { return cmp.Compare(x.F0, y.F0) })
	if len(faults) == 0 {
		return event.Interval{Open: true}
	}
	gone := make([][]Attempt, len(faults))
	var kept []Attempt
	for _, a := range lane.Attempts {
		if a.Seq > cut || a.Outcome != OK {
			continue
		}
		if !lost.Has(a.Seq) {
			kept = append(kept, a)
			continue
		}
		i := 0
		for i+1 < len(faults) && faults[i].F1 < a.Completed {
			i++
		}
		gone[i] = append(gone[i], a)
	}
	if len(lost) == 0 {
		return unlost(kept, faults[0])
	}
	worst := noInterval()
	for i, f := range faults {
		if len(gone[i]) > 0 {
			worst = slowest(worst, reach(gone[i], kept, f))
		}
	}
	return worst
}

// unlost is the recovery point without losses: what was written between the
// last acknowledgement and the fault, nobody knows.
func unlost(kept []Attempt, f FaultTime) event.Interval {
	last, ok := lastBefore(kept, f.F0)
	if !ok {
		return event.Interval{Open: true}
	}
	return event.Interval{Hi: max(0, f.F1-last)}
}

// reach is the recovery point with losses.
func reach(gone, kept []Attempt, f FaultTime) event.Interval {
	firstEnd, firstStart := int64(math.MaxInt64), int64(math.MaxInt64)
	f0, f1 := f.F0, f.F1
	for _, a := range gone {
		firstEnd, firstStart = min(firstEnd, a.Completed), min(firstStart, a.Started)
		f0, f1 = max(f0, a.Started), max(f1, a.Completed)
	}
	out := event.Interval{Lo: max(0, f0-firstEnd)}
	last, ok := lastBefore(kept, firstStart)
	if !ok {
		out.Hi, out.Open = out.Lo, true
		return out
	}
	out.Hi = max(out.Lo, f1-last)
	return out
}

// lastBefore is the latest start among the attempts completed by t.
func lastBefore(as []Attempt, t int64) (int64, bool) {
	var last int64
	found := false
	for _, a := range as {
		if a.Completed <= t && (!found || a.Started > last) {
			last, found = a.Started, true
		}
	}
	return last, found
}

// compareLedgers compares every ledger with its lane. The recovery point over all is
// the furthest back; a lane on another clock that lost nothing has no say in it.
func (m *measuring) compareLedgers() {
	known := slices.Concat(m.in.Lanes, m.in.Outside)
	timed := len(known)
	known = append(known, m.in.Foreign...)
	worst, found := noInterval(), false
	for _, led := range m.in.Ledgers {
		i := slices.IndexFunc(known, func(l Lane) bool {
			return l.Probe == led.Probe && l.Name == led.Lane && l.Epoch == led.Epoch
		})
		if i < 0 {
			m.problem("ledger of %s/%s epoch %d: no such lane was measured", led.Probe, led.Lane, led.Epoch)
			continue
		}
		faults := m.in.Faults
		if i >= timed {
			faults = nil
		}
		r, err := CompareLedger(known[i], led, faults)
		if err != nil {
			m.problem("%v", err)
			continue
		}
		m.out.Ledgers = append(m.out.Ledgers, r)
		if i < timed || len(r.Lost) > 0 {
			worst, found = slowest(worst, r.RPA), true
		}
	}
	switch {
	case found:
		m.out.RPA = &worst
	case len(m.out.Ledgers) > 0:
		m.out.RPA = &event.Interval{Open: true}
	}
}

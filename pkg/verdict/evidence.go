package verdict

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// The assumptions that every interval rests on:
//
//  1. An ok attempt shows that the service worked at some instant between its
//     start and its completion.
//  2. A failed attempt shows that it did not work at some such instant.
//  3. An unknown (timed-out) attempt shows only that nobody answered. It is
//     charged to an instant between its start and the earlier of its completion
//     and its start plus the slowest answer that the lane had seen by then:
//     later than that it would have been answered, unless it was held back for a
//     while before it asked. A skipped slot shows nothing, nor does an attempt that
//     was held back, with nothing sent.
//  4. Between two bad attempts without a proof of service in between, the
//     service stayed down. And an outage that neither failed nor delayed any
//     attempt that started in it did not happen.
//  5. On the pooled lane, an attempt may have met an old connection, which leads to a
//     server that clients are led to no longer. It speaks for the service only if its
//     driver says that it asked by a connection begun no earlier than it was.

// lanePooled is the name of the lane that assumption 5 is about.
const lanePooled = "pooled"

// bad is a failed or unknown attempt as evidence.
type bad struct {
	seq, a, c int64
	// by is the latest instant at which it can have met the outage (assumption 3).
	by      int64
	unknown bool
	// waited: it was held back for a while before it asked.
	waited bool
	// sure is false when it may have met a stale connection (assumption 5).
	sure bool
}

// evidence is what a lane's attempts of the window prove, with the indexes that
// the bounds are looked up in.
type evidence struct {
	lane *Lane
	// all are the window's completed attempts by number.
	all []Attempt
	// reach: every attempt scheduled up to here is settled.
	reach int64
	bads  []bad
	// byStart and byEnd are the ok attempts by start and by completion.
	byStart, byEnd []Attempt
	// minEnd[i] is the index in byStart of the earliest completion in byStart[i:].
	minEnd []int
	// maxStart[i] is the latest start, maxTook[i] the slowest answer, in byEnd[:i+1].
	maxStart, maxTook []int64
	// minStart[i] is the earliest start in byEnd[i:].
	minStart []int64
	// unsent are the starts of attempts that were held back, in order.
	unsent []int64
	// prompt is the slowest answer before the lane's first bad attempt.
	prompt int64
}

// gather picks the attempts scheduled in [from, until] and completed by until:
// what was still under way then may have been spoilt by what came after.
func gather(l *Lane, from, until int64) *evidence {
	e := &evidence{lane: l, reach: math.MinInt64}
	lo, _ := slices.BinarySearchFunc(l.Attempts, from, func(a Attempt, t int64) int { return cmp.Compare(a.Scheduled, t) })
	settled := true
	for _, a := range l.Attempts[lo:] {
		if a.Scheduled > until {
			break
		}
		if a.Completed > until {
			settled = false
			continue
		}
		if settled {
			e.reach = a.Scheduled
		}
		e.all = append(e.all, a)
	}
	e.index()
	return e
}

func (e *evidence) index() {
	for _, a := range e.all {
		switch a.Outcome {
		case OK:
			e.byStart = append(e.byStart, a)
		case Failed, Unknown:
			e.bads = append(e.bads, newBad(a, e.lane.Name))
		case Unsent:
			e.unsent = append(e.unsent, a.Started)
		}
	}
	e.byEnd = slices.Clone(e.byStart)
	slices.SortStableFunc(e.byStart, func(x, y Attempt) int { return cmp.Compare(x.Started, y.Started) })
	slices.SortStableFunc(e.byEnd, func(x, y Attempt) int { return cmp.Compare(x.Completed, y.Completed) })
	slices.SortStableFunc(e.bads, func(x, y bad) int { return cmp.Compare(x.a, y.a) })
	slices.Sort(e.unsent)

	e.minEnd = make([]int, len(e.byStart))
	for i := len(e.byStart) - 1; i >= 0; i-- {
		e.minEnd[i] = i
		if i+1 < len(e.byStart) && e.byStart[e.minEnd[i+1]].Completed < e.byStart[i].Completed {
			e.minEnd[i] = e.minEnd[i+1]
		}
	}
	e.maxStart = make([]int64, len(e.byEnd))
	e.maxTook = make([]int64, len(e.byEnd))
	for i, a := range e.byEnd {
		e.maxStart[i], e.maxTook[i] = a.Started, a.Completed-a.Started
		if i > 0 {
			e.maxStart[i] = max(e.maxStart[i], e.maxStart[i-1])
			e.maxTook[i] = max(e.maxTook[i], e.maxTook[i-1])
		}
	}
	e.minStart = make([]int64, len(e.byEnd)+1)
	e.minStart[len(e.byEnd)] = math.MaxInt64
	for i := len(e.byEnd) - 1; i >= 0; i-- {
		e.minStart[i] = min(e.byEnd[i].Started, e.minStart[i+1])
	}
	for i := range e.bads {
		b := &e.bads[i]
		if took, ok := e.slowestBy(b.a); ok {
			b.answeredWithin(took)
		}
	}
	if len(e.bads) > 0 {
		e.prompt, _ = e.slowestBy(e.bads[0].a)
	} else if n := len(e.maxTook); n > 0 {
		e.prompt = e.maxTook[n-1]
	}
}

// newBad is an attempt that was made and was not ok as evidence, before it is known how
// slow answers had been.
func newBad(a Attempt, lane string) bad {
	return bad{seq: a.Seq, a: a.Started, c: a.Completed, by: a.Completed, unknown: a.Outcome == Unknown, waited: a.Waited, sure: a.speaks(lane)}
}

// answeredWithin says how long the slowest answer before it took.
func (b *bad) answeredWithin(took int64) {
	if b.unknown && !b.waited {
		b.by = min(b.c, b.a+took)
	}
}

// speaks reports whether an attempt of a lane speaks for the service, and not only for
// the connection that it met (assumption 5).
func (a Attempt) speaks(lane string) bool { return lane != lanePooled || a.Connected }

func startsBy(a Attempt, t int64) int { return cmp.Compare(a.Started, t) }

// endedBy is the number of ok attempts completed at or before t.
func (e *evidence) endedBy(t int64) int {
	n, _ := slices.BinarySearchFunc(e.byEnd, t, func(a Attempt, t int64) int {
		if a.Completed <= t {
			return -1
		}
		return 1
	})
	return n
}

// lastOKStart is the latest start among the ok attempts completed by t.
func (e *evidence) lastOKStart(t int64) (int64, bool) {
	n := e.endedBy(t)
	if n == 0 {
		return 0, false
	}
	return e.maxStart[n-1], true
}

func (e *evidence) slowestBy(t int64) (int64, bool) {
	n := e.endedBy(t)
	if n == 0 {
		return 0, false
	}
	return e.maxTook[n-1], true
}

// firstOKFrom is the earliest completed among the ok attempts started at or
// after t.
func (e *evidence) firstOKFrom(t int64) (Attempt, bool) {
	i, _ := slices.BinarySearchFunc(e.byStart, t, startsBy)
	if i == len(e.byStart) {
		return Attempt{}, false
	}
	return e.byStart[e.minEnd[i]], true
}

// firstStartAfter is the earliest start among the ok attempts completed after t.
func (e *evidence) firstStartAfter(t int64) int64 { return e.minStart[e.endedBy(t)] }

// badLane says what is wrong with a lane's attempts as such, or "".
func badLane(l *Lane) string {
	for i, a := range l.Attempts {
		switch {
		case a.Completed < a.Started:
			return fmt.Sprintf("attempt %d completed before it started", a.Seq)
		case a.Outcome != OK && a.Outcome != Failed && a.Outcome != Unknown && a.Outcome != Skipped && a.Outcome != Unsent:
			return fmt.Sprintf("attempt %d has the unknown outcome %q", a.Seq, string(rune(a.Outcome)))
		case i > 0 && a.Seq != l.Attempts[i-1].Seq+1:
			return fmt.Sprintf("attempt %d is followed by attempt %d", l.Attempts[i-1].Seq, a.Seq)
		case i > 0 && a.Scheduled < l.Attempts[i-1].Scheduled:
			return fmt.Sprintf("attempt %d was scheduled before attempt %d", a.Seq, l.Attempts[i-1].Seq)
		}
	}
	return ""
}

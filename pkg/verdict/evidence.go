package verdict

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
)

// The assumptions that every interval rests on:
//
//  1. An ok attempt shows that the service worked at some instant between its
//     start and its completion.
//  2. A failed attempt shows that it did not work at some such instant.
//  3. An attempt that is unknown, or failed at its deadline, shows only that nobody
//     answered. It is charged to an instant between its start and the earlier of its
//     completion and the moment at which it asked plus the slowest answer that the
//     lane had seen by then: later than that it would have been answered. One that got
//     no connection goes by the slowest attempt, whose connection may have been new
//     too. One that asked only after a quarter of its deadline shows nothing: had it
//     had all of its time, it may have been answered. Nor does a skipped slot, or an
//     attempt that was held back with nothing sent.
//  4. Between two bad attempts without a proof of service in between, the
//     service stayed down. And an outage that neither failed nor delayed any
//     attempt that started in it did not happen.
//  5. On the pooled lane, an attempt may have met an old connection, which leads to a
//     server that clients are led to no longer. It speaks for the service only if its
//     driver says that it asked by a connection begun no earlier than it was. The
//     lane's own outages are of its users, who keep connections as it does: one that
//     clients are led away from, and that goes on answering, serves them still.

// lanePooled is the name of the lane that assumption 5 is about.
const lanePooled = "pooled"

// bad is a failed or unknown attempt as evidence.
type bad struct {
	seq, a, c int64
	// asked is when it asked.
	asked int64
	// by is the latest instant at which it can have met the outage (assumption 3).
	by int64
	// unanswered: nobody answered; unconnected: nor was there a connection.
	unanswered, unconnected bool
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
	// In byEnd[:i+1], maxStart[i] is the latest start, maxAnswer[i] the slowest answer,
	// maxTook[i] the slowest attempt.
	maxStart, maxAnswer, maxTook []int64
	// minStart[i] is the earliest start in byEnd[i:].
	minStart []int64
	// silent are the starts of attempts that show nothing for having been held back, in
	// order.
	silent []int64
	// prompt is how long an attempt took at most before the lane's first bad one, but for
	// waiting for connections that others made.
	prompt int64
	// lastSlow[i] is the latest start in byStart[:i+1] of an attempt that took longer than
	// prompt, the smallest number where there is none.
	lastSlow []int64
	// looked counts the attempts that were gone through one by one where the indexes do not
	// say enough. It is only read by the test that keeps it from growing with their square.
	looked int
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
		e.all = append(e.all, a.judged(l.Deadline))
	}
	e.index()
	return e
}

func (e *evidence) index() {
	for _, a := range e.all {
		switch {
		case a.Outcome == OK:
			e.byStart = append(e.byStart, a)
		case a.shows():
			e.bads = append(e.bads, newBad(a, e.lane.Name))
		case a.Outcome != Skipped:
			e.silent = append(e.silent, a.Started)
		}
	}
	e.byEnd = slices.Clone(e.byStart)
	slices.SortStableFunc(e.byStart, func(x, y Attempt) int { return cmp.Compare(x.Started, y.Started) })
	slices.SortStableFunc(e.byEnd, func(x, y Attempt) int { return cmp.Compare(x.Completed, y.Completed) })
	slices.SortStableFunc(e.bads, func(x, y bad) int { return cmp.Compare(x.a, y.a) })
	slices.Sort(e.silent)

	e.minEnd = make([]int, len(e.byStart))
	for i := len(e.byStart) - 1; i >= 0; i-- {
		e.minEnd[i] = i
		if i+1 < len(e.byStart) && e.byStart[e.minEnd[i+1]].Completed < e.byStart[i].Completed {
			e.minEnd[i] = e.minEnd[i+1]
		}
	}
	e.maxStart = make([]int64, len(e.byEnd))
	e.maxAnswer, e.maxTook = make([]int64, len(e.byEnd)), make([]int64, len(e.byEnd))
	for i, a := range e.byEnd {
		e.maxStart[i], e.maxAnswer[i], e.maxTook[i] = a.Started, a.answered(), a.Completed-a.Started
		if i > 0 {
			e.maxStart[i] = max(e.maxStart[i], e.maxStart[i-1])
			e.maxAnswer[i] = max(e.maxAnswer[i], e.maxAnswer[i-1])
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
		if n := e.endedBy(b.a); n > 0 {
			b.answeredWithin(e.maxAnswer[n-1], e.maxTook[n-1])
		}
	}
	for _, a := range e.byEnd {
		if len(e.bads) > 0 && a.Completed > e.bads[0].a {
			break
		}
		took := a.Completed - a.Started
		if !a.speaks(e.lane.Name) {
			took -= a.Asked // it waited for what others had begun
		}
		e.prompt = max(e.prompt, took)
	}
	e.lastSlow = make([]int64, len(e.byStart))
	slow := int64(math.MinInt64)
	for i, a := range e.byStart {
		if a.Completed-a.Started > e.prompt {
			slow = a.Started
		}
		e.lastSlow[i] = slow
	}
}

// newBad is an attempt that was made and was not ok as evidence, before it is known how
// slow answers had been.
func newBad(a Attempt, lane string) bad {
	return bad{seq: a.Seq, a: a.Started, c: a.Completed, asked: a.Started + a.Asked, by: a.Completed,
		unanswered: a.unanswered, unconnected: a.unanswered && a.Outcome == Failed && a.Asked == 0, sure: a.speaks(lane)}
}

// answeredWithin says how long the slowest answer before it took, and the slowest attempt.
func (b *bad) answeredWithin(answer, attempt int64) {
	switch {
	case b.unconnected:
		b.by = min(b.c, b.a+attempt)
	case b.unanswered:
		b.by = min(b.c, b.asked+answer)
	}
}

func startsBy(a Attempt, t int64) int { return cmp.Compare(a.Started, t) }

// atOrBefore is the number of those whose moment is at or before t, of all in the order of it.
func atOrBefore[T any](all []T, t int64, moment func(T) int64) int {
	return sort.Search(len(all), func(i int) bool { return moment(all[i]) > t })
}

// badsBy is the number of bad attempts started at or before t.
func (e *evidence) badsBy(t int64) int {
	return atOrBefore(e.bads, t, func(b bad) int64 { return b.a })
}

// upsetBy is the latest start up to t of an attempt that was not served as promptly as
// those before the first outage, the smallest number where there is none.
func (e *evidence) upsetBy(t int64) int64 {
	at := int64(math.MinInt64)
	if n := e.badsBy(t); n > 0 {
		at = e.bads[n-1].a
	}
	if n := atOrBefore(e.silent, t, func(at int64) int64 { return at }); n > 0 {
		at = max(at, e.silent[n-1])
	}
	if n := atOrBefore(e.byStart, t, func(a Attempt) int64 { return a.Started }); n > 0 {
		at = max(at, e.lastSlow[n-1])
	}
	return at
}

// endedBy is the number of ok attempts completed at or before t.
func (e *evidence) endedBy(t int64) int {
	return atOrBefore(e.byEnd, t, func(a Attempt) int64 { return a.Completed })
}

// lastOKStart is the latest start among the ok attempts completed by t.
func (e *evidence) lastOKStart(t int64) (int64, bool) {
	n := e.endedBy(t)
	if n == 0 {
		return 0, false
	}
	return e.maxStart[n-1], true
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

// firstAskedFrom is the earliest start among the ok attempts that asked at or after t.
func (e *evidence) firstAskedFrom(t int64) (int64, bool) {
	i := slices.IndexFunc(e.byStart, func(a Attempt) bool { return a.Started+a.Asked >= t })
	if i < 0 {
		return 0, false
	}
	return e.byStart[i].Started, true
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

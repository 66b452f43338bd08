package verdict

import (
	"cmp"
	"math"
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
)

// outage is an Outage together with what its bounds were made from.
type outage struct {
	Outage
	// cluster are the bad attempts that it was made from.
	cluster cluster
	// by: an ok attempt that started then or later came after the outage.
	by int64
	// since is an earlier such moment, if all was quiet while the outage's
	// attempts were still waiting, which was until waited.
	since, waited int64
	// calm: from here until waited, no lane of the probe showed a further outage.
	calm int64
	// endStart is the start of the ok attempt that closes it; when open, the
	// largest number.
	endStart int64
	// proven are the stretches during which the service was surely down.
	proven []span
}

type span struct{ lo, hi int64 }

// cluster is a run of bad attempts with no clean proof of service in between.
type cluster struct {
	bads                   []bad
	firstStart, lastStart  int64
	firstEnd               int64
	lastFailedEnd, lastEnd int64
	// by is the latest instant at which any of them can have met the outage.
	by int64
}

func (c *cluster) add(b bad) {
	if len(c.bads) == 0 {
		*c = cluster{firstStart: b.a, firstEnd: b.c, lastStart: b.a, lastEnd: b.c, by: b.by, lastFailedEnd: math.MinInt64}
	}
	c.bads = append(c.bads, b)
	c.lastStart = max(c.lastStart, b.a)
	c.firstEnd = min(c.firstEnd, b.c)
	c.lastEnd = max(c.lastEnd, b.c)
	c.by = max(c.by, b.by)
	if !b.unanswered {
		c.lastFailedEnd = max(c.lastFailedEnd, b.c)
	}
}

// clusters splits the bad attempts where an ok attempt started after all of the
// earlier ones had met their outage and completed before any later one started.
func (e *evidence) clusters() []cluster {
	var out []cluster
	var cur cluster
	for _, b := range e.bads {
		if len(cur.bads) > 0 {
			if k, ok := e.firstOKFrom(cur.by); ok && k.Completed <= b.a {
				out = append(out, cur)
				cur = cluster{}
			}
		}
		cur.add(b)
	}
	if len(cur.bads) > 0 {
		out = append(out, cur)
	}
	return out
}

// outages bounds each cluster from the lane's own attempts. from stands in for
// the last ok when there was none. The ends are left to settle.
func (e *evidence) outages(from int64) []outage {
	cs := e.clusters()
	out := make([]outage, 0, len(cs))
	for _, c := range cs {
		out = append(out, e.bound(c, from))
	}
	return out
}

func (e *evidence) bound(c cluster, from int64) outage {
	o := outage{cluster: c, by: c.by, waited: c.lastEnd, endStart: math.MaxInt64}
	// Once a bad attempt has completed, the outage has begun, and an ok attempt
	// that starts then ends it, whatever older attempts are still waiting for:
	// unless a further outage began while they waited, which may be theirs.
	o.since = min(o.by, max(c.lastStart, c.firstEnd, c.lastFailedEnd))
	o.Probe, o.Lane = e.lane.Probe, e.lane.Name
	o.FirstBad, o.LastBad = c.bads[0].seq, c.bads[0].seq
	for _, b := range c.bads {
		o.FirstBad, o.LastBad = min(o.FirstBad, b.seq), max(o.LastBad, b.seq)
	}
	o.Start = event.Interval{Lo: from, Hi: c.firstEnd}
	if a, ok := e.lastOKStart(c.firstStart); ok {
		o.Start.Lo = a
	}
	o.End.Lo = o.Start.Lo
	for _, b := range c.bads {
		if b.sure {
			o.End.Lo = max(o.End.Lo, b.a)
		}
	}
	return o
}

// downBefore is the latest moment up to t at which the outage surely was on.
func (o *outage) downBefore(t int64) int64 {
	at := o.Start.Lo
	for _, b := range o.cluster.bads {
		if b.sure && b.a <= t {
			at = max(at, b.a)
		}
	}
	return at
}

func (o *outage) close(k Attempt) {
	o.End.Hi, o.End.Open, o.endStart = k.Completed, false, k.Started
	o.Start.Hi = min(o.Start.Hi, o.End.Hi)
}

// calmFrom is the earliest moment from which on every attempt of these lanes that started
// until t was served as promptly as before the first outage: then no further outage began
// meanwhile. It is the largest number while an attempt of theirs is under way.
func calmFrom(t int64, lanes []*evidence) int64 {
	calm := int64(math.MinInt64)
	for _, e := range lanes {
		if e.reach < t {
			return math.MaxInt64
		}
		calm = max(calm, e.upsetBy(t))
	}
	return calm
}

// settle finds the outage's end. The lane's own success decides whether it
// ended; then the other lanes of the probe narrow it, by attempts that speak for the
// service, which is the same for all. lanes are all of the probe's, with own among them.
func (o *outage) settle(own *evidence, lanes []*evidence) {
	o.calm = calmFrom(o.waited, lanes)
	k, ok := own.firstOKFrom(o.since)
	if !ok || (k.Started < o.by && k.Started < o.calm) {
		k, ok = own.firstOKFrom(o.by)
	}
	if !ok {
		o.End.Hi, o.End.Open = o.End.Lo, true
		return
	}
	o.close(k)
	for _, e := range lanes {
		if e != own {
			o.narrow(own, e)
		}
	}
}

func (o *outage) narrow(own, by *evidence) {
	i, _ := slices.BinarySearchFunc(by.byStart, o.since, startsBy)
	for _, k := range by.byStart[i:] {
		if k.Started >= o.End.Hi {
			break
		}
		by.looked++
		if k.Completed < o.End.Hi && k.speaks(by.lane.Name) && (k.Started >= o.by || k.Started >= o.calm) {
			o.close(k)
		}
	}
	// What was bad there after a success, here or there, may have met a later outage.
	before := min(o.endStart, own.firstStartAfter(o.End.Lo), by.firstStartAfter(o.End.Lo))
	for i := by.badsBy(before) - 1; i >= 0 && by.bads[i].a >= o.Start.Hi; i-- {
		by.looked++
		if b := by.bads[i]; b.sure && b.by <= before {
			o.End.Lo = max(o.End.Lo, b.a)
			break
		}
	}
}

// proven returns [lo,hi] without the surroundings of each ok attempt that may
// have been served in between.
func (e *evidence) proven(c cluster, lo, hi int64) []span {
	if lo >= hi {
		return nil
	}
	first := e.endedBy(lo)
	last := first
	for last < len(e.byEnd) && e.minStart[last] < hi { // who starts after the core says nothing about it
		last++
		e.looked++
	}
	if first == last {
		return []span{{lo, hi}}
	}
	around := c.surroundings()
	var out []span
	// The later an ok completed, the later its surroundings end: so they are taken out
	// from the end on. What lies before rest is left.
	rest := hi
	for _, k := range slices.Backward(e.byEnd[first:last]) {
		if k.Started >= hi {
			continue
		}
		cut := around.of(k)
		if cut.hi < rest {
			out = append(out, span{cut.hi, rest})
		}
		if rest = min(rest, cut.lo); rest <= lo {
			return out
		}
	}
	return append(out, span{lo, rest})
}

// surroundings are the indexes of a cluster in which the bad attempts beside an ok one
// are looked up.
type surroundings struct {
	// bads are by start; minEnd[i] is the earliest completion in bads[i:].
	bads   []bad
	minEnd []int64
	// met are by the latest instant of meeting the outage; in met[:i+1], maxStart[i] is
	// the latest start.
	met      []bad
	maxStart []int64
}

func (c *cluster) surroundings() surroundings {
	n := len(c.bads)
	s := surroundings{bads: c.bads, met: slices.Clone(c.bads), minEnd: make([]int64, n), maxStart: make([]int64, n)}
	slices.SortFunc(s.met, func(x, y bad) int { return cmp.Compare(x.by, y.by) })
	for i, b := range s.met {
		s.maxStart[i] = b.a
		if i > 0 {
			s.maxStart[i] = max(b.a, s.maxStart[i-1])
		}
	}
	for i, b := range slices.Backward(s.bads) {
		s.minEnd[i] = b.c
		if i+1 < n {
			s.minEnd[i] = min(b.c, s.minEnd[i+1])
		}
	}
	return s
}

// of are the surroundings of an ok attempt: from the last start of those that had met
// their outage before it, to the first completion of those that began after it.
func (s surroundings) of(k Attempt) span {
	out := span{math.MinInt64, math.MaxInt64}
	if n := atOrBefore(s.met, k.Started, func(b bad) int64 { return b.by }); n > 0 {
		out.lo = s.maxStart[n-1]
	}
	if i, _ := slices.BinarySearchFunc(s.bads, k.Completed, func(b bad, t int64) int { return cmp.Compare(b.a, t) }); i < len(s.bads) {
		out.hi = s.minEnd[i]
	}
	return out
}

// measure fills in Length and what is proven, once the ends are final: what another
// lane proved of the end is proven of the downtime too. own is the outage's lane.
func (o *outage) measure(own *evidence) {
	o.proven = own.proven(o.cluster, o.Start.Hi, o.End.Lo)
	o.Length = event.Interval{
		Lo:   max(0, o.End.Lo-o.Start.Hi),
		Hi:   max(0, o.End.Hi-o.Start.Lo),
		Open: o.End.Open,
	}
}

// total sums the union of spans.
func total(ss []span) int64 {
	ss = slices.Clone(ss)
	slices.SortFunc(ss, func(x, y span) int { return cmp.Compare(x.lo, y.lo) })
	var sum int64
	end := int64(math.MinInt64)
	for _, s := range ss {
		if lo := max(s.lo, end); s.hi > lo {
			sum += s.hi - lo
		}
		end = max(end, s.hi)
	}
	return sum
}

// downtime is the union of outages: at least what was proven, at most from the
// earliest start to the latest end of each, up to until.
func downtime(os []outage, until int64) event.Interval {
	var sure, most []span
	open := false
	for _, o := range os {
		sure = append(sure, o.proven...)
		hi := o.End.Hi
		if o.End.Open {
			hi, open = max(until, o.End.Lo), true
		}
		most = append(most, span{o.Start.Lo, hi})
	}
	return event.Interval{Lo: total(sure), Hi: total(most), Open: open}
}

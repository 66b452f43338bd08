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

// quiet reports whether every attempt of these lanes that started between t and
// the completion of the outage's last attempt was served as promptly as before
// the first outage: then no further outage began meanwhile.
func (o *outage) quiet(t int64, lanes []*evidence) bool {
	for _, e := range lanes {
		if e.reach < o.waited {
			return false
		}
		i, _ := slices.BinarySearchFunc(e.bads, t+1, func(b bad, t int64) int { return cmp.Compare(b.a, t) })
		if i < len(e.bads) && e.bads[i].a <= o.waited {
			return false
		}
		if i, _ := slices.BinarySearch(e.silent, t+1); i < len(e.silent) && e.silent[i] <= o.waited {
			return false
		}
		i, _ = slices.BinarySearchFunc(e.byStart, t+1, startsBy)
		for ; i < len(e.byStart) && e.byStart[i].Started <= o.waited; i++ {
			if e.byStart[i].Completed-e.byStart[i].Started > e.prompt {
				return false
			}
		}
	}
	return true
}

// settle finds the outage's end. The lane's own success decides whether it
// ended; then the other lanes of the probe narrow it, by attempts that speak for the
// service, which is the same for all. lanes are all of the probe's, with own among them.
func (o *outage) settle(own *evidence, lanes []*evidence) {
	k, ok := own.firstOKFrom(o.since)
	if !ok || (k.Started < o.by && !o.quiet(k.Started, lanes)) {
		k, ok = own.firstOKFrom(o.by)
	}
	if !ok {
		o.End.Hi, o.End.Open = o.End.Lo, true
		return
	}
	o.close(k)
	for _, e := range lanes {
		if e != own {
			o.narrow(own, e, lanes)
		}
	}
}

func (o *outage) narrow(own, by *evidence, lanes []*evidence) {
	i, _ := slices.BinarySearchFunc(by.byStart, o.since, startsBy)
	for _, k := range by.byStart[i:] {
		if k.Started >= o.End.Hi {
			break
		}
		if k.Completed < o.End.Hi && k.speaks(by.lane.Name) && (k.Started >= o.by || o.quiet(k.Started, lanes)) {
			o.close(k)
		}
	}
	// What was bad there after a success, here or there, may have met a later outage.
	before := min(o.endStart, own.firstStartAfter(o.End.Lo), by.firstStartAfter(o.End.Lo))
	for _, b := range by.bads {
		if b.sure && b.a >= o.Start.Hi && b.by <= before {
			o.End.Lo = max(o.End.Lo, b.a)
		}
	}
}

// proven returns [lo,hi] without the surroundings of each ok attempt that may
// have been served in between.
func (e *evidence) proven(c cluster, lo, hi int64) []span {
	if lo >= hi {
		return nil
	}
	out := []span{{lo, hi}}
	for _, k := range e.byEnd[e.endedBy(lo):] {
		if k.Started >= hi {
			// An ok attempt that starts after the core says nothing about it, and
			// those that complete later start later but for overlaps.
			if k.Started >= c.lastEnd {
				break
			}
			continue
		}
		cut := span{lo, hi}
		for _, b := range c.bads {
			if b.by <= k.Started {
				cut.lo = max(cut.lo, b.a)
			}
			if b.a >= k.Completed {
				cut.hi = min(cut.hi, b.c)
			}
		}
		out = subtract(out, cut)
	}
	return out
}

func subtract(ss []span, cut span) []span {
	var out []span
	for _, s := range ss {
		if cut.hi <= s.lo || cut.lo >= s.hi {
			out = append(out, s)
			continue
		}
		if cut.lo > s.lo {
			out = append(out, span{s.lo, cut.lo})
		}
		if cut.hi < s.hi {
			out = append(out, span{cut.hi, s.hi})
		}
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

package fold

import (
	"cmp"
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

const (
	// stripBuckets is how finely a lane is drawn; one is about two pixels.
	stripBuckets = 480
	// closeShare: a closer look is drawn where it shows at most this part of the
	// timeline, since a wider one would show nothing new.
	closeShare = 0.6
	// closeLead is what the closer look shows before the fault, at least.
	closeLead = int64(500_000_000)
)

// draw fills in the phase's timeline.
func (f *phaseFold) draw() {
	from, to, ok := f.extent()
	if !ok {
		return
	}
	marks := f.marks
	if marks == nil {
		marks = []Mark{}
	}
	slices.SortStableFunc(marks, func(a, b Mark) int { return cmp.Compare(a.From, b.From) })
	t := &Timeline{Zero: f.axis.wall(f.axis.zero), ZeroMono: f.axis.zero, From: from, To: to, Marks: marks, Strip: f.strips(from, to)}
	t.Close = f.closeUp(from, to)
	f.out.Timeline = t
}

// extent is the stretch to draw: all attempts and marks.
func (f *phaseFold) extent() (from, to int64, ok bool) {
	take := func(lo, hi int64) {
		if !ok {
			from, to, ok = lo, hi, true
		}
		from, to = min(from, lo), max(to, hi)
	}
	for _, l := range f.lanes {
		take(sub(l.Attempts[0].Scheduled, f.axis.zero), sub(l.Attempts[len(l.Attempts)-1].Completed, f.axis.zero))
	}
	for _, m := range f.marks {
		take(m.From, m.To)
	}
	return from, to, ok && from < to
}

// closeUp covers what happened between the first fault and the end of the last
// outage before the restore.
func (f *phaseFold) closeUp(from, to int64) *CloseUp {
	if len(f.faults) == 0 {
		return nil
	}
	var last int64
	for _, o := range f.out.Outages {
		if !o.Restore && !o.Length.Open {
			last = max(last, o.To.Hi)
		}
	}
	if last <= 0 {
		return nil
	}
	margin := max(last/5, closeLead)
	lo, hi := max(from, -margin), min(to, add(last, margin))
	if lo >= hi || float64(sub(hi, lo)) > closeShare*float64(sub(to, from)) {
		return nil
	}
	return &CloseUp{From: lo, To: hi, Strip: f.strips(lo, hi)}
}

func (f *phaseFold) strips(from, to int64) []Strip {
	lanes := slices.Clone(f.lanes)
	slices.SortStableFunc(lanes, func(a, b verdict.Lane) int {
		return cmp.Or(cmp.Compare(a.Probe, b.Probe), -cmp.Compare(a.Name, b.Name), cmp.Compare(a.Epoch, b.Epoch))
	})
	out := []Strip{}
	for i := 0; i < len(lanes); {
		j := i
		var ok, bad [stripBuckets]int
		for ; j < len(lanes) && lanes[j].ID() == lanes[i].ID(); j++ {
			f.bucket(lanes[j].Attempts, from, to, &ok, &bad)
		}
		out = append(out, digits(lanes[i], &ok, &bad))
		i = j
	}
	return out
}

// bucket counts attempts by when they were scheduled: a hang shows where it
// began, as its user felt it.
func (f *phaseFold) bucket(as []verdict.Attempt, from, to int64, ok, bad *[stripBuckets]int) {
	width := float64(sub(to, from)) / stripBuckets
	for _, a := range as {
		at := sub(a.Scheduled, f.axis.zero)
		if at < from || at >= to || width <= 0 {
			continue
		}
		i := min(int(float64(sub(at, from))/width), stripBuckets-1)
		if a.Bad() {
			bad[i]++
		} else {
			ok[i]++
		}
	}
}

func digits(l verdict.Lane, ok, bad *[stripBuckets]int) Strip {
	s := Strip{Probe: l.Probe, Lane: l.Name}
	for i := range ok {
		s.Peak = max(s.Peak, ok[i]+bad[i])
	}
	digit := func(n int) byte {
		if n == 0 || s.Peak == 0 {
			return '0'
		}
		return byte('0' + (9*n+s.Peak-1)/s.Peak)
	}
	var o, b [stripBuckets]byte
	for i := range ok {
		o[i], b[i] = digit(ok[i]), digit(bad[i])
	}
	s.OK, s.Bad = string(o[:]), string(b[:])
	return s
}

// clockRows lists the last comparison of each other clock.
func (h *history) clockRows() []Clock {
	var out []Clock
	for _, n := range h.clocks {
		p := n.payload.(*event.ClockCompared)
		c := Clock{Name: p.Other, Offset: int64(p.Offset), Error: int64(p.Error)}
		if i := slices.IndexFunc(out, func(x Clock) bool { return x.Name == c.Name }); i >= 0 {
			out[i] = c
			continue
		}
		out = append(out, c)
	}
	return out
}

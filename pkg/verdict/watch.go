package verdict

import (
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
)

// watcher finds one lane's outages from its attempts in order of number, as
// evidence.clusters does with all of them at hand.
type watcher struct {
	// recent are attempts whose completion no later start has passed yet.
	recent []Attempt
	// Of the ok attempts completed before the latest start: the slowest answer, the
	// slowest attempt, the latest start.
	answer, took, okStart int64
	anyOK                 bool

	cur cluster
	// before is the start of the last ok before the outage; it is the first bad
	// attempt's when there was none.
	before int64
	// down is the latest start of an attempt that surely met the outage.
	down int64
	// oks started since the outage's first bad attempt.
	oks []Attempt
	// closer is the earliest completed ok that came after the whole outage.
	closer  Attempt
	closing bool
}

// see takes the next attempt.
func (w *watcher) see(a Attempt, lane string) []Notice {
	if !a.shows() {
		return nil
	}
	w.fold(a.Started)
	w.recent = append(w.recent, a)
	var out []Notice
	if len(w.cur.bads) > 0 && w.closing && a.Started >= w.closer.Completed {
		out = append(out, w.end())
	}
	switch {
	case a.Bad():
		if len(w.cur.bads) == 0 {
			w.begin(a)
			out = append(out, Notice{Seq: a.Seq, At: a.Completed})
		}
		w.bad(a, lane)
	case len(w.cur.bads) > 0:
		w.oks = append(w.oks, a)
		w.consider(a)
	}
	return out
}

func (w *watcher) begin(a Attempt) {
	w.before = a.Started
	if w.anyOK {
		w.before = w.okStart
	}
	w.down = w.before
	// An ok that came earlier by number may have started no earlier.
	w.oks = nil
	for _, r := range w.recent {
		if r.Outcome == OK && r.Started >= a.Started {
			w.oks = append(w.oks, r)
		}
	}
}

func (w *watcher) bad(a Attempt, lane string) {
	b := newBad(a, lane)
	if w.anyOK {
		b.answeredWithin(w.answer, w.took)
	}
	if b.sure {
		w.down = max(w.down, a.Started)
	}
	w.cur.add(b)
	// Only the extremes matter here; an outage may last for hours.
	w.cur.bads = w.cur.bads[:1]
	w.closing = false
	// What began before the outage's attempts can have met it closes it never more.
	w.oks = slices.DeleteFunc(w.oks, func(k Attempt) bool { return k.Started < w.cur.by })
	for _, k := range w.oks {
		w.consider(k)
	}
}

// consider takes an ok attempt for the outage's end if it can be that.
func (w *watcher) consider(k Attempt) {
	if k.Started < w.cur.by {
		return
	}
	if !w.closing || k.Completed < w.closer.Completed {
		w.closer, w.closing = k, true
	}
}

// end closes the outage: an attempt has started since it was over.
func (w *watcher) end() Notice {
	n := Notice{Ended: true, Seq: w.closer.Seq, At: w.closer.Completed}
	n.Lasted = event.Interval{Lo: max(0, w.down-min(w.cur.firstEnd, n.At)), Hi: n.At - w.before}
	w.cur, w.closing, w.oks = cluster{}, false, nil
	return n
}

// fold takes account of the attempts that completed by t.
func (w *watcher) fold(t int64) {
	rest := w.recent[:0]
	for _, r := range w.recent {
		switch {
		case r.Completed > t:
			rest = append(rest, r)
		case r.Outcome == OK:
			if !w.anyOK {
				w.okStart = r.Started
			}
			w.answer, w.took = max(w.answer, r.answered()), max(w.took, r.Completed-r.Started)
			w.okStart, w.anyOK = max(w.okStart, r.Started), true
		}
	}
	w.recent = rest
}

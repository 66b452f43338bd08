package fold

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// stretch is a part of the observer's clock.
type stretch struct{ from, until int64 }

// blind is a stretch in which nobody watched a lane: all of it may have been downtime.
type blind struct {
	probe, kind, lane string
	// after is the claim that had watched until then; 0 where there was none.
	after int64
	stretch
}

func (b blind) of(l verdict.LaneResult) bool {
	return b.probe == l.Probe && b.kind == l.Kind && b.lane == l.Lane
}

// watcher is an attempt that shows how the service was, with the claim that made it and
// the distance to the slot beside it.
type watcher struct {
	verdict.Attempt
	claim, slot int64
}

// unwatched lists what nobody watched of the lanes from one moment to another: between
// an observer and the next, and wherever a lane shows nothing for much longer than its
// slots are apart. Each begins with the last attempt before it and ends with the first
// one after it, for neither says when in its course the service worked.
func (f *phaseFold) unwatched(from, until int64) []blind {
	var out []blind
	for i, l := range f.lanes {
		same := func(o verdict.Lane) bool { return o.Probe == l.Probe && o.Kind == l.Kind && o.Name == l.Name }
		if slices.ContainsFunc(f.lanes[:i], same) {
			continue
		}
		all, patience := watchers(slices.DeleteFunc(slices.Clone(f.lanes[i:]), func(o verdict.Lane) bool { return !same(o) }))
		add := func(after, start, end int64) {
			if start, end = max(start, from), min(end, until); start < end {
				out = append(out, blind{l.Probe, l.Kind, l.Name, after, stretch{start, end}})
			}
		}
		if len(all) == 0 {
			add(0, from, until)
			continue
		}
		first, last := all[0], all[len(all)-1]
		if sub(first.Started, from) > patience {
			add(0, from, first.Completed)
		}
		for n, a := range all[1:] {
			before, limit := all[n], patience
			if a.claim != before.claim {
				limit = min(a.slot, before.slot)
			}
			if sub(a.Started, before.Started) > limit {
				add(before.claim, before.Started, a.Completed)
			}
		}
		if sub(until, last.Started) > patience {
			add(last.claim, last.Started, until)
		}
	}
	return out
}

// watchers are the attempts of a lane's claims that show anything, in order, and for how
// long the lane may be without one before it counts as unwatched: verdict lets it end as
// long before the window.
func watchers(claims []verdict.Lane) (all []watcher, patience int64) {
	for _, l := range claims {
		patience = max(patience, l.Deadline)
	}
	var widest int64
	for _, l := range claims {
		for i, a := range l.Attempts {
			w := watcher{Attempt: a, claim: l.Epoch}
			if i > 0 {
				w.slot = sub(a.Scheduled, l.Attempts[i-1].Scheduled)
			} else if len(l.Attempts) > 1 {
				w.slot = sub(l.Attempts[1].Scheduled, a.Scheduled)
			}
			if widest = max(widest, w.slot); l.Shows(a) {
				all = append(all, w)
			}
		}
	}
	slices.SortStableFunc(all, func(x, y watcher) int { return cmp.Compare(x.Started, y.Started) })
	return all, add(add(patience, int64(time.Second)), add(widest, widest))
}

// widen adds to the upper end of a downtime what nobody watched beside its outages. An
// open one has no upper end.
func widen(down event.Interval, outages []verdict.Outage, unseen []blind) event.Interval {
	if down.Open || len(unseen) == 0 {
		return down
	}
	most := stretches(outages)
	for _, b := range unseen {
		most = append(most, b.stretch)
	}
	var sum int64
	for _, s := range joined(most) {
		sum = add(sum, sub(s.until, s.from))
	}
	down.Hi = max(down.Hi, sum)
	return down
}

// stretches are those in which outages that ended may have been on.
func stretches(outages []verdict.Outage) []stretch {
	var out []stretch
	for _, o := range outages {
		if !o.End.Open {
			out = append(out, stretch{o.Start.Lo, o.End.Hi})
		}
	}
	return out
}

// joined makes one of the stretches that touch.
func joined(all []stretch) []stretch {
	all = slices.Clone(all)
	slices.SortFunc(all, func(x, y stretch) int { return cmp.Compare(x.from, y.from) })
	var out []stretch
	for _, s := range all {
		if n := len(out) - 1; n >= 0 && s.from <= out[n].until {
			out[n].until = max(out[n].until, s.until)
			continue
		}
		out = append(out, s)
	}
	return out
}

// mayBe bounds the single outages that a lane may have had: those that were seen, and what
// nobody watched, with the outages that reach into it.
func mayBe(l verdict.LaneResult, unseen []blind) []event.Interval {
	var out []event.Interval
	for _, o := range l.Outages {
		out = append(out, o.Length)
	}
	beside := stretches(l.Outages)
	seen := len(beside)
	for _, b := range unseen {
		if b.of(l) {
			beside = append(beside, b.stretch)
		}
	}
	if len(beside) > seen {
		for _, s := range joined(beside) {
			out = append(out, event.Interval{Hi: sub(s.until, s.from)})
		}
	}
	return out
}

// downtime bounds for how long the service was down from one moment to another, over all
// lanes.
func downtime(lanes []verdict.Lane, from, until int64, unseen []blind) event.Interval {
	down, outages := verdict.Downtime(lanes, from, until)
	return widen(down, outages, unseen)
}

// outagesOf are the outages of all lanes.
func outagesOf(lanes []verdict.LaneResult) []verdict.Outage {
	var out []verdict.Outage
	for _, l := range lanes {
		out = append(out, l.Outages...)
	}
	return out
}

// ofRow are the stretches that the row of a lane answers for, among all of the table's:
// those from its claim on to the next one's, and the first row for what was before it.
func ofRow(rows []verdict.LaneResult, row int, unseen []blind) []blind {
	var out []blind
	for _, b := range unseen {
		owner := -1
		for i, r := range rows {
			switch {
			case !b.of(r):
			case owner < 0, r.Epoch <= b.after && r.Epoch > rows[owner].Epoch, rows[owner].Epoch > b.after && r.Epoch < rows[owner].Epoch:
				owner = i
			}
		}
		if owner == row {
			out = append(out, b)
		}
	}
	return out
}

// afterwards is the downtime of a row's lane under all of its claims after the measured
// window. It stands in the row of the last claim that has one.
func afterwards(rows []LaneRow, row int, lanes []verdict.LaneResult, unseen []blind) Figure {
	of := func(b verdict.LaneResult) bool {
		a := rows[row].LaneResult
		return a.Probe == b.Probe && a.Kind == b.Kind && a.Lane == b.Lane
	}
	if slices.ContainsFunc(rows, func(r LaneRow) bool { return of(r.LaneResult) && r.Epoch > rows[row].Epoch }) {
		return Figure{}
	}
	lanes = slices.DeleteFunc(slices.Clone(lanes), func(l verdict.LaneResult) bool { return !of(l) })
	unseen = slices.DeleteFunc(slices.Clone(unseen), func(b blind) bool { return !b.of(rows[row].LaneResult) })
	if len(lanes)+len(unseen) == 0 {
		return Figure{}
	}
	var down event.Interval
	for _, l := range lanes {
		// Two claims may have seen one outage.
		down.Lo, down.Hi, down.Open = max(down.Lo, l.Downtime.Lo), add(down.Hi, l.Downtime.Hi), down.Open || l.Downtime.Open
	}
	return known(widen(down, outagesOf(lanes), unseen))
}

// phaseEnd is the phase's end on the observer's clock, or as far as it is watched.
func (f *phaseFold) phaseEnd() int64 {
	end := int64(math.MinInt64)
	if f.log.finished != nil {
		end = f.axis.moment(f.log.finished.at())
	}
	return max(end, f.lastAttempt())
}

package verdict

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
)

// LaneKey names a lane to Live and says what it is.
type LaneKey struct {
	Probe string
	Kind  string
	Name  string
	Epoch int64
}

// String is "probe/lane".
func (k LaneKey) String() string { return k.Probe + "/" + k.Name }

// Notice is a live message: an outage began or ended on a lane.
type Notice struct {
	Lane LaneKey
	// Ended is false for the start of an outage.
	Ended bool
	// Seq is the first bad attempt's, or the first ok's, number.
	Seq int64
	// At is that attempt's completion.
	At int64
	// Lasted is the outage's length; only with Ended. It contains the length
	// that Measure finds, which also uses what came later and other lanes.
	Lasted event.Interval
}

// Live follows a phase's attempts as they complete. It draws its conclusions
// from each lane's settled attempts, those with no number missing before them,
// so it lags behind the slowest attempt under way by at most a deadline. It
// agrees with Measure about the same attempts. Memory grows with the attempts
// (64 bytes each). It is not safe for concurrent use.
type Live struct {
	lanes map[LaneKey]*liveLane
	// order is that of opening, for stable output.
	order []LaneKey
}

type liveLane struct {
	key      LaneKey
	deadline int64
	next     int64
	// settled are the attempts before next; waiting those after it.
	settled []Attempt
	waiting map[int64]Attempt
	watch   watcher
	// lastBad is the latest schedule time of a bad attempt, settled or not.
	lastBad    int64
	anyBad     bool
	base       Latency
	baseWindow [2]int64
}

// NewLive returns a tracker without lanes.
func NewLive() *Live { return &Live{lanes: map[LaneKey]*liveLane{}} }

// Open declares a lane, so that its silence is noticed. The first attempt has
// the number firstSeq; deadline is D in nanoseconds and may be raised by
// calling Open again, which changes nothing else.
func (l *Live) Open(k LaneKey, firstSeq, deadline int64) {
	if lane := l.lanes[k]; lane != nil {
		lane.deadline = max(lane.deadline, deadline)
		return
	}
	l.lanes[k] = &liveLane{key: k, deadline: deadline, next: firstSeq, waiting: map[int64]Attempt{}}
	l.order = append(l.order, k)
}

// Add takes one completed (or skipped) attempt of an open lane, in any order,
// and returns what is to be told. An attempt of a lane that is not open, or with
// a number that was there before, changes nothing.
func (l *Live) Add(k LaneKey, a Attempt) []Notice {
	lane := l.lanes[k]
	if lane == nil || a.Seq < lane.next {
		return nil
	}
	if _, twice := lane.waiting[a.Seq]; twice {
		return nil
	}
	a = a.judged(lane.deadline)
	if a.Bad() && (!lane.anyBad || a.Scheduled > lane.lastBad) {
		lane.lastBad, lane.anyBad = a.Scheduled, true
	}
	lane.waiting[a.Seq] = a
	var out []Notice
	for {
		n, ok := lane.waiting[lane.next]
		if !ok {
			return out
		}
		delete(lane.waiting, lane.next)
		lane.next++
		lane.settled = append(lane.settled, n)
		for _, x := range lane.watch.see(n, k.Name) {
			x.Lane = k
			out = append(out, x)
		}
	}
}

// Settled returns the lane's attempts with no number missing before them, by
// number. The caller must not change them.
func (l *Live) Settled(k LaneKey) []Attempt {
	if lane := l.lanes[k]; lane != nil {
		return slices.Clip(lane.settled)
	}
	return nil
}

// StableQuery asks whether all lanes are stable.
type StableQuery struct {
	// From is where the baseline begins; FirstFault (f0 of the phase's first
	// fault) is where it ends.
	From, FirstFault int64
	// Since is f0 of the phase's last fault.
	Since int64
	// Window is W.
	Window int64
}

// Stability answers.
type Stability struct {
	Stable bool
	// At is the first ok's completion of the stable stretch of the slowest lane.
	At int64
	// NeverFailed is true when no lane had a bad attempt since the fault.
	NeverFailed bool
	// Reasons say why not, a sentence a lane.
	Reasons []string
}

// Stable reports whether every lane has been without a bad attempt for the
// window since the fault, with p95 at most twice the baseline's.
func (l *Live) Stable(q StableQuery) Stability {
	out := Stability{Stable: len(l.order) > 0, NeverFailed: true}
	if len(l.order) == 0 {
		out.Reasons = append(out.Reasons, "no lane is open")
	}
	for _, k := range l.order {
		lane := l.lanes[k]
		at, why := lane.stable(q)
		if why != "" {
			out.Stable = false
			out.Reasons = append(out.Reasons, k.String()+": "+why)
		}
		out.At = max(out.At, at)
		out.NeverFailed = out.NeverFailed && !lane.badSince(q.Since)
	}
	if !out.Stable {
		out.At, out.NeverFailed = 0, false
	}
	return out
}

// stable returns the first ok's completion, or why the lane is not stable.
func (l *liveLane) stable(q StableQuery) (int64, string) {
	if len(l.settled) == 0 {
		return 0, "no attempt is settled"
	}
	reach := l.settled[len(l.settled)-1].Scheduled
	// The cheap answers come first: this is asked many times a second.
	from := q.Since
	if l.anyBad && l.lastBad > from {
		from = l.lastBad
	}
	if good := reach - from; good < q.Window {
		if from > q.Since {
			return 0, fmt.Sprintf("no bad attempt for %s of %s", show(max(0, good)), show(q.Window))
		}
		return 0, fmt.Sprintf("watched for %s of %s", show(max(0, good)), show(q.Window))
	}
	tail := l.tail(from)
	s := findStable(tail, stableQuery{since: q.Since, window: q.Window, limit: slowLimit(l.baseline(q)), reach: reach})
	switch {
	case s.found:
		return s.first.Completed, ""
	case s.wasSlow:
		return 0, fmt.Sprintf("slow: p95 over %s is above %s (baseline %s)", show(q.Window), show(slowLimit(l.baseline(q))), show(l.baseline(q).P95))
	}
	return 0, fmt.Sprintf("the window of %s after its first success is not over", show(q.Window))
}

// tail is what may matter from t on: the attempts by number, from the last that
// was scheduled before t and completed by it.
func (l *liveLane) tail(t int64) []Attempt {
	i, _ := slices.BinarySearchFunc(l.settled, t, func(a Attempt, t int64) int { return cmp.Compare(a.Scheduled, t) })
	for i > 0 && l.settled[i-1].Completed >= t {
		i--
	}
	// One that hung may hide behind quick ones.
	for j := i - 1; j >= 0 && l.settled[j].Scheduled >= t-2*l.deadline; j-- {
		if l.settled[j].Completed >= t {
			i = j
		}
	}
	out := l.settled[i:]
	if len(l.waiting) == 0 {
		return out
	}
	out = slices.Clone(out)
	for _, seq := range slices.Sorted(maps.Keys(l.waiting)) {
		out = append(out, l.waiting[seq])
	}
	return out
}

// badSince reports whether an attempt that completed from t on was not ok.
func (l *liveLane) badSince(t int64) bool {
	if !l.anyBad {
		return false
	}
	return slices.ContainsFunc(l.tail(t), func(a Attempt) bool { return a.Bad() && a.Completed >= t })
}

func (l *liveLane) baseline(q StableQuery) Latency {
	w := [2]int64{q.From, q.FirstFault}
	if l.baseWindow != w || l.base.Max == 0 {
		lo, _ := slices.BinarySearchFunc(l.settled, q.From, func(a Attempt, t int64) int { return cmp.Compare(a.Scheduled, t) })
		l.base, l.baseWindow = baseline(l.settled[lo:], q.FirstFault), w
	}
	return l.base
}

// Cut returns, for every write lane, the last number up to which all attempts
// are settled.
func (l *Live) Cut() []event.LaneCut {
	var out []event.LaneCut
	for _, k := range l.order {
		if k.Kind == kindWrite {
			out = append(out, event.LaneCut{Probe: k.Probe, Lane: k.Name, Epoch: k.Epoch, UpTo: l.lanes[k].next - 1})
		}
	}
	return out
}

// LastBad returns the completion of the latest bad attempt of any lane that was
// scheduled at or after since; ok is false when there was none.
func (l *Live) LastBad(since int64) (at int64, ok bool) {
	for _, lane := range l.lanes {
		if !lane.anyBad || lane.lastBad < since {
			continue
		}
		for _, a := range lane.tail(since) {
			if a.Bad() && a.Scheduled >= since && (!ok || a.Completed > at) {
				at, ok = a.Completed, true
			}
		}
	}
	return at, ok
}

// Down returns the lanes that are down now, each with the completion of its
// outage's first bad attempt, for stop conditions.
func (l *Live) Down() map[LaneKey]int64 {
	out := map[LaneKey]int64{}
	for k, lane := range l.lanes {
		if w := &lane.watch; len(w.cur.bads) > 0 && !w.closing {
			out[k] = w.cur.firstEnd
		}
	}
	return out
}

package verdict

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

const ms = int64(time.Millisecond)

// downMode is how the simulated service fails.
type downMode int

const (
	// refuse fails at once.
	refuse downMode = iota
	// swallow never answers.
	swallow
	// freeze answers when it is over, if anybody still waits.
	freeze
)

// window is one true outage.
type window struct {
	s, e int64
	mode downMode
}

// simAttempt is an attempt together with the truth about it.
type simAttempt struct {
	Attempt
	// met is the index of the outage that a bad attempt met, else -1.
	met int
	// commit is when the write took effect, 0 if it did not.
	commit int64
}

// world is a simulated phase with known truth.
type world struct {
	rng     *rand.Rand
	windows []window
	// fault is the true moment; f0 and f1 enclose it.
	fault, f0, f1 int64
	end           int64
	// quick and slow bound the answer's time; slow ones only in [slowFrom,slowTo).
	quick, slow      int64
	slowFrom, slowTo int64
	// login is how long a connection takes at most, which may be longer than any answer.
	login    int64
	deadline int64
	window   int64
	// holds says that the pooled lane's probe holds most attempts back where the service
	// owes answers.
	holds         bool
	pooled, fresh []simAttempt
}

func between(r *rand.Rand, lo, hi int64) int64 {
	if hi <= lo {
		return lo
	}
	return lo + r.Int64N(hi-lo+1)
}

// newWorld draws a phase: a fault, perhaps outages with flaps, perhaps slowness
// after them.
func newWorld(seed uint64) *world {
	r := rand.New(rand.NewPCG(seed, 7))
	w := &world{rng: r, deadline: 250 * ms, window: 1000 * ms}
	w.quick = between(r, 1*ms/2, 60*ms)
	w.login = between(r, 0, []int64{2 * ms, 80 * ms}[r.IntN(2)])
	w.fault = 5000*ms + between(r, 0, 200*ms)
	w.f0, w.f1 = w.fault-between(r, 0, 8*ms), w.fault+between(r, 0, 8*ms)
	at := w.fault
	if r.IntN(3) == 0 {
		at += between(r, 0, 400*ms)
	}
	n := []int{0, 1, 1, 1, 1, 2, 3}[r.IntN(7)]
	modes := []downMode{refuse, swallow, freeze}
	mode := modes[r.IntN(3)]
	for range n {
		length := between(r, 60*ms, 1800*ms)
		switch r.IntN(5) {
		case 0:
			length = between(r, 1*ms, 60*ms)
		case 1:
			length = between(r, 200*ms, 300*ms)
		}
		w.windows = append(w.windows, window{at, at + length, mode})
		at += length + between(r, 20*ms, 700*ms)
		if r.IntN(2) == 0 {
			mode = modes[r.IntN(3)]
		}
	}
	if r.IntN(4) == 0 {
		w.slow = between(r, 30*ms, 120*ms)
		w.slowFrom = at
		if n == 0 {
			w.slowFrom = w.fault
		}
		w.slowTo = w.slowFrom + between(r, 10*ms, 2000*ms)
		at = w.slowTo
	}
	w.end = max(at, w.fault) + w.window + 900*ms
	w.holds = r.IntN(3) == 0
	w.pooled = w.probe(lanePooled, w.slots(lanePooled))
	w.fresh = w.probe("fresh", w.withExtra(w.slots("fresh")))
	return w
}

// at is the index of the outage that is on at t, else -1.
func (w *world) at(t int64) int {
	return slices.IndexFunc(w.windows, func(x window) bool { return t >= x.s && t < x.e })
}

// starting is the first outage that begins in (from,to], else -1.
func (w *world) starting(from, to int64) int {
	return slices.IndexFunc(w.windows, func(x window) bool { return x.s > from && x.s <= to })
}

// slots are a lane's schedule.
func (w *world) slots(lane string) []Attempt {
	var out []Attempt
	t := between(w.rng, 0, 50*ms)
	for t < w.end {
		out = append(out, Attempt{Scheduled: t})
		switch {
		case lane != lanePooled:
			t += 200 * ms
		case t > w.fault-3000*ms:
			t += 10 * ms
		default:
			t += 100 * ms
		}
	}
	return out
}

// withExtra adds, in most worlds, the extra attempts that are made while the pooled
// lane is down and fails at once.
func (w *world) withExtra(slots []Attempt) []Attempt {
	if w.rng.IntN(4) == 0 {
		return slots
	}
	for i, a := range w.pooled {
		if a.Bad() && a.shows() && a.Completed-a.Started < 3*ms && w.rng.IntN(10) > 0 {
			at := a.Completed
			if i > 0 && w.pooled[i-1].Bad() {
				at = max(at, a.Scheduled+5*ms)
			}
			slots = append(slots, Attempt{Scheduled: at, Extra: true})
		}
	}
	slices.SortStableFunc(slots, func(x, y Attempt) int { return cmp.Compare(x.Scheduled, y.Scheduled) })
	return slots
}

// pool is the client's connections on the pooled lane.
type pool struct {
	// drops are the moments at which the pool is dropped, returns those at which
	// an attempt hands its connection back.
	drops   []int64
	returns []pooledConn
}

type pooledConn struct{ made, back int64 }

// take returns when the connection was made that an attempt started at a uses;
// a itself when it makes one.
func (p *pool) take(a int64, r *rand.Rand) int64 {
	dropped := p.dropped(a)
	var ready []int
	for i, c := range p.returns {
		if c.back <= a && c.made > dropped {
			ready = append(ready, i)
		}
	}
	if len(ready) == 0 {
		return a
	}
	i := ready[r.IntN(len(ready))]
	made := p.returns[i].made
	p.returns = slices.Delete(p.returns, i, i+1)
	return made
}

// dropped is when the pool was dropped last before a.
func (p *pool) dropped(a int64) int64 {
	last := int64(-1)
	for _, d := range p.drops {
		if d <= a {
			last = max(last, d)
		}
	}
	return last
}

// probe makes all of a lane's attempts.
func (w *world) probe(lane string, slots []Attempt) []simAttempt {
	r := w.rng
	var out []simAttempt
	var p pool
	var busy []int64
	for i, slot := range slots {
		a, s := simAttempt{Attempt: slot, met: -1}, slot.Scheduled
		a.Seq, a.Started = int64(i+1), s
		if !a.Extra {
			a.Started += between(r, 0, 2*ms)
		}
		busy = slices.DeleteFunc(busy, func(c int64) bool { return c <= a.Started })
		if len(busy) >= 24 || (s < w.end-w.window-700*ms && r.IntN(1000) == 0) {
			a.Started, a.Completed, a.Outcome = s, s, Skipped
			out = append(out, a)
			continue
		}
		asks, made := a.Started, a.Started
		switch {
		case w.heldBack(a.Started, lane):
			if asks, made = w.waits(a.Started, lane, &p); asks < 0 {
				a.Outcome, a.Completed = Unsent, a.Started+w.deadline
				busy = append(busy, a.Completed)
				out = append(out, a)
				continue
			}
		case lane == lanePooled:
			made = p.take(a.Started, r)
		}
		took := between(r, w.quick/2, w.quick)
		if i == 0 {
			// Assumption 3 needs the slowest answer to have been seen.
			took = w.quick
		}
		if a.Started >= w.slowFrom && a.Started < w.slowTo {
			took = between(r, w.slow/2, w.slow)
		}
		a.Connected = lane == lanePooled && made >= a.Started
		w.attempt(&a, asks, took, made)
		if a.judged(w.deadline).late {
			a.met = -1 // and shows nothing of it
		}
		if lane == lanePooled {
			if a.Outcome == OK && w.broken(made, a.Completed) < 0 {
				p.returns = append(p.returns, pooledConn{made, a.Completed})
			} else if a.Outcome != OK {
				p.drops = append(p.drops, a.Completed)
			}
		}
		busy = append(busy, a.Completed)
		out = append(out, a)
	}
	return out
}

// heldBack says whether a lane's probe sends nothing in an attempt: mostly where the
// service owes it answers, and for a while after that.
func (w *world) heldBack(t int64, lane string) bool {
	if w.at(t) < 0 && w.at(t-w.deadline) < 0 {
		return t > w.quick*20 && t < w.end-w.window-700*ms && w.rng.IntN(2000) == 0
	}
	return (lane == lanePooled || w.at(t) >= 0) && w.holds && w.rng.IntN(8) > 0
}

// waits says when an attempt asks that was held back from t on, and when the connection
// was made that it got: on a pooled lane what is kept, else one that another attempt began
// since the last drop, and that has just worked. asks is -1 if it gets none.
func (w *world) waits(t int64, lane string, p *pool) (asks, made int64) {
	// On a lane that makes its own, the first answer lets all go on.
	if w.rng.IntN(3) > 0 || lane != lanePooled && w.at(t) < 0 {
		return -1, 0
	}
	asks = between(w.rng, t, t+w.deadline-1)
	made = asks
	if lane == lanePooled {
		if made = p.take(asks, w.rng); made < asks {
			return asks, made
		}
		made = between(w.rng, p.dropped(asks)+1, asks)
	}
	if w.at(asks) >= 0 || w.broken(made, asks) >= 0 {
		return -1, 0
	}
	return asks, made
}

// attempt decides the fate of an attempt that asks at some moment, by a connection that
// was made then or before.
func (w *world) attempt(a *simAttempt, asks, took, made int64) {
	r := w.rng
	if made == asks && !w.connect(a, &asks) {
		return
	}
	a.Asked = asks - a.Started
	arrives, answered, end := asks+between(r, 0, took), asks+took, a.Started+w.deadline
	lose := func(i int, from int64) {
		a.met, a.Outcome, a.Completed = i, Unknown, end
		if w.windows[i].mode == refuse || r.IntN(6) == 0 {
			a.Outcome = []Outcome{Failed, Unknown}[r.IntN(2)]
			a.Completed = min(a.Completed, from+between(r, 0, took))
		}
	}
	if i := w.broken(made, asks); i >= 0 {
		lose(i, asks)
		return
	}
	if arrives >= end { // it asked too late
		a.Outcome, a.Completed = Unknown, end
		if w.at(arrives) < 0 {
			a.commit = arrives
		}
		return
	}
	if i := w.at(arrives); i >= 0 {
		if w.windows[i].mode == freeze {
			a.commit = w.windows[i].e
			a.Completed = a.commit + between(r, 0, took)
			a.Outcome = OK
			if a.Completed > end {
				lose(i, arrives)
				a.Outcome, a.Completed = Unknown, end
			}
			return
		}
		lose(i, arrives)
		return
	}
	a.commit = arrives
	if i := w.starting(arrives, min(answered, end)); i >= 0 && w.windows[i].mode != freeze && r.IntN(2) == 0 {
		lose(i, w.windows[i].s)
		return
	}
	a.Outcome, a.Completed = OK, answered
	if answered > end { // it asked too late, too
		a.Outcome, a.Completed = Unknown, end
	}
}

// connect makes the connection of an attempt, which asks when it has it, and reports
// whether it got one.
func (w *world) connect(a *simAttempt, asks *int64) bool {
	r, end, held := w.rng, a.Started+w.deadline, *asks > a.Started
	login := between(r, w.login/2, w.login)
	reaches := *asks + between(r, 0, login)
	i := w.at(reaches)
	switch {
	case i < 0:
		*asks += login
	case w.windows[i].mode == freeze:
		*asks = w.windows[i].e + between(r, 0, login)
	default:
		a.met, a.Outcome, a.Completed = i, Failed, end
		if w.windows[i].mode == refuse {
			a.Completed = min(end, reaches+between(r, 0, login))
		}
		return false
	}
	if *asks < end {
		return true
	}
	a.Outcome, a.Completed = Unsent, end
	if !held { // it had all of its time
		a.met, a.Outcome = i, Failed
	}
	return false
}

// broken is the outage that broke a connection made at made and used at t.
func (w *world) broken(made, t int64) int {
	last := -1
	for i, x := range w.windows {
		if x.mode != freeze && x.s > made && x.s <= t {
			last = i
		}
	}
	return last
}

// batches publishes a lane as the observer would, in runs of random length and
// shuffled.
func (w *world) batches(lane string, as []simAttempt) []event.ProbeBatch {
	meta := BatchMeta{Phase: "p", Probe: "orders", Target: "db", Kind: kindWrite, Lane: lane, Epoch: 1, Deadline: w.deadline,
		Clock: event.Reading{Clock: "obs", Mono: 0, Wall: time.Unix(1_700_000_000, 0)}}
	var plain []Attempt
	for _, a := range as {
		plain = append(plain, a.Attempt)
	}
	var out []event.ProbeBatch
	for len(plain) > 0 {
		n := min(len(plain), 1+w.rng.IntN(200))
		out = append(out, NewBatch(meta, plain[:n]))
		plain = plain[n:]
	}
	w.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// faultTime is the fault as known from a second clock with offset, drift and
// bounded errors of comparison.
func (w *world) faultTime() (FaultTime, error) {
	r := w.rng
	offset := between(r, -int64(time.Hour), int64(time.Hour))
	ppm := between(r, -400, 400)
	other := func(t int64) int64 { return t + offset + t*ppm/1_000_000 }
	m := NewClockMap("obs")
	for range 1 + r.IntN(4) {
		at := between(r, 0, w.end)
		bound := between(r, 0, 5*ms)
		c := event.ClockCompared{Observer: "obs", Other: "inj", Error: event.Nanos(bound + 2), Offset: event.Nanos(other(at) - at + between(r, -bound, bound))}
		if err := m.Add(c, at); err != nil {
			return FaultTime{}, err
		}
	}
	read := func(t int64) event.Reading { return event.Reading{Clock: "inj", Mono: other(t)} }
	return m.Fault(event.FaultInjected{Step: "p/fault/kill", F0: read(w.f0), F1: read(w.f1), Proof: event.Proof{Proven: true, How: "simulated"}})
}

// lastMet is the end of the last outage that any attempt met, if any.
func (w *world) lastMet() (int64, bool) {
	last := -1
	for _, a := range slices.Concat(w.pooled, w.fresh) {
		last = max(last, a.met)
	}
	if last < 0 {
		return 0, false
	}
	return w.windows[last].e, true
}

// firstServed is when the later of the lanes was first served again: each after the first
// outage that it met, and those after which no attempt that began since then was served
// until the next (assumption 4): none of any lane, or of its own.
func (w *world) firstServed() (byAny, byOwn int64) {
	byAny, byOwn = w.fault, w.fault
	for _, lane := range [][]simAttempt{w.pooled, w.fresh} {
		first := len(w.windows)
		for _, a := range lane {
			if a.met >= 0 {
				first = min(first, a.met)
			}
		}
		if first == len(w.windows) {
			continue
		}
		after := func(as []simAttempt) int64 {
			as = slices.DeleteFunc(slices.Clone(as), func(a simAttempt) bool { return a.Started < w.windows[first].s })
			i := first
			for i+1 < len(w.windows) && !servedIn(as, w.windows[i].e, w.windows[i+1].s) {
				i++
			}
			return w.windows[i].e
		}
		byAny = max(byAny, after(slices.Concat(w.pooled, w.fresh)))
		byOwn = max(byOwn, after(lane))
	}
	return byAny, byOwn
}

// slowUntil is when the service was last slow or frozen without any attempt
// being bad: stability then has no true moment, only bounds.
func (w *world) slowUntil() (int64, bool) {
	last := -1
	for _, a := range slices.Concat(w.pooled, w.fresh) {
		last = max(last, a.met)
	}
	until, slow := w.slowTo, w.slowTo > 0
	for _, x := range w.windows[last+1:] {
		if x.mode == freeze {
			until, slow = max(until, x.e), true
		}
	}
	return until, slow
}

// truth of a measured outage: from the start of the first to the end of the
// last true outage that its bad attempts met.
func (w *world) truth(o Outage) (start, end int64) {
	as := w.pooled
	if o.Lane != lanePooled {
		as = w.fresh
	}
	first, last := len(w.windows), -1
	for _, a := range as {
		if a.Seq >= o.FirstBad && a.Seq <= o.LastBad && a.met >= 0 {
			first, last = min(first, a.met), max(last, a.met)
		}
	}
	// Outages without one attempt of any lane served in between are one to every
	// observer (assumption 4); the measured one may end with either.
	for !o.End.Contains(w.windows[last].e) && last+1 < len(w.windows) && !w.served(w.windows[last].e, w.windows[last+1].s) {
		last++
	}
	return w.windows[first].s, w.windows[last].e
}

// served reports whether any attempt took effect in [from,to).
func (w *world) served(from, to int64) bool {
	return servedIn(w.pooled, from, to) || servedIn(w.fresh, from, to)
}

func servedIn(as []simAttempt, from, to int64) bool {
	return slices.ContainsFunc(as, func(a simAttempt) bool { return a.Outcome == OK && a.commit > from && a.commit < to })
}

// loseWrites returns the ledger of a lane after the writes that took effect in
// the last lag before the fault were lost.
func (w *world) loseWrites(lane string, as []simAttempt, lag int64) Ledger {
	led := Ledger{Probe: "orders", Lane: lane, Epoch: 1, UpTo: int64(len(as))}
	as = slices.SortedFunc(slices.Values(as), func(x, y simAttempt) int { return cmp.Compare(x.Seq, y.Seq) })
	for _, a := range as {
		if a.commit > 0 && (a.commit <= w.fault-lag || a.commit > w.fault) {
			led.Present.Add(a.Seq)
		}
	}
	return led
}

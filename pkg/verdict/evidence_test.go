package verdict

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
)

// TestIndexesAgainstTheirDefinitions looks every bound up by brute force.
func TestIndexesAgainstTheirDefinitions(t *testing.T) {
	for seed := range uint64(150) {
		w := newWorld(seed)
		l := w.plain()[seed%2]
		e := gather(&l, 0, w.end)
		for range 60 {
			at := between(w.rng, 0, w.end)
			var lastStart, slowest int64 = -1, -1
			firstStart, firstEnd, upset := int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MinInt64)
			for _, a := range l.Attempts {
				prompt := a.Outcome == OK && a.Completed-a.Started <= e.prompt
				if a.Completed <= w.end && a.Started <= at && a.Outcome != Skipped && !prompt {
					upset = max(upset, a.Started)
				}
				switch {
				case a.Bad() || a.Completed > w.end:
					continue
				case a.Completed <= at:
					lastStart, slowest = max(lastStart, a.Started), max(slowest, a.answered())
				default:
					firstStart = min(firstStart, a.Started)
				}
				if a.Started >= at {
					firstEnd = min(firstEnd, a.Completed)
				}
			}
			if got, ok := e.lastOKStart(at); ok != (lastStart >= 0) || (ok && got != lastStart) {
				t.Fatalf("seed %d at %d: last ok start %d %v, want %d", seed, at, got, ok, lastStart)
			}
			if n := e.endedBy(at); n > 0 != (slowest >= 0) || n > 0 && (e.maxAnswer[n-1] != slowest || e.maxTook[n-1] < slowest) {
				t.Fatalf("seed %d at %d: of %d ended, the slowest answer is not %d", seed, at, n, slowest)
			}
			if got, ok := e.firstOKFrom(at); ok != (firstEnd < math.MaxInt64) || (ok && got.Completed != firstEnd) {
				t.Fatalf("seed %d at %d: first ok %d %v, want %d", seed, at, got.Completed, ok, firstEnd)
			}
			if got := e.upsetBy(at); got != upset {
				t.Fatalf("seed %d at %d: last upset %d, want %d", seed, at, got, upset)
			}
			if got := e.firstStartAfter(at); got != firstStart {
				t.Fatalf("seed %d at %d: first start %d, want %d", seed, at, got, firstStart)
			}
		}
	}
}

// TestSureDowntimeAgainstItsDefinition takes the surroundings of each ok attempt out of the
// core one after the other.
func TestSureDowntimeAgainstItsDefinition(t *testing.T) {
	several := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 3))
		often := 2 + r.IntN(20)
		l := partly("fresh", 10*ms, between(r, 2*ms, 80*ms), 300, func(int) (Outcome, int64) {
			if r.IntN(often) == 0 {
				return OK, 0
			}
			return []Outcome{Failed, Unknown}[r.IntN(2)], between(r, 1*ms, 250*ms)
		})
		for i := range l.Attempts {
			if a := &l.Attempts[i]; a.Outcome == OK && r.IntN(10) == 0 {
				a.Completed += between(r, 0, 800*ms)
			}
		}
		e := gather(&l, 0, math.MaxInt64)
		for _, o := range e.outages(0) {
			c, lo, hi := o.cluster, o.Start.Hi, o.End.Lo
			down := []span{{lo, max(lo, hi)}}
			for _, k := range e.byEnd[e.endedBy(lo):] {
				cut := span{lo, hi}
				for _, b := range c.bads {
					if b.by <= k.Started {
						cut.lo = max(cut.lo, b.a)
					}
					if b.a >= k.Completed {
						cut.hi = min(cut.hi, b.c)
					}
				}
				if k.Started >= hi {
					continue
				}
				var rest []span
				for _, s := range down {
					for _, part := range []span{{s.lo, min(s.hi, cut.lo)}, {max(s.lo, cut.hi), s.hi}} {
						if part.lo < part.hi {
							rest = append(rest, part)
						}
					}
				}
				down = rest
			}
			got := e.proven(c, lo, hi)
			if total(got) != total(down) {
				t.Fatalf("seed %d: outage from %d to %d: sure are %v, want %v", seed, lo, hi, got, down)
			}
			if len(got) > 1 {
				several++
			}
		}
	}
	if several < 200 {
		t.Errorf("only %d outages were surely on in several stretches", several)
	}
}

// delay makes the attempts of slots [from,to] complete at end.
func delay(l Lane, from, to int, end int64) Lane {
	for i := from; i <= to; i++ {
		l.Attempts[i].Completed = end
	}
	return l
}

// TestAttemptsUnderWay checks the bounds where attempts overlap, each with what
// made it necessary.
func TestAttemptsUnderWay(t *testing.T) {
	// The slowest answer before the fault took 100 ms: what hangs may have met an
	// outage up to 100 ms after its start.
	slowOnce := func(runs string) Lane { return delay(laneOf(t, lanePooled, 10*ms, runs), 50, 50, 600*ms) }

	t.Run("all quiet: the first ok ends it, whatever still hangs", func(t *testing.T) {
		m := Measure(inputOf(slowOnce("100k 40u 460k")))
		check(t, "end", m.Lanes[0].Outages[0].End, ival(1390, 1402))
	})
	t.Run("delayed meanwhile: what hung may have met a later outage", func(t *testing.T) {
		m := Measure(inputOf(delay(slowOnce("100k 40u 460k"), 143, 160, 1650*ms)))
		check(t, "end", m.Lanes[0].Outages[0].End, ival(1390, 1612))
	})
	t.Run("held back meanwhile: nobody saw that there was no later outage", func(t *testing.T) {
		m := Measure(inputOf(slowOnce("100k 40u 5k 10n 445k")))
		check(t, "end", m.Lanes[0].Outages[0].End, ival(1390, 1552))
	})
	t.Run("failed meanwhile: one outage, as none can be told from the other", func(t *testing.T) {
		m := Measure(inputOf(slowOnce("100k 40u 5k 10u 445k")))
		check(t, "outages", len(m.Lanes[0].Outages), 1)
		check(t, "end", m.Lanes[0].Outages[0].End, ival(1540, 1552))
	})
	t.Run("another lane failed meanwhile", func(t *testing.T) {
		fresh := delay(laneOf(t, "fresh", 200*ms, "5k 3u 22k"), 2, 2, 440*ms)
		m := Measure(inputOf(laneOf(t, lanePooled, 10*ms, "100k 40f 5k 16f 439k"), fresh))
		check(t, "end", m.Lanes[1].Outages[0].End.Hi, 1602*ms)
	})
	t.Run("another lane quiet", func(t *testing.T) {
		fresh := delay(laneOf(t, "fresh", 200*ms, "5k 3u 22k"), 2, 2, 440*ms)
		m := Measure(inputOf(laneOf(t, lanePooled, 10*ms, "100k 40f 460k"), fresh))
		check(t, "end", m.Lanes[1].Outages[0].End, ival(1400, 1402))
	})
	t.Run("old connections say nothing about new ones", func(t *testing.T) {
		m := Measure(inputOf(laneOf(t, lanePooled, 10*ms, "600k"), laneOf(t, "fresh", 200*ms, "5k 3f 22k")))
		check(t, "pooled outages", len(m.Lanes[0].Outages), 0)
		check(t, "end", m.Lanes[1].Outages[0].End, ival(1400, 1602))
		check(t, "decisive", m.Faults[0].Decisive, "orders/fresh")
	})
	t.Run("a success in the midst takes its surroundings out of the sure downtime", func(t *testing.T) {
		m := Measure(inputOf(slowOnce("100k 1f 10u 4k 1k 4k 31u 449k")))
		check(t, "outages", len(m.Lanes[0].Outages), 1)
		// Slots 111 to 119 were served. Down for sure: from 1001 to 1010, the last
		// start that had met its outage by 1110; and from 1450, the first timeout
		// of those started after the last of them, to 1500.
		check(t, "downtime", m.Downtime.Lo, (9+50)*ms)
	})
}

// TestDowntimeGoesToTheNarrowedEnd: what another lane of the probe proves of an
// outage's end is proven of the lane's downtime too.
func TestDowntimeGoesToTheNarrowedEnd(t *testing.T) {
	m := Measure(inputOf(laneOf(t, lanePooled, 10*ms, "100k 50f 450k"), laneOf(t, "fresh", 200*ms, "5k 3f 22k")))
	fresh := m.Lanes[1]
	// Its own last bad attempt started at 1400 ms, the pooled lane's at 1490 ms.
	check(t, "length", fresh.Outages[0].Length.Lo, (1490-1001)*ms)
	check(t, "downtime", fresh.Downtime.Lo, (1490-1001)*ms)
}

// TestWhatABadAttemptCanHaveMet: until when it is charged with an outage, by how long
// answers, and attempts with their connections, took before it.
func TestWhatABadAttemptCanHaveMet(t *testing.T) {
	const at, end = 1000 * ms, 1250 * ms
	bad := func(outcome Outcome, asked, completed int64) Attempt {
		return Attempt{Seq: 2, Scheduled: at, Started: at, Asked: asked, Completed: completed, Outcome: outcome}
	}
	for name, c := range map[string]struct {
		bad Attempt
		by  int64 // 0: it shows nothing
	}{
		"unknown":                          {bad(Unknown, 0, end), at + 10*ms},
		"unknown, that asked late":         {bad(Unknown, 20*ms, end), at + 30*ms},
		"unknown, soon over":               {bad(Unknown, 20*ms, at+25*ms), at + 25*ms},
		"unknown, that asked too late":     {bad(Unknown, 63*ms, end), 0},
		"failed":                           {bad(Failed, 0, at+5*ms), at + 5*ms},
		"failed at its deadline":           {bad(Failed, 0, end), at + 40*ms},
		"failed at its deadline, asked":    {bad(Failed, 20*ms, end), at + 30*ms},
		"failed at its deadline, too late": {bad(Failed, 63*ms, end), 0},
		"unsent":                           {bad(Unsent, 0, end), 0},
	} {
		l := laneOf(t, lanePooled, 10*ms, "")
		l.Attempts = []Attempt{{Seq: 1, Asked: 30 * ms, Completed: 40 * ms, Outcome: OK, Connected: true}, c.bad}
		e := gather(&l, 0, 2000*ms)
		if n := len(e.bads); (n == 0) != (c.by == 0) || n > 0 && e.bads[0].by != c.by {
			t.Errorf("%s: %+v, want it by %d", name, e.bads, c.by)
		}
	}
}

// TestPromptnessLeavesOutWaiting for what other attempts began, not for a connection of
// its own.
func TestPromptnessLeavesOutWaiting(t *testing.T) {
	for connected, want := range map[bool]int64{false: 5 * ms, true: 205 * ms} {
		l := laneOf(t, lanePooled, 10*ms, "")
		l.Attempts = []Attempt{{Seq: 1, Asked: 200 * ms, Completed: 205 * ms, Outcome: OK, Connected: connected}}
		if e := gather(&l, 0, 2000*ms); e.prompt != want {
			t.Errorf("connected %t: prompt is within %d, want %d", connected, e.prompt, want)
		}
	}
}

// TestEachAttemptHasItsOwnDeadline: the lane's was raised later, and says nothing of those
// before.
func TestEachAttemptHasItsOwnDeadline(t *testing.T) {
	const at, own, raised = 1000 * ms, 100 * ms, 700 * ms
	before := BatchMeta{Phase: "p", Probe: "orders", Kind: kindWrite, Lane: lanePooled, Clock: event.Reading{Clock: "obs"}, Deadline: own}
	after := before
	after.Deadline = raised
	for name, c := range map[string]struct {
		asked, took int64
		outcome     Outcome
		by          int64 // 0: it shows nothing
	}{
		"failed at its deadline":           {0, own, Failed, at + 40*ms},
		"failed at its deadline, too late": {26 * ms, own, Failed, 0},
		"failed before its deadline":       {26 * ms, own - ms, Failed, at + own - ms},
		"unknown, that asked in time":      {25 * ms, own, Unknown, at + 35*ms},
		"unknown, that asked too late":     {26 * ms, own, Unknown, 0},
	} {
		lanes, err := LanesFromBatches([]event.ProbeBatch{
			NewBatch(after, []Attempt{{Seq: 3, Scheduled: 2 * at, Started: 2 * at, Completed: 2*at + ms, Outcome: OK}}),
			NewBatch(before, []Attempt{
				{Seq: 1, Asked: 30 * ms, Completed: 40 * ms, Outcome: OK, Connected: true},
				{Seq: 2, Scheduled: at, Started: at, Asked: c.asked, Completed: at + c.took, Outcome: c.outcome},
			}),
		})
		if err != nil || lanes[0].Deadline != raised {
			t.Fatalf("%s: %+v, %v", name, lanes, err)
		}
		l, live := lanes[0], NewLive()
		e := gather(&l, 0, 3*at)
		if n := len(e.bads); (n == 0) != (c.by == 0) || n > 0 && e.bads[0].by != c.by {
			t.Errorf("%s: %+v, want it by %d", name, e.bads, c.by)
		}
		if got := l.Shows(l.Attempts[1]); got != (c.by > 0) {
			t.Errorf("%s: it shows something: %t", name, got)
		}
		k := LaneKey{l.Probe, l.Kind, l.Name, l.Epoch}
		live.Open(k, 1, l.Deadline)
		live.Add(k, l.Attempts[0])
		if got := live.Add(k, l.Attempts[1]); (len(got) > 0) != (c.by > 0) {
			t.Errorf("%s: noticed live: %+v", name, got)
		}
	}
}

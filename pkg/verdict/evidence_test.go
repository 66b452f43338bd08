package verdict

import (
	"math"
	"testing"
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
			firstStart, firstEnd := int64(math.MaxInt64), int64(math.MaxInt64)
			for _, a := range l.Attempts {
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
			if got := e.firstStartAfter(at); got != firstStart {
				t.Fatalf("seed %d at %d: first start %d, want %d", seed, at, got, firstStart)
			}
		}
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

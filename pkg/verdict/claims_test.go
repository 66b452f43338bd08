package verdict

import (
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
)

// claimsOf cuts a lane in two claims: the second begins with the attempt after the
// gap, and counts from 1 again.
func claimsOf(l Lane, died, gap int) []Lane {
	first, second := l, l
	first.Attempts = slices.Clone(l.Attempts[:died])
	second.Attempts, second.Epoch = slices.Clone(l.Attempts[died+gap:]), 2
	for i := range second.Attempts {
		second.Attempts[i].Seq = int64(i + 1)
	}
	return []Lane{first, second}
}

// TestClaimsAreOneLane: an observer that took over in the outage goes on with what
// the one before it saw, its baseline and the begin of the outage; what each of
// them saw is told apart.
func TestClaimsAreOneLane(t *testing.T) {
	whole := laneOf(t, lanePooled, 10*ms, "100k 50f 30K 420k")
	in := inputOf(claimsOf(whole, 120, 10)...)
	want := Measure(inputOf(whole)).Faults[0]
	m := Measure(in)
	got := m.Faults[0]
	if got.TTStable != want.TTStable || got.TTFS != want.TTFS || got.NeverFailed || len(got.Slow) != 1 || got.Slow[0] != want.Slow[0] {
		t.Errorf("the recovery by both %+v, by one %+v", got, want)
	}
	first, second := m.Lanes[0], m.Lanes[1]
	check(t, "the first one's claim", first.Epoch, 1)
	check(t, "the second one's claim", second.Epoch, 2)
	check(t, "the baseline", second.Baseline, first.Baseline)
	// The service worked last at the attempt of 990 ms, and the second observer's
	// first bad one completed at 1301 ms.
	check(t, "the outage that the second one met", second.Outages[0].Start, ival(990, 1301))
	if !first.Downtime.Open {
		t.Error("the first one saw the outage's end")
	}
	for _, p := range m.Problems {
		if strings.Contains(p.Text, "baseline") {
			t.Errorf("%s", p)
		}
	}
	if len(in.Lanes[0].Attempts) != 120 || in.Lanes[1].Attempts[0].Seq != 1 {
		t.Error("the input was changed")
	}
}

// TestAnotherClockIsAnotherLane: times of another machine are not put in one row.
func TestAnotherClockIsAnotherLane(t *testing.T) {
	lanes := claimsOf(laneOf(t, lanePooled, 10*ms, "100k 50f 450k"), 120, 10)
	lanes[1].Clock = "other"
	if m := Measure(inputOf(lanes...)); m.Lanes[1].Baseline.Max != 0 || !m.Faults[0].TTStable.Open {
		t.Errorf("%+v", m)
	}
}

// TestLedgersOfAllClaims: writes that were acknowledged to an observer that was
// replaced count as lost like any other, and without its ledger nobody knows.
func TestLedgersOfAllClaims(t *testing.T) {
	none := int64(0)
	lanes := claimsOf(laneOf(t, lanePooled, 10*ms, "100k 50f 450k"), 120, 10)
	var present event.Ranges
	for seq := range int64(98) {
		present.Add(seq + 1)
	}
	first := Ledger{Probe: "orders", Lane: lanePooled, Epoch: 1, UpTo: 120, Present: present}
	second := Ledger{Probe: "orders", Lane: lanePooled, Epoch: 2, UpTo: 0}
	judged := func(in Input, led ...Ledger) Judgement {
		in.RPORecords, in.Ledgers = &none, led
		m := Measure(in)
		i := slices.IndexFunc(m.Judgements, func(j Judgement) bool { return j.Of == OfRPORecords })
		return m.Judgements[i]
	}
	if j := judged(inputOf(lanes...), second); j.Verdict != Inconclusive || !strings.Contains(j.Why, "no ledger was read of orders/pooled of the observer's claim 1") {
		t.Errorf("without the first one's ledger: %+v", j)
	}
	if j := judged(inputOf(lanes...), first, second); j.Verdict != Fail || !strings.Contains(j.Why, "2 acknowledged writes are not there") {
		t.Errorf("with both: %+v", j)
	}
	outside := inputOf(lanes[1])
	outside.Outside = lanes[:1]
	if j := judged(outside, first, second); j.Verdict != Fail || !strings.Contains(j.Why, "2 acknowledged writes are not there") {
		t.Errorf("with the first one's lane outside of the window: %+v", j)
	}
}

// TestNobodyWatchedAfterTheRecovery: the first observer saw the service come back and
// died before it was stable; the service was stable from the second one's first ok on
// at the latest, and nobody knows whether it was before.
func TestNobodyWatchedAfterTheRecovery(t *testing.T) {
	whole := laneOf(t, lanePooled, 10*ms, "100k 50f 450k")
	one := Measure(inputOf(whole)).Faults[0]
	for _, c := range []struct {
		gap    int
		stable event.Interval
	}{
		{gap: 0, stable: one.TTStable},
		{gap: 1, stable: event.Interval{Lo: one.TTStable.Lo, Hi: (2010 + 2 - 994) * ms}},
		{gap: 100, stable: event.Interval{Lo: one.TTStable.Lo, Hi: (3000 + 2 - 994) * ms}},
	} {
		lanes := claimsOf(whole, 200, c.gap)
		m := Measure(inputOf(lanes...))
		check(t, "stable", m.Faults[0].TTStable, c.stable)
		check(t, "first success", m.Faults[0].TTFS, one.TTFS)
		for i, l := range m.Lanes {
			check(t, "attempts", l.Scheduled, int64(len(lanes[i].Attempts)))
			check(t, "skipped", l.Skipped, 0)
		}
		check(t, "availability after", m.Lanes[1].Availability, 100)
	}
	// Nor is it known whether the service failed at all while nobody watched.
	m := Measure(inputOf(claimsOf(laneOf(t, lanePooled, 10*ms, "600k"), 90, 20)...))
	check(t, "never failed", m.Faults[0].NeverFailed, false)
	check(t, "stable", m.Faults[0].TTStable, ival(0, 1102-890))
}

// TestThreeClaimsOfOneLane: an attempt that a late claim made in the hole between two
// others is in its place, and what is left of the hole on each side stays one.
func TestThreeClaimsOfOneLane(t *testing.T) {
	lanes := claimsOf(laneOf(t, lanePooled, 10*ms, "20k"), 5, 10)
	third := laneOf(t, lanePooled, 10*ms, "12k")
	third.Attempts, third.Epoch = third.Attempts[9:], 3
	joined := joinClaims([]*Lane{&lanes[0], &lanes[1], &third})
	if len(joined) != 1 {
		t.Fatalf("%d lanes", len(joined))
	}
	var row []byte
	for i, a := range joined[0].Attempts {
		check(t, "number", a.Seq, int64(i))
		row = append(row, byte(a.Outcome))
	}
	check(t, "the row", string(row), "kkkkkskkkskkkkk")
}

// TestTruthInsideAcrossClaims: wherever the observer is replaced, and for however long
// nobody watches, the recovery lies inside.
func TestTruthInsideAcrossClaims(t *testing.T) {
	hidden := 0
	for seed := range uint64(trials) {
		w := newWorld(seed)
		died := between(w.rng, w.fault-300*ms, w.end-1900*ms)
		back := died + between(w.rng, 20*ms, 800*ms)
		if w.starting(back, back+200*ms) >= 0 {
			// Some connections of a pool that is just being filled would be older than
			// the outage, and be found broken only after others were served.
			continue
		}
		missed := -1
		for _, a := range slices.Concat(w.pooled, w.fresh) {
			if a.Scheduled < back && a.Completed > died {
				missed = max(missed, a.met)
			}
		}
		in := w.input(t)
		in.Lanes = nil
		for _, lane := range []struct {
			name string
			into *[]simAttempt
		}{{lanePooled, &w.pooled}, {"fresh", &w.fresh}} {
			slots := w.slots(lane.name)
			cut := slices.IndexFunc(slots, func(a Attempt) bool { return a.Scheduled >= died })
			on := slices.IndexFunc(slots, func(a Attempt) bool { return a.Scheduled >= back })
			// What was under way when the observer died, it did not tell.
			first := w.probe(lane.name, slots[:cut])
			if i := slices.IndexFunc(first, func(a simAttempt) bool { return a.Completed > died }); i >= 0 {
				first = first[:i]
			}
			second := w.probe(lane.name, slots[on:])
			*lane.into = slices.Concat(first, second)
			for i, as := range [][]simAttempt{first, second} {
				l := laneOf(t, lane.name, 0, "")
				l.Epoch = int64(i + 1)
				for _, a := range as {
					l.Attempts = append(l.Attempts, a.Attempt)
				}
				in.Lanes = append(in.Lanes, l)
			}
		}
		truth, met := w.lastMet()
		if _, slow := w.slowUntil(); slow || !met && missed < 0 {
			continue
		}
		if missed >= 0 && w.windows[missed].e > truth {
			truth = w.windows[missed].e
			hidden++
		}
		contains(t, "achieved recovery time", Measure(in).Faults[0].TTStable, truth-w.fault)
		if t.Failed() {
			t.Fatalf("seed %d: nobody watched from %d to %d; windows %+v fault %d [%d,%d]", seed, died, back, w.windows, w.fault, w.f0, w.f1)
		}
	}
	if hidden < 50 {
		t.Errorf("only %d recoveries lay where nobody watched", hidden)
	}
}

// TestLedgersOfAnotherClock: what an observer on another machine was told and what is
// there can be compared, though its times cannot.
func TestLedgersOfAnotherClock(t *testing.T) {
	none, second := int64(0), 1000*ms
	lanes := claimsOf(laneOf(t, lanePooled, 10*ms, "20k 80k 50f 450k"), 20, 0)
	lanes[0].Clock = "other"
	for i := range lanes[0].Attempts {
		lanes[0].Attempts[i].Completed += 1 << 50 // as that clock may read
	}
	var all, some event.Ranges
	for seq := range int64(20) {
		all.Add(seq + 1)
		if seq < 17 {
			some.Add(seq + 1)
		}
	}
	var kept event.Ranges
	for _, a := range lanes[1].Attempts {
		if a.Outcome == OK {
			kept.Add(a.Seq)
		}
	}
	for _, c := range []struct {
		present            event.Ranges
		lost               int64
		records, recovered Verdict
		// open: how far back the loss reaches is not known.
		open bool
	}{{all, 0, Pass, Pass, false}, {some, 3, Fail, Inconclusive, true}} {
		in := inputOf(lanes[1])
		in.Foreign, in.RPORecords, in.RPOTime = lanes[:1], &none, &second
		in.Ledgers = []Ledger{{Probe: "orders", Lane: lanePooled, Epoch: 1, UpTo: 20, Present: c.present},
			{Probe: "orders", Lane: lanePooled, Epoch: 2, UpTo: 580, Present: kept}}
		m := Measure(in)
		if len(m.Problems) > 0 || len(m.Ledgers) != 2 || m.RPA == nil {
			t.Fatalf("problems %v, ledgers %+v, recovery point %v", m.Problems, m.Ledgers, m.RPA)
		}
		check(t, "lost", m.Ledgers[0].Lost.Len(), c.lost)
		check(t, "the lane's recovery point", m.Ledgers[0].RPA, event.Interval{Open: true})
		check(t, "the recovery point is open", m.RPA.Open, c.open)
		for _, j := range m.Judgements {
			switch j.Of {
			case OfRPORecords:
				check(t, "by number", j.Verdict, c.records)
			case OfRPOTime:
				check(t, "by time", j.Verdict, c.recovered)
			}
		}
		in.Ledgers = in.Ledgers[:1]
		if m := Measure(in); m.RPA == nil || !m.RPA.Open {
			t.Errorf("with no ledger on the clock: %+v", m.RPA)
		}
	}
}

// TestKindsOfProblems: those who handle some problems differently need not read them.
func TestKindsOfProblems(t *testing.T) {
	late := laneOf(t, lanePooled, 10*ms, "100k 50f 450k")
	for i := range late.Attempts {
		late.Attempts[i].Started += 6 * ms
		late.Attempts[i].Completed += 6 * ms
	}
	begins := laneOf(t, lanePooled, 10*ms, "600k")
	begins.Attempts = begins.Attempts[200:]
	unproven := inputOf(laneOf(t, lanePooled, 10*ms, "100k 50f 450k"))
	unproven.Faults[0].Proven = false
	for _, c := range []struct {
		of   string
		in   Input
		kind ProblemKind
	}{
		{"jitter", inputOf(late), KindSchedule},
		{"rate", inputOf(laneOf(t, lanePooled, 10*ms, "100k 100s 400k")), KindSchedule},
		{"begins late", inputOf(begins), KindEdge},
		{"ends early", inputOf(laneOf(t, lanePooled, 10*ms, "100k 50f 250k")), KindEdge},
		{"no proof", unproven, KindUnproven},
		{"other", func() Input { in := inputOf(late); in.Faults[0].F1 = 0; return in }(), ""},
	} {
		if m := Measure(c.in); len(m.Problems) == 0 || m.Problems[0].Kind != c.kind {
			t.Errorf("%s: %+v, want the kind %q", c.of, m.Problems, c.kind)
		}
	}
}

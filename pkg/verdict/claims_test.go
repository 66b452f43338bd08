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

package verdict

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
)

// naive is findStable by its definition, in the plainest words, with the worst
// p95 of the windows turned down.
func naive(all []Attempt, q stableQuery) (first Attempt, worst int64, ok bool) {
	bad := func(a Attempt) bool { return a.Bad() && !(q.lax && !a.shows()) }
	for i, k := range all {
		if k.Outcome != OK || k.Completed < q.since || k.Completed+q.window > q.reach || slices.ContainsFunc(all[i:], bad) {
			continue
		}
		var lats []int64
		for _, a := range all[i:] {
			if a.Outcome == OK && a.Scheduled <= k.Completed+q.window {
				took := a.Completed - a.Scheduled
				if q.lax && q.pooled {
					took -= a.Asked
				}
				lats = append(lats, took)
			}
		}
		p95 := latency(lats, len(lats)).P95
		if p95 <= q.limit {
			return k, worst, true
		}
		worst = max(worst, p95)
	}
	return Attempt{}, worst, false
}

// TestFindStableAgainstItsDefinition compares on random histories.
func TestFindStableAgainstItsDefinition(t *testing.T) {
	found, missing, slowed := 0, 0, 0
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 3))
		var all []Attempt
		var at int64
		slow := r.Float64() * 0.3
		for i := range 20 + r.IntN(150) {
			at += between(r, 5*ms, 15*ms)
			a := Attempt{Seq: int64(i), Scheduled: at, Started: at + between(r, 0, ms), Outcome: OK}
			took := between(r, 1*ms, 5*ms)
			if r.Float64() < slow {
				took = between(r, 20*ms, 200*ms)
			}
			a.Completed = a.Started + took
			switch r.IntN(120) {
			case 0:
				a.Outcome = Unknown
			case 1:
				a.Outcome = Skipped
			}
			if r.IntN(10) == 0 {
				a.Asked = between(r, 0, took)
			}
			all = append(all, a)
		}
		q := stableQuery{since: between(r, 0, at), window: between(r, 50*ms, 600*ms), limit: 10 * ms, reach: at, lax: r.IntN(2) == 0, pooled: r.IntN(2) == 0}
		got := findStable(all, q)
		want, worst, ok := naive(all, q)
		if got.found != ok || got.first != want {
			t.Fatalf("seed %d: got %+v, want %v %+v", seed, got, ok, want)
		}
		if p := q.worstP95(all, got); p != worst || got.wasSlow != (worst > 0) {
			t.Fatalf("seed %d: worst p95 %d, want %d", seed, p, worst)
		}
		if worst > 0 {
			slowed++
		}
		if ok {
			found++
		} else {
			missing++
		}
	}
	if found < 300 || missing < 300 || slowed < 300 {
		t.Fatalf("%d found, %d missing, %d slow: the comparison proves little", found, missing, slowed)
	}
}

func TestSlowLimit(t *testing.T) {
	check(t, "double", slowLimit(Latency{P95: 20 * ms}), 40*ms)
	check(t, "slack for quick services", slowLimit(Latency{P95: 1 * ms}), 6*ms)
}

// TestNothingIsSlowWithoutABaseline: an observer that took over in the midst of an
// outage has none, and must not keep the service failed over because of that.
func TestNothingIsSlowWithoutABaseline(t *testing.T) {
	k := LaneKey{Probe: "w", Kind: kindWrite, Name: "fresh", Epoch: 2}
	live := NewLive()
	live.Open(k, 1, int64(250*ms))
	for i := range int64(40) {
		at := 10_000*ms + i*200*ms
		live.Add(k, Attempt{Seq: i + 1, Scheduled: at, Started: at, Completed: at + 30*ms, Outcome: OK})
	}
	got := live.Stable(StableQuery{From: 0, FirstFault: 5_000 * ms, Since: 5_000 * ms, Window: 2_000 * ms})
	if !got.Stable {
		t.Errorf("%+v", got)
	}
}

// TestSlowLanesAreNamed: who put stability off by latency alone is named with its
// figures, and nobody else is.
func TestSlowLanesAreNamed(t *testing.T) {
	quick := laneOf(t, lanePooled, 10*ms, "100k 50f 450k")
	late := laneOf(t, lanePooled, 10*ms, "100k 150f 350k")
	slow := laneOf(t, "fresh", 10*ms, "100k 50f 100K 350k")
	never := laneOf(t, "fresh", 10*ms, "100k 50f 450K")
	said := Slowness{Probe: "orders", Lane: "fresh", Baseline: 2 * ms, Limit: 7 * ms, P95: 40 * ms, Window: 1000 * ms}
	const words = "; until then too slow: orders/fresh (p95 over 1s up to 40ms, at most 7ms is stable, baseline 2ms)"
	for _, c := range []struct {
		name  string
		lanes []Lane
		want  []Slowness
	}{
		{"nobody", []Lane{quick}, nil},
		{"late, and stable in the end", []Lane{quick, slow}, []Slowness{said}},
		{"to the end", []Lane{quick, never}, []Slowness{said}},
		{"slow for less long than another lane was down", []Lane{late, laneOf(t, "fresh", 10*ms, "100k 50f 30K 420k")}, nil},
	} {
		in := inputOf(c.lanes...)
		in.RTO = 100 * ms
		m := Measure(in)
		if !slices.Equal(m.Faults[0].Slow, c.want) {
			t.Errorf("%s: %+v", c.name, m.Faults[0].Slow)
		}
		if why := m.Judgements[1].Why; strings.Contains(why, words) != (len(c.want) > 0) {
			t.Errorf("%s: %s", c.name, why)
		}
	}
}

// TestShowContainsTheTruth: what is shown of an interval is no narrower than it.
func TestShowContainsTheTruth(t *testing.T) {
	check(t, "closed", Show(event.Interval{Lo: 79_550_000, Hi: 108_610_000}), "79.5ms to 108.7ms")
	check(t, "on the grain", Show(ival(100, 200)), "100ms to 200ms")
	check(t, "long", Show(event.Interval{Lo: 11_984_190_000, Open: true}), "> 11.9841s")
	check(t, "none", Show(event.Interval{}), "0s to 0s")
}

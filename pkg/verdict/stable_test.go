package verdict

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// naive is findStable by its definition, in the plainest words.
func naive(all []Attempt, q stableQuery) (Attempt, bool) {
	bad := func(a Attempt) bool { return a.Bad() && !(q.ignoreSkips && a.Outcome == Skipped) }
	for i, k := range all {
		if k.Outcome != OK || k.Completed < q.since || k.Completed+q.window > q.reach || slices.ContainsFunc(all[i:], bad) {
			continue
		}
		var lats []int64
		for _, a := range all[i:] {
			if a.Outcome == OK && a.Scheduled <= k.Completed+q.window {
				lats = append(lats, a.Completed-a.Scheduled)
			}
		}
		if latency(lats, len(lats)).P95 <= q.limit {
			return k, true
		}
	}
	return Attempt{}, false
}

// TestFindStableAgainstItsDefinition compares on random histories.
func TestFindStableAgainstItsDefinition(t *testing.T) {
	found, missing := 0, 0
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
			all = append(all, a)
		}
		q := stableQuery{since: between(r, 0, at), window: between(r, 50*ms, 600*ms), limit: 10 * ms, reach: at, ignoreSkips: r.IntN(2) == 0}
		got := findStable(all, q)
		want, ok := naive(all, q)
		if got.found != ok || got.first != want {
			t.Fatalf("seed %d: got %+v, want %v %+v", seed, got, ok, want)
		}
		if ok {
			found++
		} else {
			missing++
		}
	}
	if found < 300 || missing < 300 {
		t.Fatalf("%d found, %d missing: the comparison proves little", found, missing)
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

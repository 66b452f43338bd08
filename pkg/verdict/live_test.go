package verdict

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// completion is an attempt as the observer meets it.
type completion struct {
	key LaneKey
	a   Attempt
}

func (w *world) key(lane string) LaneKey {
	return LaneKey{Probe: "orders", Kind: kindWrite, Name: lane, Epoch: 1}
}

// completions are both lanes' attempts in order of completion.
func (w *world) completions() []completion {
	var out []completion
	for _, a := range w.pooled {
		out = append(out, completion{w.key(lanePooled), a.Attempt})
	}
	for _, a := range w.fresh {
		out = append(out, completion{w.key("fresh"), a.Attempt})
	}
	slices.SortStableFunc(out, func(x, y completion) int { return cmp.Compare(x.a.Completed, y.a.Completed) })
	return out
}

func (w *world) plain() []Lane {
	lane := func(name string, as []simAttempt) Lane {
		l := Lane{Clock: "obs", Probe: "orders", Kind: kindWrite, Name: name, Epoch: 1, Deadline: w.deadline}
		for _, a := range as {
			l.Attempts = append(l.Attempts, a.Attempt)
		}
		return l
	}
	return []Lane{lane(lanePooled, w.pooled), lane("fresh", w.fresh)}
}

func (w *world) live() *Live {
	l := NewLive()
	l.Open(w.key(lanePooled), 1, w.deadline)
	l.Open(w.key("fresh"), 1, w.deadline)
	return l
}

// TestLiveNoticesAgreeWithMeasure feeds random phases as they complete and
// compares the notices with the outages that Measure finds afterwards.
func TestLiveNoticesAgreeWithMeasure(t *testing.T) {
	compared := 0
	for seed := range uint64(600) {
		w := newWorld(seed)
		l := w.live()
		notices := map[LaneKey][]Notice{}
		for _, c := range w.completions() {
			for _, n := range l.Add(c.key, c.a) {
				notices[n.Lane] = append(notices[n.Lane], n)
			}
		}
		m := Measure(Input{Lanes: w.plain(), Faults: []FaultTime{{Step: "f", F0: w.f0, F1: w.f1, Proven: true}}, Until: w.end + w.deadline, StableWindow: w.window})
		for i, lane := range m.Lanes {
			ns := notices[w.key(lane.Lane)]
			if len(ns) != 2*len(lane.Outages) {
				t.Fatalf("seed %d %s: %d notices for %d outages", seed, lane.Lane, len(ns), len(lane.Outages))
			}
			e := gather(&w.plain()[i], 0, w.end+w.deadline)
			cs := e.clusters()
			for j, o := range lane.Outages {
				began, ended := ns[2*j], ns[2*j+1]
				k, _ := e.firstOKFrom(cs[j].by)
				if began.Ended || began.Seq != o.FirstBad || !ended.Ended || ended.At != k.Completed {
					t.Fatalf("seed %d %s outage %d: notices %+v %+v, outage %+v", seed, lane.Lane, j, began, ended, o)
				}
				if ended.Lasted.Lo > o.Length.Lo || ended.Lasted.Hi < o.Length.Hi {
					t.Fatalf("seed %d %s outage %d: lasted %+v does not contain %+v", seed, lane.Lane, j, ended.Lasted, o.Length)
				}
				compared++
			}
		}
		if down := l.Down(); len(down) != 0 {
			t.Fatalf("seed %d: still down at the end: %v", seed, down)
		}
	}
	if compared < 500 {
		t.Fatalf("only %d outages compared", compared)
	}
}

// TestLiveStabilityAgreesWithMeasure asks both at many moments of each phase.
func TestLiveStabilityAgreesWithMeasure(t *testing.T) {
	stable, unstable := 0, 0
	for seed := range uint64(120) {
		w := newWorld(seed)
		l := w.live()
		in := Input{Lanes: w.plain(), Faults: []FaultTime{{Step: "f", F0: w.f0, F1: w.f1, Proven: true}}, StableWindow: w.window}
		next := w.f1 + 1
		for _, c := range w.completions() {
			for next < c.a.Completed {
				in.Until = next
				got := l.Stable(StableQuery{From: 0, FirstFault: w.f0, Since: w.f0, Window: w.window})
				want := Measure(in).Faults[0]
				if got.Stable == want.TTStable.Open {
					t.Fatalf("seed %d at %d: live %+v, measured %+v", seed, next, got, want)
				}
				if got.Stable {
					stable++
					if got.NeverFailed != want.NeverFailed || got.At-w.f0 < want.TTStable.Lo || len(got.Reasons) != 0 {
						t.Fatalf("seed %d at %d: live %+v, measured %+v", seed, next, got, want)
					}
				} else {
					unstable++
					if len(got.Reasons) == 0 {
						t.Fatalf("seed %d at %d: not stable, without a reason", seed, next)
					}
				}
				next += 70 * ms
			}
			l.Add(c.key, c.a)
		}
	}
	if stable < 500 || unstable < 500 {
		t.Fatalf("%d stable and %d unstable moments: the comparison proves little", stable, unstable)
	}
}

// TestLiveSettlesInAnyOrder shuffles completions within a deadline's reach.
func TestLiveSettlesInAnyOrder(t *testing.T) {
	w := newWorld(3)
	r := rand.New(rand.NewPCG(1, 1))
	cs := w.completions()
	r.Shuffle(len(cs), func(i, j int) { cs[i], cs[j] = cs[j], cs[i] })
	l := w.live()
	for _, c := range cs {
		l.Add(c.key, c.a)
		l.Add(c.key, c.a)
	}
	for i, lane := range w.plain() {
		got := l.Settled(w.key(lane.Name))
		if !slices.EqualFunc(got, lane.Attempts, func(x, y Attempt) bool { return x == y.judged(w.deadline) }) {
			t.Fatalf("%s: settled %d attempts, want %d", lane.Name, len(got), len(lane.Attempts))
		}
		if cut := l.Cut()[i]; cut.Lane != lane.Name || cut.UpTo != int64(len(got)) {
			t.Fatalf("cut %+v", cut)
		}
	}
	if n := l.Add(LaneKey{Probe: "other"}, Attempt{Seq: 1, Outcome: Failed}); n != nil {
		t.Fatalf("a lane that is not open gave %v", n)
	}
}

func feed(l *Live, k LaneKey, from, n int64, step int64, o Outcome, took int64) {
	for i := range n {
		s := (from + i) * step
		l.Add(k, Attempt{Seq: from + i, Scheduled: s, Started: s, Completed: s + took, Outcome: o})
	}
}

func TestSteady(t *testing.T) {
	k := LaneKey{Probe: "p", Kind: kindWrite, Name: lanePooled, Epoch: 1}
	q := SteadyQuery{From: 0, To: 1000 * ms, MinAvailability: 100, MaxP95: 20 * ms}
	cases := []struct {
		name   string
		feed   func(*Live)
		holds  bool
		reason string
	}{
		{"holds", func(l *Live) { feed(l, k, 0, 101, 10*ms, OK, 5*ms) }, true, ""},
		{"not settled", func(l *Live) { feed(l, k, 0, 100, 10*ms, OK, 5*ms) }, false, "not all attempts"},
		{"one failure", func(l *Live) {
			feed(l, k, 0, 50, 10*ms, OK, 5*ms)
			feed(l, k, 50, 1, 10*ms, Failed, 5*ms)
			feed(l, k, 51, 50, 10*ms, OK, 5*ms)
		}, false, "99.000 % of 100"},
		{"slow", func(l *Live) { feed(l, k, 0, 101, 10*ms, OK, 21*ms) }, false, "p95 is 21ms"},
		{"silent", func(l *Live) { feed(l, k, 200, 1, 10*ms, OK, 5*ms) }, false, "not all attempts"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := NewLive()
			l.Open(k, 0, 250*ms)
			c.feed(l)
			got := l.Steady(q)
			if got.Holds != c.holds || (c.reason == "") != (len(got.Reasons) == 0) || !strings.Contains(strings.Join(got.Reasons, ";"), c.reason) {
				t.Fatalf("%+v", got)
			}
		})
	}
	if got := NewLive().Steady(q); got.Holds || got.Settled || len(got.Reasons) == 0 {
		t.Fatalf("without lanes: %+v", got)
	}
	if got := NewLive().Stable(StableQuery{Window: 1}); got.Stable || len(got.Reasons) == 0 {
		t.Fatalf("without lanes: %+v", got)
	}
}

func TestLiveDownAndLastBad(t *testing.T) {
	k := LaneKey{Probe: "p", Kind: kindWrite, Name: lanePooled, Epoch: 1}
	l := NewLive()
	l.Open(k, 0, 250*ms)
	feed(l, k, 0, 10, 10*ms, OK, 1*ms)
	if _, ok := l.LastBad(0); ok || len(l.Down()) != 0 {
		t.Fatal("down without a bad attempt")
	}
	feed(l, k, 10, 3, 10*ms, Failed, 1*ms)
	if at := l.Down()[k]; at != 101*ms {
		t.Fatalf("down since %s", time.Duration(at))
	}
	if at, ok := l.LastBad(0); !ok || at != 121*ms {
		t.Fatalf("last bad at %s", time.Duration(at))
	}
	if _, ok := l.LastBad(121 * ms); ok {
		t.Fatal("a bad attempt from before since")
	}
	feed(l, k, 13, 3, 10*ms, OK, 1*ms)
	if len(l.Down()) != 0 {
		t.Fatal("still down")
	}
}

func BenchmarkLiveStable(b *testing.B) {
	w := newWorld(3)
	l := w.live()
	for _, c := range w.completions() {
		l.Add(c.key, c.a)
	}
	for b.Loop() {
		l.Stable(StableQuery{From: 0, FirstFault: w.f0, Since: w.f0, Window: w.window})
	}
}

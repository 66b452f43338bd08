package verdict

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
)

// laneOf draws a lane from runs such as "100k 50f 200k": every step a slot; ok
// takes 2 ms, failed 1 ms, unknown 250 ms.
func laneOf(t testing.TB, name string, step int64, runs string) Lane {
	t.Helper()
	l := Lane{Target: "db", Clock: "obs", Probe: "orders", Kind: kindWrite, Name: name, Epoch: 1, Deadline: 250 * ms}
	for _, run := range strings.Fields(runs) {
		var n int
		var letter rune
		if _, err := fmt.Sscanf(run, "%d%c", &n, &letter); err != nil {
			t.Fatalf("run %q: %v", run, err)
		}
		for range n {
			i := int64(len(l.Attempts))
			a := Attempt{Seq: i + 1, Scheduled: i * step, Started: i * step, Outcome: Outcome(letter)}
			took := map[rune]int64{'k': 2 * ms, 'f': 1 * ms, 'u': 250 * ms, 's': 0, 'K': 40 * ms}[letter]
			if letter == 'K' {
				a.Outcome = OK
			}
			a.Completed = a.Started + took
			a.Connected = name == lanePooled && !keptAt(l.Attempts, a.Started)
			l.Attempts = append(l.Attempts, a)
		}
	}
	return l
}

// keptAt reports whether a pooled lane kept a connection at t: of an ok attempt that
// neither had begun nor ended before the latest failure.
func keptAt(as []Attempt, t int64) bool {
	dropped := int64(-1)
	for _, a := range as {
		if a.Bad() && a.shows() && a.Completed <= t {
			dropped = max(dropped, a.Completed)
		}
	}
	return slices.ContainsFunc(as, func(a Attempt) bool { return a.Outcome == OK && a.Started >= dropped && a.Completed <= t })
}

func inputOf(lanes ...Lane) Input {
	return Input{
		Lanes: lanes, From: 0, Until: 6000 * ms, StableWindow: 1000 * ms,
		Faults: []FaultTime{{Step: "p/fault/kill", F0: 994 * ms, F1: 996 * ms, Proven: true, How: "process gone"}},
	}
}

func ival(lo, hi int64) event.Interval { return event.Interval{Lo: lo * ms, Hi: hi * ms} }
func openFrom(lo int64) event.Interval {
	return event.Interval{Lo: lo * ms, Hi: lo * ms, Open: true}
}

// TestDefinitions checks figures worked out by hand from the definitions. Slot
// 100 is at 1000 ms, right after the fault.
func TestDefinitions(t *testing.T) {
	cases := []struct {
		name            string
		lanes           []Lane
		ttfs, ttstable  event.Interval
		never           bool
		outages, flaps  int
		start, end      event.Interval
		downtime        event.Interval
		availability    float64
		minAvailability float64
		decisive        string
	}{
		{
			name:  "one outage of refused attempts",
			lanes: []Lane{laneOf(t, lanePooled, 10*ms, "100k 50f 450k")},
			// [a(last bad)-f1, c(first ok)-f0]
			ttfs: ival(1490-996, 1502-994), ttstable: ival(1490-996, 1502-994),
			outages: 1, start: ival(990, 1001), end: ival(1490, 1502), downtime: ival(489, 512),
			availability: 100 * 550.0 / 600, minAvailability: 50, decisive: "orders/pooled",
		},
		{
			name:  "a flap counts: stability begins after the last",
			lanes: []Lane{laneOf(t, lanePooled, 10*ms, "100k 50f 20k 10f 420k")},
			ttfs:  ival(1490-996, 1502-994), ttstable: ival(1790-996, 1802-994),
			outages: 2, flaps: 1, start: ival(990, 1001), end: ival(1490, 1502), downtime: event.Interval{Lo: (489 + 89) * ms, Hi: (512 + 112) * ms},
			availability: 90, minAvailability: 40, decisive: "orders/pooled",
		},
		{
			name:  "never failed: the largest gap",
			lanes: []Lane{laneOf(t, lanePooled, 10*ms, "600k")},
			ttfs:  ival(0, 12), ttstable: ival(0, 12), never: true,
			availability: 100, minAvailability: 100, decisive: "orders/pooled",
		},
		{
			name:  "a hang is known from its start to its timeout",
			lanes: []Lane{laneOf(t, "fresh", 10*ms, "100k 50u 450k")},
			ttfs:  ival(1490-996, 1502-994), ttstable: ival(1490-996, 1502-994),
			outages: 1, start: ival(990, 1250), end: ival(1490, 1502), downtime: ival(240, 512),
			availability: 100 * 550.0 / 600, minAvailability: 50, decisive: "orders/fresh",
		},
		{
			name:  "slow after the outage: stable when it is quick again",
			lanes: []Lane{laneOf(t, lanePooled, 10*ms, "100k 50f 100K 350k")},
			// p95 over a second allows 5 of 101 to be slow, so the 95th slow ok is the
			// last that is turned down; the next takes 40 ms itself.
			ttfs: ival(1490-996, 1540-994), ttstable: ival(2440-996, 2490-994),
			outages: 1, start: ival(990, 1001), end: ival(1490, 1540), downtime: ival(489, 550),
			availability: 100 * 550.0 / 600, minAvailability: 50, decisive: "orders/pooled",
		},
		{
			name: "skipped slots widen and prove nothing",
			// The first ok after them is at 1600 ms.
			lanes: []Lane{laneOf(t, lanePooled, 10*ms, "100k 40f 10k 10s 440k")},
			ttfs:  ival(1390-996, 1402-994), ttstable: ival(1390-996, 1602-994),
			outages: 1, start: ival(990, 1001), end: ival(1390, 1402), downtime: ival(389, 412),
			availability: 100 * 550.0 / 600, minAvailability: 50, decisive: "orders/pooled",
		},
		{
			name:  "no recovery is right-censored",
			lanes: []Lane{laneOf(t, lanePooled, 10*ms, "100k 500f")},
			ttfs:  openFrom(5990 - 996), ttstable: openFrom(5990 - 996),
			outages: 1, start: ival(990, 1001), end: openFrom(5990), downtime: event.Interval{Lo: 4989 * ms, Hi: 5010 * ms, Open: true},
			availability: 100 * 100.0 / 600, minAvailability: 0, decisive: "orders/pooled",
		},
		{
			name:  "not stable for the window: open",
			lanes: []Lane{laneOf(t, lanePooled, 10*ms, "100k 450f 50k")},
			ttfs:  ival(5490-996, 5502-994), ttstable: openFrom(5490 - 996),
			outages: 1, start: ival(990, 1001), end: ival(5490, 5502), downtime: ival(4489, 4512),
			availability: 25, minAvailability: 0, decisive: "orders/pooled",
		},
		{
			name: "the slowest lane decides, the pooled lane narrows the fresh one",
			// Fresh slots at 1000 and 1200 fail; its first ok is at 1400, but a new
			// connection of the pooled lane was served at 1310 and refused at 1300.
			lanes: []Lane{laneOf(t, lanePooled, 10*ms, "100k 31f 469k"), laneOf(t, "fresh", 200*ms, "5k 2f 23k")},
			ttfs:  ival(1300-996, 1312-994), ttstable: ival(1300-996, 1312-994),
			outages: 1, start: ival(990, 1001), end: ival(1300, 1312), downtime: event.Interval{Lo: 299 * ms, Hi: (1312 - 800) * ms},
			availability: 100 * 569.0 / 600, minAvailability: 69, decisive: "orders/pooled",
		},
		{
			name: "a single pooled failure may be a stale connection",
			// Nothing was refused on a new one, so the end is only known to follow
			// the last ok.
			lanes: []Lane{laneOf(t, lanePooled, 10*ms, "100k 1f 499k")},
			ttfs:  ival(0, 1012-994), ttstable: ival(0, 1012-994),
			outages: 1, start: ival(990, 1001), end: ival(990, 1012), downtime: ival(0, 22),
			availability: 100 * 599.0 / 600, minAvailability: 99, decisive: "orders/pooled",
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			in := inputOf(c.lanes...)
			m := Measure(in)
			f, l := m.Faults[0], m.Lanes[0]
			check(t, "ttfs", f.TTFS, c.ttfs)
			check(t, "ttstable", f.TTStable, c.ttstable)
			check(t, "never failed", f.NeverFailed, c.never)
			check(t, "decisive", f.Decisive, c.decisive)
			check(t, "outages", len(l.Outages), c.outages)
			check(t, "flaps", l.Flaps, c.flaps)
			check(t, "downtime", m.Downtime, c.downtime)
			check(t, "availability", l.Availability, c.availability)
			check(t, "min availability", l.MinAvailability, c.minAvailability)
			if c.outages > 0 && len(l.Outages) > 0 {
				check(t, "start", l.Outages[0].Start, c.start)
				check(t, "end", l.Outages[0].End, c.end)
				check(t, "fault", l.Outages[0].Fault, "p/fault/kill")
			}
		})
	}
}

func check[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

// TestMeasureOnlyTheWindow: what is scheduled outside or still under way at its
// end is left out, and the input stays as it was.
func TestMeasureOnlyTheWindow(t *testing.T) {
	in := inputOf(laneOf(t, lanePooled, 10*ms, "600k 100f"))
	in.Lanes[0].Attempts[599].Completed = 6005 * ms
	before := fmt.Sprintf("%+v", in)
	m := Measure(in)
	check(t, "scheduled", m.Lanes[0].Scheduled, 599)
	check(t, "failed", m.Lanes[0].Failed, 0)
	check(t, "input", fmt.Sprintf("%+v", in), before)
}

func TestLatencyRunsFromTheSchedule(t *testing.T) {
	l := laneOf(t, lanePooled, 10*ms, "90k 5f 5s 100k")
	for i := range 100 {
		// Started late: a client that had waited would have seen it.
		l.Attempts[100+i].Started += 4 * ms
		l.Attempts[100+i].Completed += 300 * ms
	}
	// In time from its start, too late from its schedule.
	l.Attempts[100].Completed = l.Attempts[100].Started + 248*ms
	in := inputOf(l)
	in.Until = 3000 * ms
	r := Measure(in).Lanes[0]
	check(t, "latency", r.Latency, Latency{P50: 302 * ms, P95: 302 * ms, P99: -1, Max: -1})
	check(t, "ok only", r.LatencyOK, Latency{P50: 302 * ms, P95: 302 * ms, P99: 302 * ms, Max: 302 * ms})
	check(t, "baseline", r.Baseline, Latency{P50: 2 * ms, P95: 2 * ms, P99: 2 * ms, Max: 2 * ms})
	check(t, "met deadline", r.MetDeadline, 90)
	check(t, "ok", r.OK, 190)
	check(t, "jitter", r.JitterP99, 4*ms)
	check(t, "rate", r.RateShare, 195.0/200)
}

func TestOverlappingFaults(t *testing.T) {
	second := FaultTime{Step: "p/fault/two", F0: 1994 * ms, F1: 1996 * ms, Proven: true}
	t.Run("censored while down", func(t *testing.T) {
		in := inputOf(laneOf(t, lanePooled, 10*ms, "100k 150f 350k"))
		in.Faults = []FaultTime{second, in.Faults[0]}
		m := Measure(in)
		check(t, "first", m.Faults[0].TTStable, openFrom(1990-996))
		check(t, "censored", m.Faults[0].Censored, true)
		check(t, "second", m.Faults[1].TTStable, ival(2490-1996, 2502-1994))
		check(t, "not censored", m.Faults[1].Censored, false)
		for objective, want := range map[int64]Verdict{900: Fail, 1200: Inconclusive, 1502: Inconclusive, 1508: Pass} {
			in.RTO = objective * ms
			check(t, fmt.Sprintf("verdict at %d ms", objective), Measure(in).Verdict, want)
		}
	})
	t.Run("censored while not yet stable", func(t *testing.T) {
		in := inputOf(laneOf(t, lanePooled, 10*ms, "100k 20f 80k 20f 380k"))
		in.Faults = append(in.Faults, second)
		m := Measure(in)
		check(t, "first", m.Faults[0].TTFS, ival(1190-996, 1202-994))
		check(t, "first stable", m.Faults[0].TTStable, openFrom(1190-996))
		check(t, "flaps", m.Lanes[0].Flaps, 0)
		check(t, "second's outage", m.Lanes[0].Outages[1].Fault, "p/fault/two")
	})
}

// TestObjectives checks both sides of each bound.
func TestObjectives(t *testing.T) {
	base := func() Input { return inputOf(laneOf(t, lanePooled, 10*ms, "100k 50f 450k")) }
	n := func(v int64) *int64 { return &v }
	ledger := func(lost ...int64) []Ledger {
		led := Ledger{Probe: "orders", Lane: lanePooled, Epoch: 1, UpTo: 600}
		for seq := range int64(600) {
			if seq++; (seq <= 100 || seq > 150) && !slices.Contains(lost, seq) {
				led.Present.Add(seq)
			}
		}
		return []Ledger{led}
	}
	cases := []struct {
		name string
		edit func(*Input)
		of   string
		want Verdict
	}{
		{"rto: hi is within", func(in *Input) { in.RTO = 508 * ms }, OfRTO, Pass},
		{"rto: hi is just above", func(in *Input) { in.RTO = 508*ms - 1 }, OfRTO, Inconclusive},
		{"rto: lo equals", func(in *Input) { in.RTO = 494 * ms }, OfRTO, Inconclusive},
		{"rto: lo is just above", func(in *Input) { in.RTO = 494*ms - 1 }, OfRTO, Fail},
		{"availability met", func(in *Input) { in.Availability = 91.6 }, OfAvailability, Pass},
		{"availability missed", func(in *Input) { in.Availability = 91.7 }, OfAvailability, Fail},
		{"records: none lost", func(in *Input) { in.RPORecords, in.Ledgers = n(0), ledger() }, OfRPORecords, Pass},
		{"records: one lost", func(in *Input) { in.RPORecords, in.Ledgers = n(0), ledger(100) }, OfRPORecords, Fail},
		{"records: one allowed", func(in *Input) { in.RPORecords, in.Ledgers = n(1), ledger(100) }, OfRPORecords, Pass},
		{"records: no ledger", func(in *Input) { in.RPORecords = n(0) }, OfRPORecords, Inconclusive},
		{"records: read twice counts once", func(in *Input) { in.RPORecords, in.Ledgers = n(1), append(ledger(100), ledger(100)...) }, OfRPORecords, Pass},
		{"time: none lost, hi is not 0", func(in *Input) { in.RPOTime, in.Ledgers = n(0), ledger() }, OfRPOTime, Inconclusive},
		{"time: none lost", func(in *Input) { in.RPOTime, in.Ledgers = n(6*ms), ledger() }, OfRPOTime, Pass},
		// Lost 96..100: the first completed at 952, the last survivor started at 940.
		{"time: lost, hi", func(in *Input) { in.RPOTime, in.Ledgers = n(56*ms), ledger(96, 97, 98, 99, 100) }, OfRPOTime, Pass},
		{"time: lost, between", func(in *Input) { in.RPOTime, in.Ledgers = n(42*ms), ledger(96, 97, 98, 99, 100) }, OfRPOTime, Inconclusive},
		{"time: lost, lo", func(in *Input) { in.RPOTime, in.Ledgers = n(42*ms-1), ledger(96, 97, 98, 99, 100) }, OfRPOTime, Fail},
		{"time: no ledger", func(in *Input) { in.RPOTime = n(0) }, OfRPOTime, Inconclusive},
		{"no objective", func(*Input) {}, OfRTO, Inconclusive},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			in := base()
			c.edit(&in)
			m := Measure(in)
			for _, j := range m.Judgements {
				if j.Of == c.of {
					check(t, j.Why, j.Verdict, c.want)
					check(t, "total", m.Verdict, c.want)
					return
				}
			}
			t.Fatalf("no judgement of %s in %+v", c.of, m.Judgements)
		})
	}
}

// TestInvalid breaks a good input in every way that must spoil the measurement:
// without the break it passes.
func TestInvalid(t *testing.T) {
	base := func() Input {
		in := inputOf(laneOf(t, lanePooled, 10*ms, "100k 50f 450k"), laneOf(t, "fresh", 200*ms, "5k 3f 22k"))
		in.RTO = 5000 * ms
		return in
	}
	if m := Measure(base()); m.Verdict != Pass {
		t.Fatalf("the unbroken input: %s %+v", m.Verdict, m.Judgements)
	}
	at := func(in *Input, i int) *Attempt { return &in.Lanes[0].Attempts[i] }
	cases := []struct {
		name, why string
		edit      func(*Input)
	}{
		{"no proof of effect", "no proof", func(in *Input) { in.Faults[0].Proven = false }},
		{"no fault", "no fault was injected", func(in *Input) { in.Faults = nil }},
		{"fault turned round", "its end lies before", func(in *Input) { in.Faults[0].F1 = in.Faults[0].F0 - 1 }},
		{"fault outside", "outside the measured window", func(in *Input) { in.Faults[0].F1 = in.Until + 1 }},
		{"no lanes", "no lane was probed", func(in *Input) { in.Lanes = nil }},
		{"empty window", "window is empty", func(in *Input) { in.Until = in.From }},
		{"known elsewhere", "observer replaced", func(in *Input) { in.Invalidities = []string{"observer replaced"} }},
		{"attempt dropped", "attempt 299 is followed by attempt 301", func(in *Input) {
			in.Lanes[0].Attempts = slices.Delete(slices.Clone(in.Lanes[0].Attempts), 299, 300)
		}},
		{"bad attempts dropped", "is followed by", func(in *Input) {
			in.Lanes[0].Attempts = slices.Delete(slices.Clone(in.Lanes[0].Attempts), 100, 150)
		}},
		{"attempt twice", "attempt 300 is followed by attempt 300", func(in *Input) {
			in.Lanes[0].Attempts = slices.Insert(slices.Clone(in.Lanes[0].Attempts), 300, in.Lanes[0].Attempts[299])
		}},
		{"attempts swapped", "is followed by", func(in *Input) { *at(in, 200), *at(in, 201) = *at(in, 201), *at(in, 200) }},
		{"slots swapped", "was scheduled before", func(in *Input) { at(in, 200).Scheduled, at(in, 201).Scheduled = 2010*ms, 2000*ms }},
		{"time turned round", "completed before it started", func(in *Input) { at(in, 200).Completed = at(in, 200).Started - 1 }},
		{"strange outcome", "unknown outcome", func(in *Input) { at(in, 200).Outcome = 'x' }},
		{"lane twice", "there twice", func(in *Input) { in.Lanes = append(in.Lanes, in.Lanes[0]) }},
		{"lane of another time", "no attempts", func(in *Input) {
			for i := range in.Lanes[1].Attempts {
				a := &in.Lanes[1].Attempts[i]
				a.Scheduled, a.Started, a.Completed = a.Scheduled+1e12, a.Started+1e12, a.Completed+1e12
			}
		}},
		{"no baseline", "no baseline", func(in *Input) { in.Lanes[1].Attempts = in.Lanes[1].Attempts[5:] }},
		{"lane ends early", "attempts end", func(in *Input) { in.Lanes[0].Attempts = in.Lanes[0].Attempts[:400] }},
		{"rate too low", "93.3 % of the scheduled", func(in *Input) {
			for i := range 40 {
				a := at(in, 500+i)
				a.Outcome, a.Completed = Skipped, a.Started
			}
		}},
		{"jitter", "scheduling jitter is 5.1ms", func(in *Input) {
			for i := range 10 {
				a := at(in, 300+i)
				a.Started, a.Completed = a.Started+51*ms/10, a.Completed+51*ms/10
			}
		}},
		{"ledger without a lane", "no such lane", func(in *Input) { in.Ledgers = []Ledger{{Probe: "orders", Lane: "x", Epoch: 1}} }},
		{"ledger of another epoch", "no such lane", func(in *Input) { in.Ledgers = []Ledger{{Probe: "orders", Lane: "fresh", Epoch: 2}} }},
		{"malformed ledger", "ascending and disjoint", func(in *Input) {
			in.Ledgers = []Ledger{{Probe: "orders", Lane: "fresh", Epoch: 1, UpTo: 9, Present: event.Ranges{{4, 5}, {1, 2}}}}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			in := base()
			c.edit(&in)
			m := Measure(in)
			if m.Verdict != Invalid || m.Judgements[0].Of != OfValidity || !strings.Contains(m.Judgements[0].Why, c.why) {
				t.Fatalf("%s: %+v", m.Verdict, m.Judgements)
			}
		})
	}
}

func TestTotal(t *testing.T) {
	cases := []struct {
		in   []Verdict
		want Verdict
	}{
		{nil, Invalid},
		{[]Verdict{Pass, Pass}, Pass},
		{[]Verdict{Pass, Inconclusive}, Inconclusive},
		{[]Verdict{Inconclusive, Invalid, Pass}, Invalid},
		{[]Verdict{Invalid, Fail, Inconclusive}, Fail},
		{[]Verdict{Pass, ""}, Invalid},
	}
	for _, c := range cases {
		var ms []Measurement
		for _, v := range c.in {
			ms = append(ms, Measurement{Verdict: v})
		}
		check(t, fmt.Sprint(c.in), Total(ms), c.want)
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(i + 1)
	}
	check(t, "p50", percentile(hundred, 100, 50), 50)
	check(t, "p95", percentile(hundred, 100, 95), 95)
	check(t, "p99", percentile(hundred, 100, 99), 99)
	check(t, "max", percentile(hundred, 100, 100), 100)
	check(t, "one of one", percentile(hundred[:1], 1, 99), 1)
	check(t, "five infinite", percentile(hundred[:95], 100, 95), 95)
	check(t, "six infinite", percentile(hundred[:94], 100, 95), -1)
	check(t, "none", percentile(nil, 0, 95), 0)
	for n := int64(1); n < 500; n++ {
		// p95 is within the limit exactly while no more than these exceed it.
		k := allowedSlow(n)
		sorted := make([]int64, n)
		for i := n - k; i < n; i++ {
			sorted[i] = 1
		}
		if percentile(sorted, int(n), 95) != 0 {
			t.Fatalf("%d of %d slow: p95 is slow", k, n)
		}
		if k+1 <= n {
			sorted[n-k-1] = 1
			if percentile(sorted, int(n), 95) != 1 {
				t.Fatalf("%d of %d slow: p95 is not slow", k+1, n)
			}
		}
	}
}

// BenchmarkMeasure measures 100,000 attempts on two lanes with an outage.
func BenchmarkMeasure(b *testing.B) {
	pooled := laneOf(b, lanePooled, 10*ms, "30000k 3000f 200k 500u 56300k")
	fresh := laneOf(b, "fresh", 90*ms, "3330k 300f 6370k")
	in := inputOf(pooled, fresh)
	in.Until, in.StableWindow, in.RTO = math.MaxInt64, 30_000*ms, 60_000*ms
	in.Faults[0].F0, in.Faults[0].F1 = 299_990*ms, 299_995*ms
	b.ReportAllocs()
	for b.Loop() {
		if m := Measure(in); m.Lanes[0].Scheduled+m.Lanes[1].Scheduled != 100_000 {
			b.Fatal(m.Lanes[0].Scheduled)
		}
	}
}

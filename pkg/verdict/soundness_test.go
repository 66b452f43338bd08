package verdict

import (
	"slices"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// trials is far above the thousand that the contract asks for.
const trials = 2000

func (w *world) input(t *testing.T) Input {
	t.Helper()
	lanes, err := LanesFromBatches(append(w.batches(lanePooled, w.pooled), w.batches("fresh", w.fresh)...))
	if err != nil {
		t.Fatalf("lanes: %v", err)
	}
	f, err := w.faultTime()
	if err != nil {
		t.Fatalf("fault: %v", err)
	}
	return Input{Lanes: lanes, Faults: []FaultTime{f}, From: 0, Until: w.end, StableWindow: w.window}
}

func contains(t *testing.T, what string, i event.Interval, truth int64) {
	t.Helper()
	if !i.Contains(truth) {
		t.Errorf("%s: truth %s outside [%s, %s] open=%v", what, time.Duration(truth), time.Duration(i.Lo), time.Duration(i.Hi), i.Open)
	}
}

// tally counts what the simulation exercised, so that it cannot pass by
// exercising nothing.
type tally struct{ outages, flaps, never, recovered, slow, pass, fail, inconclusive, lost int }

// TestTruthInsideEveryInterval is the contract's simulation: in every trial the
// truth lies inside, and no verdict claims what is not so.
func TestTruthInsideEveryInterval(t *testing.T) {
	var seen tally
	for seed := range uint64(trials) {
		w := newWorld(seed)
		in := w.input(t)
		lag := between(w.rng, 0, 120*ms)
		if seed%3 == 0 {
			lag = 0
		}
		in.Ledgers = []Ledger{w.loseWrites(lanePooled, w.pooled, lag), w.loseWrites("fresh", w.fresh, lag)}
		m := Measure(in)
		checkOrder(t, m)
		w.checkOutages(t, m, &seen)
		w.checkDowntime(t, m)
		checkDowntimeAlone(t, in, m)
		w.checkRecovery(t, m.Faults[0], &seen)
		w.checkLedgers(t, m, lag, &seen)
		w.checkVerdicts(t, in, lag, &seen)
		if t.Failed() {
			t.Fatalf("seed %d: windows %+v fault %d [%d,%d] slow %d..%d", seed, w.windows, w.fault, w.f0, w.f1, w.slowFrom, w.slowTo)
		}
	}
	t.Logf("%d trials: %+v", trials, seen)
	for what, n := range map[string]int{"outages": seen.outages, "flaps": seen.flaps, "never failed": seen.never, "recovered": seen.recovered,
		"slow": seen.slow, "pass": seen.pass, "fail": seen.fail, "inconclusive": seen.inconclusive, "lost": seen.lost} {
		if n < 50 {
			t.Errorf("only %d times %s: the simulation does not exercise it", n, what)
		}
	}
}

// checkOrder: no interval is turned over.
func checkOrder(t *testing.T, m Measurement) {
	t.Helper()
	all := []event.Interval{m.Downtime}
	for _, f := range m.Faults {
		all = append(all, f.TTFS, f.TTStable)
	}
	for _, l := range m.Lanes {
		all = append(all, l.Downtime)
		for _, o := range l.Outages {
			all = append(all, o.Start, o.End, o.Length)
		}
	}
	for _, l := range m.Ledgers {
		all = append(all, l.RPA)
	}
	for n, i := range all {
		if i.Lo > i.Hi {
			t.Errorf("interval %d of %d is turned over: [%d, %d]", n, len(all), i.Lo, i.Hi)
		}
	}
}

func (w *world) checkOutages(t *testing.T, m Measurement, seen *tally) {
	t.Helper()
	for _, l := range m.Lanes {
		for _, o := range l.Outages {
			s, e := w.truth(o)
			contains(t, o.Lane+" outage start", o.Start, s)
			contains(t, o.Lane+" outage end", o.End, e)
			contains(t, o.Lane+" outage length", o.Length, e-s)
			seen.outages++
		}
		seen.flaps += l.Flaps
	}
}

// checkDowntime: the downtime over all lanes holds at least the outages that were met,
// and at most all of them with the stretches between in which one of the lanes was not
// served (assumption 4).
func (w *world) checkDowntime(t *testing.T, m Measurement) {
	t.Helper()
	var least, most int64
	for i, x := range w.windows {
		most += x.e - x.s
		if i > 0 && !(servedIn(w.pooled, w.windows[i-1].e, x.s) && servedIn(w.fresh, w.windows[i-1].e, x.s)) {
			most += x.s - w.windows[i-1].e
		}
		if slices.ContainsFunc(slices.Concat(w.pooled, w.fresh), func(a simAttempt) bool { return a.met == i }) {
			least += x.e - x.s
		}
	}
	if d := m.Downtime; d.Lo > most || d.Hi < least && !d.Open {
		t.Errorf("downtime: truth %s to %s outside [%s, %s]", time.Duration(least), time.Duration(most), time.Duration(d.Lo), time.Duration(d.Hi))
	}
}

// checkDowntimeAlone: what is given without a measurement is what the measurement gives.
func checkDowntimeAlone(t *testing.T, in Input, m Measurement) {
	t.Helper()
	var want []Outage
	for _, l := range m.Lanes {
		for _, o := range l.Outages {
			o.Fault = "" // nothing is said of faults
			want = append(want, o)
		}
	}
	down, outages := Downtime(in.Lanes, in.From, in.Until)
	check(t, "the downtime by itself", down, m.Downtime)
	check(t, "its outages", outages, want)
}

func (w *world) checkRecovery(t *testing.T, f FaultResult, seen *tally) {
	t.Helper()
	last, met := w.lastMet()
	until, slow := w.slowUntil()
	if slow {
		seen.slow++
		if met && f.TTStable.Hi < last-w.fault {
			t.Errorf("slow: stable by %d, before the last outage's end %d", f.TTStable.Hi, last-w.fault)
		}
		// A slot, an answer and another slot later all is quick for good.
		if done := until + 200*ms + w.slow + 210*ms; f.TTStable.Lo > done-w.f0 {
			t.Errorf("slow: stable after %d although slowness ended at %d", f.TTStable.Lo, done-w.f0)
		}
		return
	}
	if f.TTStable.Open {
		t.Errorf("not stable: %+v", f)
	}
	if !met {
		seen.never++
		for _, x := range w.windows {
			contains(t, "unseen outage", f.TTStable, x.e-x.s)
		}
		return
	}
	seen.recovered++
	contains(t, "achieved recovery time", f.TTStable, last-w.fault)
	// Of more, lanes may each see some as one (assumption 4), by what the others do not.
	if byAny, byOwn := w.firstServed(); len(w.windows) <= 2 && !f.TTFS.Contains(byAny-w.fault) {
		contains(t, "time to first success", f.TTFS, byOwn-w.fault)
	}
}

func (w *world) checkLedgers(t *testing.T, m Measurement, lag int64, seen *tally) {
	t.Helper()
	for _, l := range m.Ledgers {
		contains(t, "achieved recovery point "+l.Lane, l.RPA, lag)
		if lag == 0 && len(l.Lost) > 0 {
			t.Errorf("%d lost, none were", l.Lost.Len())
		}
		seen.lost += int(l.Lost.Len())
	}
}

// checkVerdicts judges against objectives close to the truth.
func (w *world) checkVerdicts(t *testing.T, in Input, lag int64, seen *tally) {
	t.Helper()
	last, met := w.lastMet()
	if _, slow := w.slowUntil(); slow || !met {
		return
	}
	truth := map[string]int64{OfRTO: last - w.fault, OfRPOTime: lag}
	for range 5 {
		in.RTO = max(1, truth[OfRTO]+between(w.rng, -40*ms, 40*ms))
		in.RPOTime = new(int64)
		*in.RPOTime = max(0, lag+between(w.rng, -40*ms, 40*ms))
		objective := map[string]int64{OfRTO: in.RTO, OfRPOTime: *in.RPOTime}
		for _, j := range Measure(in).Judgements {
			if _, judged := truth[j.Of]; !judged {
				continue
			}
			switch over := truth[j.Of] > objective[j.Of]; {
			case j.Verdict == Pass:
				seen.pass++
				if over {
					t.Errorf("%s PASS with truth %d > objective %d", j.Of, truth[j.Of], objective[j.Of])
				}
			case j.Verdict == Fail:
				seen.fail++
				if !over {
					t.Errorf("%s FAIL with truth %d <= objective %d", j.Of, truth[j.Of], objective[j.Of])
				}
			default:
				seen.inconclusive++
			}
		}
	}
}

// TestExtraAttemptsAreNoSlots: they leave alone all that counts slots, and bound the
// recovery no worse.
func TestExtraAttemptsAreNoSlots(t *testing.T) {
	narrower := 0
	for seed := range uint64(1000) {
		w := newWorld(seed)
		if !slices.ContainsFunc(w.fresh, func(a simAttempt) bool { return a.Extra }) {
			continue
		}
		with := w.input(t)
		without := with
		without.Lanes = slices.Clone(with.Lanes)
		for i, l := range without.Lanes {
			without.Lanes[i].Attempts = slices.DeleteFunc(slices.Clone(l.Attempts), func(a Attempt) bool { return a.Extra })
			for j := range without.Lanes[i].Attempts {
				without.Lanes[i].Attempts[j].Seq = int64(j + 1)
			}
		}
		a, b := Measure(with), Measure(without)
		for i := range a.Lanes {
			x, y := a.Lanes[i], b.Lanes[i]
			if x.Availability != y.Availability || x.MinAvailability != y.MinAvailability || x.Scheduled != y.Scheduled ||
				x.RateShare != y.RateShare || x.JitterP99 != y.JitterP99 || x.Latency != y.Latency || x.LatencyOK != y.LatencyOK {
				t.Fatalf("world %d, lane %s: extra attempts count:\n%+v\n%+v", seed, x.Lane, x, y)
			}
		}
		if len(a.Faults) == 1 && len(b.Faults) == 1 && a.Faults[0].TTFS.Width() < b.Faults[0].TTFS.Width() {
			narrower++
		}
	}
	if narrower < 15 {
		t.Errorf("extra attempts made only %d recoveries narrower", narrower)
	}
}

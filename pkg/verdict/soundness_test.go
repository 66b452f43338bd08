package verdict

import (
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// trials is far above the thousand that the contract asks for.
const trials = 3000

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

// TestTruthInsideEveryInterval is the contract's simulation: in every trial the
// truth lies inside, and no verdict claims what is not so.
func TestTruthInsideEveryInterval(t *testing.T) {
	var seen struct{ outages, flaps, never, recovered, slow, pass, fail, inconclusive, lost int }
	for seed := range uint64(trials) {
		w := newWorld(seed)
		in := w.input(t)
		lag := between(w.rng, 0, 120*ms)
		if seed%3 == 0 {
			lag = 0
		}
		in.Ledgers = []Ledger{w.loseWrites(lanePooled, w.pooled, lag), w.loseWrites("fresh", w.fresh, lag)}
		m := Measure(in)
		f := m.Faults[0]
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
		last, met := w.lastMet()
		slowUntil, slow := w.slowUntil()
		switch {
		case slow:
			seen.slow++
			if met && f.TTStable.Hi < last-w.fault {
				t.Errorf("slow: stable by %d, before the last outage's end %d", f.TTStable.Hi, last-w.fault)
			}
			if done := slowUntil + 200*ms + w.slow + 210*ms; f.TTStable.Lo > done-w.f0 {
				t.Errorf("slow: stable after %d although slowness ended at %d", f.TTStable.Lo, done-w.f0)
			}
		case met:
			seen.recovered++
			contains(t, "achieved recovery time", f.TTStable, last-w.fault)
			if len(w.windows) == 1 {
				contains(t, "time to first success", f.TTFS, last-w.fault)
			}
		default:
			seen.never++
			for _, x := range w.windows {
				contains(t, "unseen outage", f.TTStable, x.e-x.s)
			}
		}
		for _, l := range m.Ledgers {
			contains(t, "achieved recovery point "+l.Lane, l.RPA, lag)
			if lag == 0 && len(l.Lost) > 0 {
				t.Errorf("%d lost, none were", l.Lost.Len())
			}
			seen.lost += int(l.Lost.Len())
		}
		if !slow && f.TTStable.Open {
			t.Errorf("not stable: %+v", f)
		}
		if met && !slow {
			for range 5 {
				truth := last - w.fault
				in.RTO = max(1, truth+between(w.rng, -40*ms, 40*ms))
				in.RPOTime = new(int64)
				*in.RPOTime = max(0, lag+between(w.rng, -40*ms, 40*ms))
				v := Measure(in)
				for _, j := range v.Judgements {
					objective, truth := in.RTO, truth
					if j.Of == OfRPOTime {
						objective, truth = *in.RPOTime, lag
					} else if j.Of != OfRTO {
						continue
					}
					switch j.Verdict {
					case Pass:
						seen.pass++
						if truth > objective {
							t.Errorf("%s PASS with truth %d > objective %d", j.Of, truth, objective)
						}
					case Fail:
						seen.fail++
						if truth <= objective {
							t.Errorf("%s FAIL with truth %d <= objective %d", j.Of, truth, objective)
						}
					default:
						seen.inconclusive++
					}
				}
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d: windows %+v fault %d [%d,%d] slow %d..%d", seed, w.windows, w.fault, w.f0, w.f1, w.slowFrom, w.slowTo)
		}
	}
	t.Logf("%d trials: %+v", trials, seen)
	for what, n := range map[string]int{"outages": seen.outages, "flaps": seen.flaps, "never failed": seen.never, "recovered": seen.recovered,
		"slow": seen.slow, "pass": seen.pass, "fail": seen.fail, "inconclusive": seen.inconclusive, "lost": seen.lost} {
		if n < 50 {
			t.Errorf("only %d trials with %s: the simulation does not exercise it", n, what)
		}
	}
}

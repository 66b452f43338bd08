package fold_test

import (
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

// upTo is a history as it was when the first event of a type was stored, with
// some more events after it.
func upTo(t *testing.T, raws [][]byte, last event.Type, more int) [][]byte {
	t.Helper()
	for i, raw := range raws {
		if strings.Contains(string(raw), `"type":"`+string(last)+`"`) {
			return raws[:i+1+more]
		}
	}
	t.Fatalf("no %s in the history", last)
	return nil
}

// TestOutageThatGoesOn looks at a drill in the middle of its outage: whatever is
// stored of it so far, it is never said that nothing failed.
func TestOutageThatGoesOn(t *testing.T) {
	raws := kill(nil)
	down, up := len(upTo(t, raws, event.TypeOutageStarted, 0)), len(upTo(t, raws, event.TypeOutageEnded, 0))
	var longest int64
	for n := down; n < up; n++ {
		r := mustFold(t, raws[:n])
		x := r.Phases[0].Recovery[0]
		text := fold.ShowRecovery(x)
		if x.NeverFailed || !x.Ongoing || !x.Achieved.Open || !strings.Contains(text, "the outage goes on, ") || strings.Contains(text, "≥ 0 s") {
			t.Fatalf("%d events after the outage began: %s, %+v", n-down, text, x)
		}
		if x.Elapsed < longest || x.Elapsed > int64(2400*time.Millisecond) || x.Achieved.Lo > x.Elapsed {
			t.Errorf("%d events after the outage began: %d ns since the fault, before %d", n-down, x.Elapsed, longest)
		}
		longest = x.Elapsed
		if s := strings.Join(r.Summary, " "); !strings.Contains(s, "the service is down") {
			t.Errorf("%d events after the outage began, the summary says %s", n-down, s)
		}
	}
	if longest < int64(time.Second) {
		t.Errorf("at the end of the outage %d ns were said to have passed", longest)
	}
	back := mustFold(t, raws[:up]).Phases[0].Recovery[0]
	if back.Ongoing || back.Elapsed != 0 || back.NeverFailed {
		t.Errorf("after the outage: %+v", back)
	}
}

// TestNothingKnownYet: before an attempt after the fault is stored, it is not
// known whether one failed.
func TestNothingKnownYet(t *testing.T) {
	x := mustFold(t, upTo(t, kill(nil), event.TypeFaultInjected, 0)).Phases[0].Recovery[0]
	if x.NeverFailed || x.Ongoing || fold.ShowRecovery(x) != "not known" {
		t.Errorf("right after the fault: %s, %+v", fold.ShowRecovery(x), x)
	}
}

// TestNothingFailedSoFar: a fault that nobody notices is one, while it is watched.
func TestNothingFailedSoFar(t *testing.T) {
	p := synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: time.Millisecond}
	raws := synthetic.Build("d", "D", p).Without(event.TypeOutageStarted, event.TypeOutageEnded).History()
	x := mustFold(t, upTo(t, raws, event.TypeActionDone, 3)).Phases[0].Recovery[0]
	if !x.NeverFailed || fold.ShowRecovery(x) != "no attempt failed so far" {
		t.Errorf("nothing failed: %s, %+v", fold.ShowRecovery(x), x)
	}
}

// TestReplacedObserver: an outage that the observer before told of cannot be
// called over by the one after it, so it is not said to go on.
func TestReplacedObserver(t *testing.T) {
	raws := kill(func(p *synthetic.Phase) { p.ReclaimAt = 500 * time.Millisecond })
	for i, raw := range raws {
		if strings.Contains(string(raw), `"observer-2"`) {
			if x := mustFold(t, raws[:i+1]).Phases[0].Recovery[0]; x.Ongoing {
				t.Errorf("of an observer that is gone: %+v", x)
			}
			return
		}
	}
	t.Fatal("no second claim")
}

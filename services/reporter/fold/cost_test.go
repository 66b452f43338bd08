package fold_test

import (
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

// TestTheLongestOutageIsNoShorterThanAny: what one lane proves, the longest took.
func TestTheLongestOutageIsNoShorterThanAny(t *testing.T) {
	checked := 0
	for name, b := range synthetic.Variants() {
		for _, p := range mustFold(t, b.History()).Phases {
			for _, o := range p.Outages {
				if !o.Restore || p.Failback == nil {
					continue
				}
				checked++
				got := *p.Failback.Longest
				if got.Lo < o.Length.Lo || !got.Open && (o.Length.Open || got.Hi < o.Length.Hi) {
					t.Errorf("%s: the longest took %+v, and one %+v", name, got, o.Length)
				}
				if may := o.Length.Open || o.Length.Hi >= got.Lo; may != strings.Contains(p.Failback.Lane, o.Probe+"/"+o.Lane) {
					t.Errorf("%s: %s/%s took %+v: among those that may have seen the longest: %q", name, o.Probe, o.Lane, o.Length, p.Failback.Lane)
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d outages were looked at", checked)
	}
}

// TestALateObserverCountsRight: what it missed is when, not what. Lost writes stay lost,
// in the objective's row as in the checks'; that none is lost proves nothing.
func TestALateObserverCountsRight(t *testing.T) {
	for lost, want := range map[int]verdict.Verdict{4: verdict.Fail, 0: verdict.Invalid} {
		r := mustFold(t, kill(func(p *synthetic.Phase) { p.Lost, p.Late = lost, 9*time.Millisecond }))
		if got := result(t, r, verdict.OfRPORecords); got.Verdict != want || strings.Contains(got.Why, "holds all the same") != (lost > 0) {
			t.Errorf("%d lost: %+v", lost, got)
		}
		if r.Verdict != want || r.Phases[0].Verdict != want {
			t.Errorf("%d lost: the drill is %s", lost, r.Verdict)
		}
		for _, of := range []string{verdict.OfValidity, verdict.OfRTO} {
			if got := result(t, r, of); got.Verdict != verdict.Invalid {
				t.Errorf("%d lost: %s is %s", lost, of, got.Verdict)
			}
		}
	}
}

// TestAnOutageBeforeTheFaultIsNamed, with an interval that holds it.
func TestAnOutageBeforeTheFaultIsNamed(t *testing.T) {
	const down = 300 * time.Millisecond
	got := mustFold(t, kill(func(p *synthetic.Phase) { p.Rough = down })).Phases[0].Steady[0].Earlier
	if got == nil || got.Open || got.Lo <= 0 || got.Lo > int64(down) || got.Hi < int64(down) {
		t.Errorf("%+v", got)
	}
	if got := mustFold(t, kill(nil)).Phases[0].Steady[0].Earlier; got != nil {
		t.Errorf("where there was none: %+v", got)
	}
}

// TestAnAbortedDrillSaysWhatItCost its users, who had an outage all the same.
func TestAnAbortedDrillSaysWhatItCost(t *testing.T) {
	said := func(r fold.Report) string { return strings.Join(r.Summary, "\n") }
	const words = "Its users were without service for "
	if r := mustFold(t, synthetic.Variants()["aborted"].History()); !strings.Contains(said(r), words+"2.3 s – 2.34 s") {
		t.Error(said(r)) // from 4 ms after the fault to 900 ms after the restore began
	}
	if r := mustFold(t, kill(nil)); strings.Contains(said(r), words) {
		t.Errorf("a drill that tells it elsewhere: %s", said(r))
	}
}

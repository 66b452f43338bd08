package fold_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

func titles(r fold.Report) []string {
	var out []string
	for _, i := range r.Issues {
		out = append(out, i.Title)
	}
	return out
}

// TestOneIssuePerLoss: the objective and the check that speak of one loss make one
// issue with what both found; another property that fails is one of its own.
func TestOneIssuePerLoss(t *testing.T) {
	r := mustFold(t, kill(func(p *synthetic.Phase) { p.Lost = 24 }))
	if got := titles(r); !slices.Equal(got, []string{"Acknowledged writes were lost beyond the objective"}) {
		t.Fatalf("issues %q", got)
	}
	if d := r.Issues[0]; d.Severity != fold.Critical || !strings.Contains(d.Detail, "objective 0 lost; 24 acknowledged") || !strings.Contains(d.Detail, "ledger: lost: 24 of ") {
		t.Errorf("%+v", d)
	}
	r = mustFold(t, kill(func(p *synthetic.Phase) { p.Lost, p.CheckFails = 24, true }))
	if got := titles(r); !slices.Equal(got, []string{"Acknowledged writes were lost beyond the objective", "A data check failed"}) || strings.Contains(r.Issues[1].Detail, "lost") {
		t.Errorf("issues %q: %s", got, r.Issues[1].Detail)
	}
}

// TestStaleReadsBesideALoss: that no read was stale says nothing about lost writes,
// and where there are none it needs no such words.
func TestStaleReadsBesideALoss(t *testing.T) {
	for _, lost := range []int{0, 24} {
		r := mustFold(t, kill(func(p *synthetic.Phase) { p.Lost = lost }))
		for _, q := range r.Phases[0].Checks[0].Properties {
			if q.Name == "stale-reads" && strings.Contains(q.Found, "says nothing about the lost ones") != (lost > 0) {
				t.Errorf("%d lost: %s", lost, q.Found)
			}
		}
	}
}

// TestStaleReadsAreOneIssue: however many lanes and checks saw them.
func TestStaleReadsAreOneIssue(t *testing.T) {
	b := synthetic.Build("d", "D", synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond})
	b.Change(func(payload any) any {
		switch p := payload.(type) {
		case event.ProbeBatch:
			for i := range p.ObservedSeq {
				p.ObservedSeq[i] = 0
			}
			return p
		case event.CheckCompleted:
			for i := range p.Properties {
				if q := &p.Properties[i]; q.Name == "stale-reads" {
					q.Result, q.Found = event.ResultFail, "900 reads missed a write acknowledged before they began"
				}
			}
			return p
		}
		return payload
	})
	r := mustFold(t, b.History())
	if got := titles(r); !slices.Equal(got, []string{"Reads were stale"}) {
		t.Fatalf("issues %q", got)
	}
	if d := r.Issues[0].Detail; !strings.Contains(d, "orders-read/pooled: ") || !strings.Contains(d, "ledger: stale-reads: 900 reads") {
		t.Error(d)
	}
}

// TestSlowRecoveryIsNamed: a recovery that latency put off names the lane with its
// figures where it is judged, in the issue, and in the recovery itself.
func TestSlowRecoveryIsNamed(t *testing.T) {
	r := mustFold(t, synthetic.Variants()["slow"].History())
	const words = "orders-write/fresh (p95 over 5 s up to 40.2 ms, at most 6.5 ms is stable, baseline 1.5 ms)"
	if why := result(t, r, verdict.OfRTO).Why; !strings.Contains(why, words) {
		t.Error(why)
	}
	if i := r.Issues[0]; i.Title != "The recovery took longer than its objective" || !strings.Contains(i.Detail, words) || !strings.Contains(r.ActionItems[0].Text, "orders-write/fresh") {
		t.Errorf("%+v, %+v", i, r.ActionItems[0])
	}
	if x := r.Phases[0].Recovery[0]; len(x.Slow) != 3 || x.Slow[0].Window != int64(synthetic.Window) {
		t.Errorf("%+v", x.Slow)
	}
	if x := mustFold(t, kill(nil)).Phases[0].Recovery[0]; len(x.Slow) != 0 {
		t.Errorf("a prompt service: %+v", x.Slow)
	}
}

// TestNothingJudged: of checks that were not made there is nothing to count.
func TestNothingJudged(t *testing.T) {
	r := mustFold(t, kill(func(p *synthetic.Phase) { p.AbortAt = 1400 * time.Millisecond }))
	if got := result(t, r, "checks").Achieved; got != "no property was judged" {
		t.Error(got)
	}
}

// TestTwoObservers: who measured what is said once, in the place of all that
// follows from it, and every figure that is of one of them alone names him.
func TestTwoObservers(t *testing.T) {
	r := mustFold(t, synthetic.Variants()["reclaimed"].History())
	p := r.Phases[0]
	const want = "the observer was replaced in the middle of the measurement: observer-1 (claim 1) measured up to 910.4 ms after the fault, observer-2 (claim 2) from 1.05 s after the fault on; how the service was for the 139.6 ms in between is not known"
	if why := result(t, r, verdict.OfValidity).Why; why != want {
		t.Error(why)
	}
	if x := p.Recovery[0]; x.Achieved.Open || x.NeverFailed {
		t.Errorf("both together saw the recovery: %+v", x)
	}
	for _, l := range p.Availability {
		if want := map[int64]string{1: "observer-1, claim 1", 2: "observer-2, claim 2"}[l.Epoch]; l.Observer != want || l.Baseline.P95 == 0 {
			t.Errorf("%s/%s of claim %d is by %q, baseline %d", l.Probe, l.Lane, l.Epoch, l.Observer, l.Baseline.P95)
		}
	}
	if p.Failback == nil || p.Failback.StillDown {
		t.Errorf("an observer that is gone cannot say that the service is down: %+v", p.Failback)
	}
	for _, o := range p.Outages {
		if len(o.Errors) == 0 {
			t.Errorf("an outage without its errors: %+v", o.Outage)
		}
	}
	if l := mustFold(t, kill(nil)).Phases[0].Availability[0]; l.Observer != "" {
		t.Errorf("of one observer only: %q", l.Observer)
	}
}

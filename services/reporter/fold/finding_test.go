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

// onAnotherMachine moves a claim's attempts to another machine's clock.
func onAnotherMachine(b *synthetic.Builder, claim int64) {
	b.Change(func(payload any) any {
		if p, ok := payload.(event.ProbeBatch); ok && p.Epoch == claim {
			p.Origin.Clock, p.Origin.Mono = "machine-b", p.Origin.Mono/2
			return p
		}
		return payload
	})
}

// TestAnEarlierClaimOnAnotherMachine: one that was over before the steady state takes
// nothing from the measurement, and what was acknowledged to it is counted.
func TestAnEarlierClaimOnAnotherMachine(t *testing.T) {
	for _, lost := range []int{0, 2} {
		b := synthetic.Build("d", "D", synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond, ReclaimAt: -5300 * time.Millisecond, Lost: lost})
		onAnotherMachine(b, 1)
		r := mustFold(t, b.History())
		p := r.Phases[0]
		want, achieved := verdict.Pass, "0 records"
		if lost > 0 {
			want, achieved = verdict.Fail, "2 records"
		}
		if v := result(t, r, verdict.OfValidity); p.Verdict != want || v.Verdict != verdict.Pass {
			t.Errorf("%d lost: %s, validity %+v", lost, p.Verdict, v)
		}
		if x := result(t, r, verdict.OfRPORecords); x.Achieved != achieved {
			t.Errorf("lost by the result %q, want %q", x.Achieved, achieved)
		}
		if !strings.Contains(strings.Join(r.Summary, " "), "; "+strings.TrimSuffix(achieved, " records")+" of ") {
			t.Errorf("the summary leaves its ledger out: %q", r.Summary)
		}
		if l := p.Ledgers[0]; len(p.Ledgers) != 4 || l.Epoch != 1 || l.Observer != "observer-1, claim 1" || l.LostCount != int64(lost) || !l.RPA.Open {
			t.Errorf("%d ledgers, the first %+v", len(p.Ledgers), l)
		}
		if len(p.Availability) != 3 {
			t.Errorf("lanes of another clock were measured: %+v", p.Availability)
		}
	}
}

// TestWhatElseIsWrongWithTwoObservers: that their lanes end early and begin late has
// been said, and nothing else.
func TestWhatElseIsWrongWithTwoObservers(t *testing.T) {
	b := synthetic.Build("d", "D", synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond, ReclaimAt: time.Second})
	b.Change(func(payload any) any {
		if p, ok := payload.(event.ProbeBatch); ok && p.Epoch == 2 && p.Lane == "fresh" {
			p.Outcomes = strings.Repeat("s", len(p.Outcomes))
			for i := range p.Outcomes {
				p.LateUS[i], p.TookUS[i] = 0, 0
			}
			p.Errors = nil
			return p
		}
		return payload
	})
	r := mustFold(t, b.History())
	why := result(t, r, verdict.OfValidity).Why
	if !strings.Contains(why, "lane orders-write/fresh: 0.0 % of the scheduled attempts were made") {
		t.Errorf("a starved lane is not named: %s", why)
	}
	if strings.Contains(why, "its attempts end") || strings.Contains(why, "baseline") {
		t.Errorf("said twice: %s", why)
	}
}

// TestAdviceGoesByTheCause: what to do about an INVALID phase follows from what made
// it so, whatever words the reason has.
func TestAdviceGoesByTheCause(t *testing.T) {
	base := synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond}
	for _, c := range []struct {
		what   string
		change func(*synthetic.Phase)
		edit   func(any) any
		want   string
	}{
		{"late", func(p *synthetic.Phase) { p.Late = 8 * time.Millisecond }, nil, "Give the observer a host of its own, or less to do: fewer probes, or longer “burst” and “interval” of theirs."},
		{"unproven", func(p *synthetic.Phase) { p.Unproven = true }, nil, "Let the fault prove its effect."},
		{"replaced", func(p *synthetic.Phase) { p.ReclaimAt = time.Second }, nil, "Find out why the service died in mid-drill."},
		{"aborted", func(p *synthetic.Phase) { p.AbortAt = 1400 * time.Millisecond }, func(payload any) any {
			if p, ok := payload.(event.AbortRequested); ok {
				p.Reason = "ada has no proof that the steady state is the replaced one's"
				return p
			}
			return payload
		}, "The reason is given above."},
	} {
		p := base
		c.change(&p)
		b := synthetic.Build("d", "D", p)
		if c.edit != nil {
			b.Change(c.edit)
		}
		r := mustFold(t, b.History())
		i := slices.IndexFunc(r.Issues, func(i fold.Issue) bool { return i.Title == "The measurement is not valid" })
		if i < 0 {
			t.Fatalf("%s: issues %q", c.what, titles(r))
		}
		j := slices.IndexFunc(r.ActionItems, func(a fold.ActionItem) bool { return a.Issue == r.Issues[i].ID })
		if !strings.HasSuffix(r.ActionItems[j].Text, c.want) {
			t.Errorf("%s: %q, want %q", c.what, r.ActionItems[j].Text, c.want)
		}
	}
}

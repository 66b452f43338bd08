package fold_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

var ring = sync.OnceValue(func() event.Keyring {
	_, k := synthetic.Keys()
	return k
})

func mustFold(t *testing.T, raws [][]byte) fold.Report {
	t.Helper()
	r, err := fold.Fold(raws, ring())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// kill is a plain drill: the service is back 2.31 s after the fault.
func kill(change func(*synthetic.Phase)) [][]byte {
	p := synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond}
	if change != nil {
		change(&p)
	}
	return synthetic.Build("d", "D", p).History()
}

func result(t *testing.T, r fold.Report, of string) fold.Result {
	t.Helper()
	for _, x := range r.Phases[0].Results {
		if x.Of == of {
			return x
		}
	}
	t.Fatalf("no result of %s in %+v", of, r.Phases[0].Results)
	return fold.Result{}
}

func TestVerdicts(t *testing.T) {
	want := map[string]verdict.Verdict{
		"pass": verdict.Pass, "fail": verdict.Fail, "inconclusive": verdict.Inconclusive,
		"invalid": verdict.Invalid, "aborted": verdict.Invalid, "missing": verdict.Fail,
		"unkept": verdict.Inconclusive, "reclaimed": verdict.Invalid, "slow": verdict.Fail, "settled": verdict.Pass, "unsettled": verdict.Fail,
	}
	for name, b := range synthetic.Variants() {
		if got := mustFold(t, b.History()).Verdict; got != want[name] {
			t.Errorf("%s: %s, want %s", name, got, want[name])
		}
	}
}

// TestTruthLiesInside compares the figures with what the history was made from.
func TestTruthLiesInside(t *testing.T) {
	for _, back := range []time.Duration{40 * time.Millisecond, 777 * time.Millisecond, 2310 * time.Millisecond, 9 * time.Second} {
		for _, hang := range []bool{false, true} {
			r := mustFold(t, kill(func(p *synthetic.Phase) { p.Back, p.Hang = back, hang }))
			got := r.Phases[0].Recovery[0].Achieved
			// A lane with an attempt every 200 ms cannot tell a shorter outage.
			width := 40 * time.Millisecond
			if back < 200*time.Millisecond {
				width = 210 * time.Millisecond
			}
			if !got.Contains(int64(back)) || got.Open || got.Width() > int64(width) {
				t.Errorf("back after %v (hang %v): measured %s", back, hang, fold.Show(got))
			}
		}
	}
}

func TestLostWritesAreCounted(t *testing.T) {
	r := mustFold(t, kill(func(p *synthetic.Phase) { p.Lost = 24 }))
	l := r.Phases[0].Ledgers[0]
	if l.LostCount != 24 || l.Lost.Len() != 24 {
		t.Errorf("lost %d (%v), want 24", l.LostCount, l.Lost)
	}
	// 24 writes 10 ms apart were lost, and the one before them was not.
	if !l.RPA.Contains(int64(24*10*time.Millisecond)) || l.RPA.Width() > int64(40*time.Millisecond) {
		t.Errorf("recovery point %s, want about 240 ms", fold.Show(l.RPA))
	}
	if got := result(t, r, verdict.OfRPORecords); got.Verdict != verdict.Fail || got.Achieved != "24 records" {
		t.Errorf("judged %+v", got)
	}
}

func TestSplitsAddUp(t *testing.T) {
	r := mustFold(t, kill(nil))
	x := r.Phases[0].Recovery[0]
	s := x.Splits
	lo, hi := s.Detect.Lo+s.Failover.Lo+s.Restore.Lo, s.Detect.Hi+s.Failover.Hi+s.Restore.Hi
	if lo > x.Achieved.Hi || hi < x.Achieved.Lo {
		t.Errorf("detect, fail over and restore add up to %s, the recovery took %s", fold.Show(event.Interval{Lo: lo, Hi: hi}), fold.Show(x.Achieved))
	}
	if !s.Detect.Contains(int64(1050*time.Millisecond)) || !s.Failover.Contains(int64(940*time.Millisecond)) {
		t.Errorf("detect %s, fail over %s", fold.ShowFigure(s.Detect), fold.ShowFigure(s.Failover))
	}
}

func TestFailbackIsMeasuredApart(t *testing.T) {
	p := mustFold(t, kill(nil)).Phases[0]
	truth := int64(280 * time.Millisecond)
	if p.Failback == nil || p.Failback.Longest == nil || !p.Failback.Longest.Contains(truth) {
		t.Fatalf("failback %+v, want an outage of 280 ms", p.Failback)
	}
	for _, l := range p.Availability {
		if l.Downtime.Hi > int64(2600*time.Millisecond) {
			t.Errorf("%s/%s: the recovery's downtime %s holds the failback's", l.Probe, l.Lane, fold.Show(l.Downtime))
		}
	}
}

func TestTakeover(t *testing.T) {
	late := func(p *synthetic.Phase) { p.TakeoverAt = 500 * time.Millisecond }
	if got := mustFold(t, kill(late)).Verdict; got != verdict.Pass {
		t.Errorf("a pass with an injector replaced meanwhile: %s, want PASS", got)
	}
	r := mustFold(t, kill(func(p *synthetic.Phase) { late(p); p.RTO = time.Second }))
	if r.Verdict != verdict.Invalid || result(t, r, verdict.OfRTO).Verdict != verdict.Invalid {
		t.Errorf("a fail with an injector replaced meanwhile: %s, %+v", r.Verdict, result(t, r, verdict.OfRTO))
	}
	r = mustFold(t, kill(func(p *synthetic.Phase) { late(p); p.Lost = 3 }))
	if r.Verdict != verdict.Fail {
		t.Errorf("lost writes stay lost, whoever conducted: %s, want FAIL", r.Verdict)
	}
	after := mustFold(t, kill(func(p *synthetic.Phase) { p.TakeoverAt, p.RTO = 12*time.Second, time.Second }))
	if after.Verdict != verdict.Fail {
		t.Errorf("an injector replaced after the system was stable excuses nothing: %s, want FAIL", after.Verdict)
	}
}

func TestObserverReplaced(t *testing.T) {
	r := mustFold(t, kill(func(p *synthetic.Phase) { p.ReclaimAt = time.Second }))
	if r.Verdict != verdict.Invalid || !strings.Contains(result(t, r, verdict.OfValidity).Why, "observer was replaced") {
		t.Errorf("%s: %s", r.Verdict, result(t, r, verdict.OfValidity).Why)
	}
	r = mustFold(t, kill(func(p *synthetic.Phase) { p.ReclaimAt = 11 * time.Second }))
	if r.Verdict != verdict.Pass {
		t.Errorf("an observer replaced during the restore: %s, want PASS (%+v)", r.Verdict, r.Issues)
	}
}

func TestAbort(t *testing.T) {
	r := mustFold(t, kill(func(p *synthetic.Phase) { p.AbortAt = 1400 * time.Millisecond }))
	if r.Verdict != verdict.Invalid || !strings.Contains(r.Phases[0].Invalidities[0], "aborted") {
		t.Errorf("aborted: %s, %v", r.Verdict, r.Phases[0].Invalidities)
	}
	r = mustFold(t, kill(func(p *synthetic.Phase) { p.AbortAt, p.RTO = 1400*time.Millisecond, time.Second }))
	if r.Verdict != verdict.Fail || result(t, r, verdict.OfRTO).Verdict != verdict.Fail {
		t.Errorf("the objective had been missed before the abort: %s, want FAIL", r.Verdict)
	}
}

func TestOutstandingIsNoPass(t *testing.T) {
	r := mustFold(t, kill(func(p *synthetic.Phase) { p.UndoFails = true }))
	if r.Verdict != verdict.Fail || len(r.Issues) == 0 || r.Issues[0].Severity != fold.Critical {
		t.Errorf("%s, issues %+v", r.Verdict, r.Issues)
	}
	for _, i := range r.Issues {
		if !slices.ContainsFunc(r.ActionItems, func(a fold.ActionItem) bool { return a.Issue == i.ID }) {
			t.Errorf("issue %s has no action item", i.ID)
		}
	}
}

// TestRecompute folds an export again: not a byte may differ.
func TestRecompute(t *testing.T) {
	for name, b := range synthetic.Variants() {
		raws := b.History()
		first, err := mustFold(t, raws).JSON()
		if err != nil {
			t.Fatal(err)
		}
		var export bytes.Buffer
		if err := fold.Export(&export, raws); err != nil {
			t.Fatal(err)
		}
		back, err := fold.Import(&export)
		if err != nil {
			t.Fatal(err)
		}
		again, err := mustFold(t, back).JSON()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, again) {
			t.Errorf("%s: the report folded from the export differs", name)
		}
	}
}

// TestPublishedHistoryFoldsTheSame: the report must not depend on its own
// announcement.
func TestPublishedHistoryFoldsTheSame(t *testing.T) {
	b := synthetic.Variants()["pass"]
	before, err := mustFold(t, b.History()).JSON()
	if err != nil {
		t.Fatal(err)
	}
	b.Add(time.Hour, event.TypeReportPublished, event.ReportPublished{Verdict: "PASS", Files: map[string]string{}, Of: 1})
	after, err := mustFold(t, b.History()).JSON()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the report differs once it is published")
	}
}

func TestUntrustedIsCountedAndNotFolded(t *testing.T) {
	raws := kill(nil)
	forged := bytes.Replace(slices.Clone(raws[len(raws)-1]), []byte(`"complete":true`), []byte(`"complete":!!`), 1)
	with := slices.Insert(slices.Clone(raws), 20, []byte("not an event\nat all"), forged)
	r := mustFold(t, with)
	if r.Verdict != verdict.Pass || r.Verification.Whole || r.Verification.Events != len(with) || r.Verification.Trusted != len(raws) {
		t.Errorf("%s, %+v", r.Verdict, r.Verification)
	}
	if !slices.ContainsFunc(r.Issues, func(i fold.Issue) bool { return strings.Contains(i.Title, "cannot be trusted") }) {
		t.Errorf("no issue about the forged messages: %+v", r.Issues)
	}
	clean := mustFold(t, raws)
	if !slices.EqualFunc(clean.Phases, r.Phases, func(a, b fold.Phase) bool { return asJSON(t, a) == asJSON(t, b) }) {
		t.Error("forged messages changed a phase's figures")
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestMissingEventIsInvalid removes every second event in turn: what is not whole is
// never a pass.
func TestMissingEventIsInvalid(t *testing.T) {
	raws := kill(nil)
	for i := 1; i+1 < len(raws); i += 2 {
		r := mustFold(t, slices.Delete(slices.Clone(raws), i, i+1))
		if r.Verdict != verdict.Invalid {
			t.Errorf("without event %d: %s, want INVALID", i+1, r.Verdict)
		}
	}
}

// TestEveryPrefix folds a drill at moments all over its life.
func TestEveryPrefix(t *testing.T) {
	raws := synthetic.Variants()["missing"].History()
	for n := 0; n < len(raws); n += 2 {
		r, err := fold.Fold(raws[:n], ring())
		if n == 0 {
			if !errors.Is(err, fold.ErrNoDrill) {
				t.Fatalf("an empty history: %v, want ErrNoDrill", err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%d events: %v", n, err)
		}
		if r.State != fold.StateRunning || r.Verdict == verdict.Pass {
			t.Errorf("%d events: %s %s", n, r.State, r.Verdict)
		}
		if _, err := r.JSON(); err != nil {
			t.Fatalf("%d events: %v", n, err)
		}
	}
}

func TestUnknownTypesAreCounted(t *testing.T) {
	raws := kill(nil)
	signers, _ := synthetic.Keys()
	last, err := event.Open(raws[len(raws)-1], ring())
	if err != nil {
		t.Fatal(err)
	}
	last.Type, last.DataSchema = "drill.daydreamed", event.SchemaBase+"v9/drill.daydreamed.json"
	last.ChainIndex, last.PrevHash, last.ID = last.ChainIndex+1, event.Hash(raws[len(raws)-1]), "dream"
	raw, err := event.Seal(last, signers[event.Injector])
	if err != nil {
		t.Fatal(err)
	}
	r := mustFold(t, append(raws, raw))
	if r.Verdict != verdict.Pass || r.Verification.Unknown["drill.daydreamed"] != 1 || !r.Verification.Whole {
		t.Errorf("%s, %+v", r.Verdict, r.Verification)
	}
}

func TestDeterministic(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(synthetic.Variants())) {
		raws := synthetic.Variants()[name].History()
		a, b := asJSON(t, mustFold(t, raws)), asJSON(t, mustFold(t, raws))
		if a != b {
			t.Errorf("%s: two folds of the same events differ", name)
		}
	}
}

// TestNothingCounted: where no ledger was read it is not said that nothing is
// missing.
func TestNothingCounted(t *testing.T) {
	r := mustFold(t, synthetic.Variants()["aborted"].History())
	got := result(t, r, verdict.OfRPORecords)
	if strings.Contains(got.Why, "0 acknowledged") || !strings.Contains(got.Why, "no ledger was read") || got.Achieved != fold.Never {
		t.Errorf("%+v", got)
	}
}

// TestUnitsOfReasons: a reason has the units of the figures beside it.
func TestUnitsOfReasons(t *testing.T) {
	got := result(t, mustFold(t, kill(func(p *synthetic.Phase) { p.RTO = 5 * time.Minute })), verdict.OfRTO)
	if !strings.HasPrefix(got.Why, "objective 5 min; ") || !strings.HasSuffix(got.Why, "stable after "+got.Achieved) {
		t.Errorf("%+v", got)
	}
}

// TestErrorsOfAnOutage: what the attempts of an outage met is kept whole with it.
func TestErrorsOfAnOutage(t *testing.T) {
	for _, hang := range []bool{false, true} {
		want := "connection refused"
		if hang {
			want = "no answer within 250ms"
		}
		for _, o := range mustFold(t, kill(func(p *synthetic.Phase) { p.Hang = hang })).Phases[0].Outages {
			if !o.Restore && !slices.Equal(o.Errors, []string{want}) {
				t.Errorf("%s/%s: %q, want %q", o.Probe, o.Lane, o.Errors, want)
			}
		}
	}
}

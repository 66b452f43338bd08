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

// TestKeep: a phase whose evidence was not kept is at best INCONCLUSIVE, and the
// report says what was not copied, why, and what to do.
func TestKeep(t *testing.T) {
	for keep, want := range map[string]struct {
		verdict verdict.Verdict
		why     string
	}{
		synthetic.KeepDone:   {verdict.Pass, "whole and verified"},
		synthetic.KeepFails:  {verdict.Inconclusive, "no space left on device"},
		synthetic.KeepSilent: {verdict.Inconclusive, "did not answer"},
	} {
		r := mustFold(t, kill(func(p *synthetic.Phase) { p.Keep = keep }))
		got := result(t, r, "keep")
		if r.Verdict != want.verdict || got.Verdict != want.verdict || !strings.Contains(got.Why, want.why) {
			t.Errorf("keep %s: %s, %+v", keep, r.Verdict, got)
		}
		summary := strings.Join(r.Summary, " ")
		named := strings.Contains(summary, "dir:/srv/orders-a/pg_wal → dir:/evidence/d-7/wal") && strings.Contains(summary, want.why)
		if bad := want.verdict != verdict.Pass; named != bad {
			t.Errorf("keep %s: the summary is %s", keep, summary)
		} else if bad && !hasItem(r, "dir:/srv/orders-a/pg_wal") {
			t.Errorf("keep %s: issues %+v, items %+v", keep, r.Issues, r.ActionItems)
		}
	}
	r := mustFold(t, kill(func(p *synthetic.Phase) { p.Keep, p.RTO = synthetic.KeepFails, time.Second }))
	if r.Verdict != verdict.Fail {
		t.Errorf("a missed objective and no evidence: %s, want FAIL", r.Verdict)
	}
	r = mustFold(t, kill(func(p *synthetic.Phase) { p.Keep, p.AbortAt = synthetic.KeepDone, 1400*time.Millisecond }))
	if got := result(t, r, "keep"); got.Verdict != verdict.Inconclusive || !strings.Contains(got.Why, "pg_wal → dir:/evidence/d-7/wal): the phase ended before its turn came") {
		t.Errorf("aborted before the copy: %+v", got)
	}
	if s := strings.Join(r.Summary, " "); strings.Count(s, "was not ") != strings.Count(s, "Evidence was not kept: ") || !strings.Contains(s, "its turn came. ") {
		t.Errorf("aborted before the copy: the summary is %s", s)
	}
}

// TestKeepByAMirror: a mirror that is a step of a drill, too, has to have run whole.
func TestKeepByAMirror(t *testing.T) {
	for keep, want := range map[string]verdict.Verdict{
		synthetic.KeepDone: verdict.Pass, synthetic.KeepFails: verdict.Inconclusive, synthetic.KeepSilent: verdict.Inconclusive,
	} {
		r := mustFold(t, kill(func(p *synthetic.Phase) { p.Keep, p.Mirror = keep, "offsite" }))
		got, copies := result(t, r, "keep"), r.Phases[0].Copies
		if r.Verdict != want || got.Verdict != want || strings.Contains(got.Why, "verified") || len(copies) != 1 || copies[0].Mirror != "offsite" {
			t.Errorf("keep %s: %s, %+v, %+v", keep, r.Verdict, got, copies)
		}
		said := strings.Contains(strings.Join(r.Summary, " "), "Not brought up to date: wal (mirror offsite)")
		todo := slices.ContainsFunc(r.ActionItems, func(a fold.ActionItem) bool { return strings.Contains(a.Text, "firedrill mirror sync offsite") })
		if bad := want != verdict.Pass; said != bad || todo != bad {
			t.Errorf("keep %s: summary %q, items %+v", keep, r.Summary, r.ActionItems)
		}
	}
}

// TestNothingToKeep: where nothing was broken there is no evidence of it, so none is
// missing.
func TestNothingToKeep(t *testing.T) {
	for what, inject := range map[string]func(*synthetic.Builder){
		"aborted before the fault": func(*synthetic.Builder) {},
		"the fault was refused": func(b *synthetic.Builder) {
			b.Add(2*time.Second, event.TypeFaultIntended, event.FaultIntended{Effect: event.Effect{Step: "kill/fault/primary", Target: "orders", Operation: "kill", Epoch: 1}})
			b.Add(2500*time.Millisecond, event.TypeFaultFailed, event.FaultFailed{Step: "kill/fault/primary", Reason: "a newer conductor has acted"})
		},
		"": func(b *synthetic.Builder) {
			b.Add(2*time.Second, event.TypeFaultIntended, event.FaultIntended{Effect: event.Effect{Step: "kill/fault/primary", Target: "orders", Operation: "kill", Epoch: 1}})
			b.Add(2500*time.Millisecond, event.TypeFaultFailed, event.FaultFailed{Step: "kill/fault/primary", Reason: "died", Unknown: true})
		},
	} {
		b := synthetic.New("d-7")
		b.Accept(synthetic.Definition("d", "D", synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: time.Second, Keep: synthetic.KeepDone}), "ada")
		b.Add(time.Second, event.TypePhaseStarted, event.PhaseStarted{Phase: "kill"})
		inject(b)
		b.Add(3*time.Second, event.TypeAbortRequested, event.AbortRequested{By: "ada", Cause: "operator", Reason: "customers called"})
		b.Add(4*time.Second, event.TypePhaseFinished, event.PhaseFinished{Phase: "kill"})
		b.Add(5*time.Second, event.TypeDrillFinished, event.DrillFinished{})
		r := mustFold(t, b.History())
		judged := slices.ContainsFunc(r.Phases[0].Results, func(x fold.Result) bool { return x.Of == "keep" })
		said := strings.Contains(strings.Join(r.Summary, " "), "Evidence was not kept")
		if want := what == ""; hasIssue(r, "Evidence was not kept: wal") != want || judged != want || said != want {
			t.Errorf("%q: issues %q, judged %v, %q", what, titles(r), judged, r.Summary)
		}
	}
}

// TestKeptByTheWayBack: what the undo kept in place of the copy is not missing.
func TestKeptByTheWayBack(t *testing.T) {
	p := synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond, Keep: synthetic.KeepDone, AbortAt: 1400 * time.Millisecond}
	b := synthetic.Build("d", "D", p)
	if r := mustFold(t, b.History()); !hasIssue(r, "Evidence was not kept: wal") {
		t.Errorf("not kept by anything: issues %q", titles(r))
	}
	b.Change(func(payload any) any {
		if u, ok := payload.(event.UndoDone); ok {
			u.Details = map[string]string{"step.01": "kept the write-ahead log of node a in /evidence/wal-a"}
			return u
		}
		return payload
	})
	r := mustFold(t, b.History())
	if got := result(t, r, "keep"); hasIssue(r, "Evidence was not kept: wal") || got.Verdict != verdict.Inconclusive || !strings.Contains(got.Why, "the way back kept the write-ahead log of node a in /evidence/wal-a") {
		t.Errorf("kept by the undo: issues %q, %+v", titles(r), got)
	}
}

// TestCutOffByTheAbort: that an action failed which the abort ended is no failure of the
// system, as long as it was undone; nor is it shown to work.
func TestCutOffByTheAbort(t *testing.T) {
	cut := func(p *synthetic.Phase) { p.CutOff = true }
	r := mustFold(t, kill(cut))
	got, a := result(t, r, "restore"), r.Phases[0].Actions[2]
	if r.Verdict != verdict.Inconclusive || got.Verdict != verdict.Inconclusive || !strings.Contains(got.Why, "failback was cut off by the abort") || got.Achieved != "everything is put back; failback cut off" {
		t.Errorf("%s: %+v", r.Verdict, got)
	}
	if a.Status != "cut off" || !strings.Contains(a.Reason, "context canceled") || hasIssue(r, "The restore action failback failed") {
		t.Errorf("%+v, issues %q", a, titles(r))
	}
	if s := strings.Join(r.Summary, " "); !strings.Contains(s, "was put back, and the restore checks passed") {
		t.Error(s)
	}
	if slices.ContainsFunc(r.ActionItems, func(i fold.ActionItem) bool {
		return strings.Contains(i.Text, "Repair") || strings.Contains(i.Text, "by hand")
	}) {
		t.Errorf("items %+v", r.ActionItems)
	}
	if r := mustFold(t, kill(func(p *synthetic.Phase) { p.CutOff, p.UndoFails = true, true })); result(t, r, "restore").Verdict != verdict.Fail {
		t.Errorf("cut off, and the fault not undone: %+v", result(t, r, "restore"))
	}
	// One that failed by itself, whereupon the drill was aborted.
	b := synthetic.Build("d", "D", synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond, CutOff: true}).Without(event.TypeAbortRequested)
	b.Add(time.Minute, event.TypeAbortRequested, event.AbortRequested{By: "injector", Cause: "failure", Reason: "failback failed"})
	if r := mustFold(t, b.History()); result(t, r, "restore").Verdict != verdict.Fail || !hasIssue(r, "The restore action failback failed") {
		t.Errorf("failed before the abort: %+v", result(t, r, "restore"))
	}
}

// hasItem reports whether an issue and an action item of its own speak of it.
func hasItem(r fold.Report, of string) bool {
	i := slices.IndexFunc(r.Issues, func(i fold.Issue) bool { return strings.Contains(i.Detail, of) })
	return i >= 0 && slices.ContainsFunc(r.ActionItems, func(a fold.ActionItem) bool { return a.Issue == r.Issues[i].ID && strings.Contains(a.Text, of) })
}

// TestPutBack: the report says that everything was put back only when every
// effect was undone and the restore checks passed, in whatever way the drill
// ended.
func TestPutBack(t *testing.T) {
	const back, undone = "was put back, and the restore checks passed", "was undone; not checked"
	abort := func(p *synthetic.Phase) { p.AbortAt = 1400 * time.Millisecond }
	for name, x := range map[string]struct {
		change  func(*synthetic.Phase)
		back    string
		verdict verdict.Verdict
		says    []string
	}{
		"to its end":          {nil, fold.BackChecked, verdict.Pass, []string{back}},
		"without checks":      {func(p *synthetic.Phase) { p.Unchecked = true }, fold.BackUndone, verdict.Inconclusive, []string{undone}},
		"aborted":             {abort, fold.BackChecked, verdict.Pass, []string{back}},
		"aborted, no checks":  {func(p *synthetic.Phase) { abort(p); p.Unchecked = true }, fold.BackUndone, verdict.Inconclusive, []string{undone}},
		"not undone":          {func(p *synthetic.Phase) { p.UndoFails = true }, fold.BackOutstanding, verdict.Fail, []string{"Not everything was put back: kill/fault/primary is still in effect", "“firedrill undo d-7”"}},
		"aborted, not undone": {func(p *synthetic.Phase) { abort(p); p.UndoFails = true }, fold.BackOutstanding, verdict.Fail, []string{"kill/fault/primary is still in effect", "“firedrill undo d-7”"}},
	} {
		r := mustFold(t, kill(x.change))
		p, got := r.Phases[0], result(t, r, "restore")
		if p.Back != x.back || got.Verdict != x.verdict {
			t.Errorf("%s: back %q, restore %+v; want %q, %s", name, p.Back, got, x.back, x.verdict)
		}
		summary := strings.Join(r.Summary, " ")
		for _, s := range x.says {
			if !strings.Contains(summary, s) {
				t.Errorf("%s: no %q in %s", name, s, summary)
			}
		}
		claims := strings.Contains(summary, "drill broke was put back") || strings.Contains(got.Achieved+got.Why, "everything is put back") || strings.Contains(got.Why, "everything was put back")
		if claims != (x.back == fold.BackChecked) {
			t.Errorf("%s: %s (%s: %s)", name, summary, got.Achieved, got.Why)
		}
		if owed := len(p.Owed) > 0; owed != (x.back == fold.BackOutstanding) {
			t.Errorf("%s: owed %v", name, p.Owed)
		}
	}
}

// TestRestoreCheckFails: undone, and yet not as it was.
func TestRestoreCheckFails(t *testing.T) {
	b := synthetic.Build("d", "D", synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: 30 * time.Second, Back: 2310 * time.Millisecond, AbortAt: 1400 * time.Millisecond, Unchecked: true})
	step, at := "kill/checks/restored", 8400*time.Millisecond
	b.Add(at, event.TypeChecksRequested, event.ChecksRequested{Step: step})
	b.Add(at+time.Millisecond, event.TypeCheckCompleted, event.CheckCompleted{Step: step, Check: "replication", Target: "orders", Kind: "replication",
		Began: b.Reading(at), Ended: b.Reading(at), Properties: []event.Property{{Name: "standby streams", Result: event.ResultFail, Found: "no standby"}}})
	b.Add(at+2*time.Millisecond, event.TypeChecksCompleted, event.ChecksCompleted{Step: step})
	r := mustFold(t, b.History())
	if got := result(t, r, "restore"); got.Verdict != verdict.Fail || r.Phases[0].Back != fold.BackWrong || strings.Contains(strings.Join(r.Summary, " "), "put back,") {
		t.Errorf("back %q, %+v, %v", r.Phases[0].Back, got, r.Summary)
	}
	if !hasIssue(r, "Not everything was put back") {
		t.Errorf("issues %+v", r.Issues)
	}
}

func hasIssue(r fold.Report, title string) bool {
	return slices.ContainsFunc(r.Issues, func(i fold.Issue) bool { return i.Title == title })
}

// TestEffectWithoutUndoIsOwed: an intent is a debt from the moment it is stored,
// whatever became of it, also where the end names nothing as outstanding.
func TestEffectWithoutUndoIsOwed(t *testing.T) {
	b := synthetic.New("d-7")
	b.Accept(synthetic.Definition("d", "D", synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: time.Second}), "ada")
	b.Add(time.Second, event.TypePhaseStarted, event.PhaseStarted{Phase: "kill"})
	b.Add(2*time.Second, event.TypeFaultIntended, event.FaultIntended{Effect: event.Effect{Step: "kill/fault/primary", Target: "orders", Operation: "kill", Epoch: 1, Undo: []byte(`{}`)}})
	b.Add(3*time.Second, event.TypeFaultFailed, event.FaultFailed{Step: "kill/fault/primary", Reason: "died", Unknown: true})
	b.Add(4*time.Second, event.TypePhaseFinished, event.PhaseFinished{Phase: "kill"})
	b.Add(5*time.Second, event.TypeDrillFinished, event.DrillFinished{})
	r := mustFold(t, b.History())
	if !slices.Equal(r.Phases[0].Owed, []string{"kill/fault/primary"}) || !hasIssue(r, "Something is still broken") || !strings.Contains(strings.Join(r.Summary, " "), "firedrill undo d-7") {
		t.Errorf("owed %v, issues %+v, %v", r.Phases[0].Owed, r.Issues, r.Summary)
	}
}

package fold_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

// TestWhatWasLetGoIsNotShownToBeBack: the report says on whose word, and is no PASS.
func TestWhatWasLetGoIsNotShownToBeBack(t *testing.T) {
	b := synthetic.Variants()["settled"].Without(event.TypeUndoIntended, event.TypeUndoDone, event.TypeUndoFailed)
	steps := []string{"kill-sync/recovery/promote", "kill-sync/fault/primary"}
	for i, step := range steps {
		b.Add(time.Duration(100+i)*time.Millisecond, event.TypeUndoWaived, event.UndoWaived{Step: step, By: "ada", Reason: "rebuilt by hand"})
	}
	r := mustFold(t, b.History())
	if r.Verdict != verdict.Inconclusive || r.Settlement.Back != fold.BackOutstanding || len(r.Settlement.Owed) != 0 {
		t.Fatalf("%s, %+v", r.Verdict, r.Settlement)
	}
	const want = "kill-sync/fault/primary was not undone, on the word of ada: rebuilt by hand"
	if text := strings.Join(r.Summary, " "); !strings.Contains(text, want) || !strings.Contains(text, "nothing has shown that it is back") {
		t.Errorf("summary: %s", text)
	}
	if got := titles(r); !slices.Equal(got, []string{"Something was let go without being undone", "Something was let go without being undone"}) {
		t.Errorf("issues %q", got)
	}
}

// TestTargetsDescribedAnewAreNamed, with who did it.
func TestTargetsDescribedAnewAreNamed(t *testing.T) {
	b := synthetic.Variants()["settled"]
	b.Change(func(p any) any {
		if a, ok := p.(event.DrillAccepted); ok {
			a.Anew = []string{"orders"}
			return a
		}
		return p
	})
	if r := mustFold(t, b.History()); !strings.Contains(r.Summary[0], "ada described the targets anew") || !strings.Contains(r.Summary[0], "orders.") {
		t.Errorf("summary: %q", r.Summary)
	}
}

// TestOneIssuePerReason: undos that failed for one reason are one thing to repair, and
// how long they took is told.
func TestOneIssuePerReason(t *testing.T) {
	for reason, want := range map[string]int{"no such program": 1, "": 2} {
		b := synthetic.Variants()["unsettled"].Without(event.TypeUndoIntended, event.TypeUndoDone, event.TypeUndoFailed)
		for i, step := range []string{"kill-sync/recovery/promote", "kill-sync/fault/primary"} {
			at, why := time.Duration(100+i*100)*time.Millisecond, reason
			if why == "" {
				why = step
			}
			b.Add(at, event.TypeUndoIntended, event.UndoIntended{Step: step, Epoch: 1, Try: 1})
			b.Add(at+60*time.Millisecond, event.TypeUndoFailed, event.UndoFailed{Step: step, Try: 1, Reason: "undoing " + step + " on t: " + why, Permanent: true})
		}
		b.Change(func(p any) any {
			if _, ok := p.(event.DrillFinished); ok {
				return event.DrillFinished{Outstanding: []string{"kill-sync/fault/primary", "kill-sync/recovery/promote"}}
			}
			return p
		})
		r := mustFold(t, b.History())
		var broken []fold.Issue
		for _, i := range r.Issues {
			if i.Title == "Something is still broken" {
				broken = append(broken, i)
			}
		}
		if len(broken) != want || want == 1 && broken[0].Detail != "kill-sync/fault/primary, kill-sync/recovery/promote, after 1 try each: no such program" {
			t.Errorf("%q: %+v", reason, broken)
		}
		for _, u := range r.Settlement.Undos {
			if u.Took != int64(60*time.Millisecond) {
				t.Errorf("%s took %v", u.Step, time.Duration(u.Took))
			}
		}
	}
}

// TestADrillThatWasRefusedSaysWhy: it must not sound as if the system were well.
func TestADrillThatWasRefusedSaysWhy(t *testing.T) {
	b := synthetic.New("d-8")
	b.Accept(synthetic.Definition("d", "D", synthetic.Phase{Name: "kill", Title: "Kill", Operation: "kill", RTO: time.Minute}), "ada")
	const why = "target db is postgres/1: drill d-7 could not undo kill there: look at it, then `firedrill undo d-7`"
	b.Add(30*time.Millisecond, event.TypeDrillPlanned, event.DrillPlanned{Steps: []event.PlannedStep{}})
	b.Add(31*time.Millisecond, event.TypeAbortRequested, event.AbortRequested{By: "firedrill", Cause: drill.CauseGuard, Reason: why})
	b.Add(32*time.Millisecond, event.TypeDrillFinished, event.DrillFinished{Reason: why})
	r := mustFold(t, b.History())
	text := strings.Join(r.Summary, " ")
	if !strings.Contains(text, "refused before it broke anything") || !strings.Contains(text, why) || strings.Contains(text, "The drill broke nothing") {
		t.Errorf("summary: %s", text)
	}
}

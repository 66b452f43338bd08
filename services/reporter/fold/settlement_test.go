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

func TestSettlement(t *testing.T) {
	r := mustFold(t, synthetic.Variants()["settled"].History())
	if r.Settles != "orders-missing-7" || !strings.Contains(r.Title, "Settles drill orders-missing-7") || len(r.Phases) != 0 || r.Settlement == nil {
		t.Fatalf("settles %q, title %q, %d phases", r.Settles, r.Title, len(r.Phases))
	}
	s := r.Settlement
	if r.Verdict != verdict.Pass || s.Back != fold.BackUndone || len(s.Undos) != 2 || len(s.Owed) != 0 {
		t.Errorf("%s, %+v", r.Verdict, s)
	}
	if u := s.Undos[1]; u.Step != "kill-sync/recovery/promote" || u.Target != "orders" || u.Operation != "promote" || u.Status != "done" || u.Tries != 2 || len(u.Reasons) != 1 || u.Took != int64(785*time.Millisecond) {
		t.Errorf("the second step: %+v", u)
	}
	text := asJSON(t, r)
	for _, bad := range []string{"INVALID", "still in effect", "probe"} {
		if body := strings.Split(text, `"spec":`)[0]; strings.Contains(body, bad) {
			t.Errorf("a settlement speaks of %q: %s", bad, body)
		}
	}
}

// TestSettlementFails: what is left is said, and is never a PASS.
func TestSettlementFails(t *testing.T) {
	drop := func(types ...event.Type) [][]byte {
		b := synthetic.Variants()["settled"]
		return b.Without(types...).History()
	}
	for name, x := range map[string]struct {
		raws [][]byte
		back string
		says string
	}{
		"an undo that fails":   {synthetic.Variants()["unsettled"].History(), fold.BackOutstanding, "kill-sync/recovery/promote is still in effect. Run “firedrill undo orders-missing-7”"},
		"an undo without end":  {drop(event.TypeUndoDone), fold.BackOutstanding, "are still in effect"},
		"a step that was left": {drop(event.TypeUndoIntended, event.TypeUndoDone, event.TypeUndoFailed), fold.BackOutstanding, "kill-sync/fault/primary, kill-sync/recovery/promote are still in effect"},
	} {
		r := mustFold(t, x.raws)
		if r.Verdict != verdict.Fail || r.Settlement.Back != x.back || !strings.Contains(strings.Join(r.Summary, " "), x.says) || len(r.Issues) == 0 || len(r.ActionItems) == 0 {
			t.Errorf("%s: %s, back %q, %v, issues %+v", name, r.Verdict, r.Settlement.Back, r.Summary, r.Issues)
		}
	}
	whole := synthetic.Variants()["settled"].History()
	if r := mustFold(t, slices.Delete(slices.Clone(whole), 4, 5)); r.Verdict != verdict.Invalid {
		t.Errorf("a settlement with an event missing: %s, want INVALID", r.Verdict)
	}
	if r := mustFold(t, whole[:6]); r.Verdict != "" || r.State != fold.StateRunning || len(r.Issues) != 0 {
		t.Errorf("a settlement under way: %s %s, %+v", r.State, r.Verdict, r.Issues)
	}
}

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/injector"
)

// TestAbortPutsBackAndShowsIt: a drill that is aborted, or halted with all others,
// while the primary hangs undoes the fault, and has its restore checks made. While all
// is halted no other drill begins.
func TestAbortPutsBackAndShowsIt(t *testing.T) {
	p := startLab(t, lab.PostgresOptions{Synchronous: true})
	stack, rec, out := startAllInOne(t, p)
	cut := func(name, cause, reason string, stop func(id string) error) (id string) {
		t.Helper()
		publish(t, rec.NATSURL, name, quickDrill(t, name, frozen))
		id = accepted(t, stack.Bus, name)
		history := await(t.Context(), t, stack.Bus, id, func(s bus.Stored) {
			if s.Event.Type == event.TypeFaultInjected {
				if err := stop(id); err != nil {
					t.Error(err)
				}
			}
		})
		wholeHistory(t, history, stack.Keyring)
		atHome(t, p)
		undoneThenChecked(t, history)
		r := foldReport(t, history, stack.Keyring)
		if a := r.Conduct.Aborts; r.Verdict != verdict.Invalid || len(a) != 1 || a[0].Cause != cause || a[0].By != "me" || a[0].Reason != reason {
			t.Errorf("%s: verdict %s, aborts %+v: want INVALID for %s by me: %s", name, r.Verdict, a, cause, reason)
		}
		return id
	}
	id := cut("cut-short", drill.CauseOperator, "seen enough", func(id string) error {
		return stack.Bus.Command(t.Context(), id, "abort", []byte(`{"by":"me","reason":"seen enough"}`))
	})
	record(t, stack, filepath.Join(out, id), "aborted")

	cut("halted", drill.CauseHalt, "a real incident", func(string) error {
		return stack.Bus.SetHalt(t.Context(), bus.Halt{Halted: true, By: "me", Reason: "a real incident"})
	})
	// It would be accepted, and be refused by its guard before it breaks anything.
	next := func(name string) {
		publish(t, rec.NATSURL, name, protecting(t, quickDrill(t, name, frozen), "role=primary"))
	}
	next("next")
	if a := answered(t, stack.Bus, "next"); a.State != "rejected" || a.Drill != "" || !strings.Contains(a.Reason, "halted by me (a real incident)") {
		t.Errorf("a request while all is halted: %+v", a)
	}
	if err := stack.Bus.SetHalt(t.Context(), bus.Halt{By: "me"}); err != nil {
		t.Fatal(err)
	}
	next("released")
	history := await(t.Context(), t, stack.Bus, accepted(t, stack.Bus, "released"), nil)
	untouched(t, "released", history)
}

// undoneThenChecked fails the test unless the fault was undone, the restore checks
// passed after that, and nothing was left.
func undoneThenChecked(t *testing.T, history []bus.Stored) {
	t.Helper()
	var undone, checked int
	for i, h := range history {
		switch d := h.Payload.(type) {
		case *event.UndoDone:
			undone = i
		case *event.ChecksCompleted:
			if checked = i; !d.Passed {
				t.Errorf("the restore checks did not pass:\n%s", outline(history))
			}
		}
	}
	if undone == 0 || checked < undone {
		t.Fatalf("undone at %d, checked at %d\n%s", undone, checked, outline(history))
	}
	if fin := finished(history); fin.Complete || len(fin.Outstanding) > 0 {
		t.Errorf("finished %+v", fin)
	}
}

// TestUndoThatFailsIsSettledLater: the dead primary's data directory is out of
// reach when it has to be started. The drill names what it left, no other drill
// gets the cluster, and an undo request finishes the work once that is mended.
func TestUndoThatFailsIsSettledLater(t *testing.T) {
	t.Parallel() // most of it is waiting between tries
	p := startLab(t, lab.PostgresOptions{Synchronous: true})
	stack, rec, _ := startAllInOne(t, p)
	a, _ := p.Node("a")
	away := a.DataDir + ".away"
	publish(t, rec.NATSURL, "stuck", quickDrill(t, "stuck", func(phase map[string]any) {
		hurried(phase)
		// Nobody promotes: the way back has the dead primary to start.
		delete(phase, "recovery")
		phase["stable"] = map[string]any{"window": "1s", "timeout": "1s"}
	}))
	left := accepted(t, stack.Bus, "stuck")
	history := await(t.Context(), t, stack.Bus, left, func(s bus.Stored) {
		if s.Event.Type != event.TypeFaultInjected {
			return
		}
		if err := os.Rename(a.DataDir, away); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(a.DataDir, []byte("in the way"), 0o600); err != nil {
			t.Error(err)
		}
	})
	if fin := finished(history); len(fin.Outstanding) == 0 || foldReport(t, history, stack.Keyring).Verdict == verdict.Pass {
		t.Fatalf("finished %+v\n%s", fin, outline(history))
	}
	publish(t, rec.NATSURL, "blocked", quickDrill(t, "blocked", hurried))
	blocked := await(t.Context(), t, stack.Bus, accepted(t, stack.Bus, "blocked"), nil)
	for _, h := range blocked {
		if h.Event.Type == event.TypeFaultIntended {
			t.Fatal("a drill went on with a cluster that an earlier one left broken")
		}
	}
	if fin := finished(blocked); !strings.Contains(fin.Reason, "firedrill undo "+left) {
		t.Errorf("the blocked drill ended with %q", fin.Reason)
	}
	if err := os.Remove(a.DataDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, a.DataDir); err != nil {
		t.Fatal(err)
	}
	raw, err := injector.UndoRequest("undo", drill.UndoSpec{Drill: left})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, rec.NATSURL, "undo", raw)
	history = await(t.Context(), t, stack.Bus, accepted(t, stack.Bus, "undo"), nil)
	wholeHistory(t, history, stack.Keyring)
	atHome(t, p)
	r := foldReport(t, history, stack.Keyring)
	if r.Verdict != verdict.Pass {
		t.Fatalf("verdict %s: %+v\n%s", r.Verdict, r.Issues, outline(history))
	}
}

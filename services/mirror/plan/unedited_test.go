package plan_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// uneditedWorld is that of a copy that overwrites nothing but what it wrote.
func uneditedWorld(t testing.TB) *world {
	w := newWorld(t, plan.Copy)
	w.rules.Unedited = true
	return w
}

func TestACopyLeavesAloneWhatWasEditedAtTheDestination(t *testing.T) {
	w := uneditedWorld(t)
	for _, p := range []string{"both", "dest", "kept", "lost", "mode", "same", "source", "touched"} {
		w.file(plan.Source, p, "base")
	}
	w.file(plan.Source, "mine", "the source's")
	w.file(plan.Dest, "mine", "there before")
	settled, _ := w.run()
	expect(t, settled, "put both", "put dest", "put kept", "put lost", "conflict mine: changed at the destination, or never put there by a run",
		"put mode", "put same", "put source", "put touched")
	w.file(plan.Source, "both", "1")
	w.file(plan.Dest, "both", "two")
	w.file(plan.Dest, "dest", "edited")
	w.remove(plan.Dest, "lost")
	w.file(plan.Source, "source", "edited")
	for s := range w.sides {
		w.file(plan.Side(s), "same", "equal now")
		w.sides[s].nodes["same"].mtime = 5
	}
	mode := *w.sides[plan.Dest].nodes["mode"]
	mode.mode = 0o600
	w.write(plan.Dest, "mode", mode)
	// Its ctime alone tells of it, and its content is what was left there.
	w.write(plan.Dest, "touched", *w.sides[plan.Dest].nodes["touched"])
	w.file(plan.Source, "touched", "newer")
	// As of this, but it is another one.
	kept := *w.sides[plan.Dest].nodes["kept"]
	kept.content = "mine"
	w.write(plan.Dest, "kept", kept)
	w.file(plan.Source, "kept", "newer")
	settled, _ = w.run()
	const edited = ": changed at the destination, or never put there by a run"
	expect(t, settled, "conflict both"+edited, "conflict dest"+edited, "conflict kept"+edited, "put lost", "conflict mine"+edited, "conflict mode"+edited, "equal same", "put source", "put touched")
	if again, _ := w.run(); len(changes(again)) > 0 {
		t.Errorf("the next run is not empty: %v", changes(again))
	}
	// Whoever wants the source's takes it over by hand, or lets a run do that.
	w.rules.Unedited = false
	w.run()
	w.rules.Unedited = true
	if settled, _ = w.run(); len(changes(settled)) > 0 || w.sides[plan.Dest].nodes["both"].content != "1" {
		t.Errorf("after a run that overwrites: %v", ops(settled))
	}
}

// What was edited at the destination since the last run, or was never brought there, is
// still there, as it was edited, after each run; and what is missing there is brought.
func TestAnUneditedCopyOverwritesNoEdit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, plan.Copy)
		w.rules.Unedited = true
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			edits(t, w, plan.Source, plan.Dest)
			for range 3 {
				edited, before := editedSince(w, plan.Dest), w.show(plan.Dest)
				w.run()
				now := w.show(plan.Dest)
				for p, line := range edited {
					if now[p] != line {
						t.Fatalf("%q was edited to %s and is %s", p, line, now[p])
					}
				}
				for p, n := range w.sides[plan.Source].nodes {
					if got := w.sides[plan.Dest].nodes[p]; n.kind == entry.File && got == nil && before[p] == "" && !blocked(before, p) {
						t.Fatalf("%q was not copied", p)
					}
				}
			}
			if again, _ := w.run(); len(changes(again)) > 0 {
				t.Fatalf("does not converge: %v", changes(again))
			}
		}
	})
}

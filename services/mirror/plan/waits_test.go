package plan_test

import (
	"testing"

	"github.com/firedrill/firedrill/services/mirror/plan"
)

// What is to be deleted, and is not, because something else failed before, is remembered as
// gone from the other side, however few scans its deletion takes; and no more than that.
func TestWhatCouldNotBeDeletedWaits(t *testing.T) {
	w := synced(t, plan.Mirror)
	if p := w.past["c"]; p.Waits(plan.Source) || p.Waits(plan.Dest) {
		t.Fatalf("what is on both sides: %+v", p)
	}
	actions, _ := w.plan(w.input())
	seen := 0
	for _, a := range actions {
		if a.Op != plan.Delete {
			continue
		}
		seen++
		p, ok := w.rules.Next(a, false)
		if !ok || !p.Waits(plan.Source) || p.Waits(plan.Dest) || p.Missing != [2]uint8{plan.Source: 1} {
			t.Errorf("%q: %v, %+v", a.Key, ok, p)
		}
		a.Past = p
		if again, _ := w.rules.Next(a, false); again.Missing != p.Missing {
			t.Errorf("%q once more: %+v", a.Key, again)
		}
	}
	if seen != 2 {
		t.Errorf("%d deletes", seen)
	}
}

// What came back was not missing in scans in a row, also where it could not be copied.
func TestWhatIsBackWaitsNoMore(t *testing.T) {
	w := synced(t, plan.Mirror)
	w.rules.Guards.Scans = 2
	w.run()
	if p := w.past["c"]; !p.Waits(plan.Source) {
		t.Fatalf("missing once: %+v", p)
	}
	w.file(plan.Source, "c", "back, and another")
	actions, _ := w.plan(w.input())
	for _, a := range actions {
		if a.Key != "c" {
			continue
		}
		if p, ok := w.rules.Next(a, false); a.Op != plan.Put || !ok || p.Missing != [2]uint8{} || !plan.Present(p.Dest) {
			t.Errorf("back, and not copied: %v, %v, %+v", a.Op, ok, p)
		}
	}
	// What a copy kept is not kept any more either.
	p := plan.Past{Key: "c", Source: w.past["c"].Source, Dest: w.past["c"].Dest, Missing: [2]uint8{plan.Source: plan.MissingKept}}
	if p.Waits(plan.Source) {
		t.Error("what a copy keeps waits for nothing")
	}
}

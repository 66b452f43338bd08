package plan_test

import (
	"testing"

	"github.com/firedrill/firedrill/services/mirror/plan"
)

// What a copy leaves at the destination is remembered as gone from the source, once, until
// it is back there.
func TestACopyRemembersWhatItKeeps(t *testing.T) {
	w := synced(t, plan.Copy)
	for range 3 {
		w.run()
		for _, key := range []string{"c", "j"} {
			if p := w.past[key]; p.Missing != [2]uint8{plan.Source: plan.MissingKept} || !plan.Present(p.Source) || !plan.Present(p.Dest) {
				t.Fatalf("remembers %q as %+v", key, p)
			}
		}
	}
	if p := w.past["a"]; p.Missing != [2]uint8{} {
		t.Errorf("what is on both sides: %+v", p)
	}
	w.file(plan.Source, "c", "back")
	w.run()
	if p := w.past["c"]; p.Missing != [2]uint8{} {
		t.Errorf("what is back: %+v", p)
	}
}

// A mode that deletes begins to count with its own scans.
func TestWhatACopyKeptIsCountedAnew(t *testing.T) {
	w := synced(t, plan.Copy)
	w.run()
	w.rules.Mode, w.rules.Guards.Scans = plan.Mirror, 3
	for scan := uint8(1); scan < 3; scan++ {
		w.run()
		if p := w.past["c"]; p.Missing != [2]uint8{plan.Source: scan} {
			t.Fatalf("scan %d: %+v", scan, p)
		}
	}
	w.run()
	if p := w.past["c"]; p.Key != "" {
		t.Errorf("missing in three scans: %+v", p)
	}
}

// What may be there, as nobody could look, or as another disk was looked at, is not
// remembered as gone; nor is what the mirror never brought.
func TestACopyRemembersNoLossThatItDidNotSee(t *testing.T) {
	w := synced(t, plan.Copy)
	in := w.input()
	in.Source = failing(in.Source, 0)
	actions, _ := w.plan(in)
	for _, a := range actions {
		if a.Key == "c" && (a.Op != plan.Keep || a.Reason != plan.KeepUnlisted) {
			t.Errorf("behind an error: %v %q", a.Op, a.Reason)
		}
	}
	w.apply(actions)
	if p := w.past["c"]; p.Missing != [2]uint8{} || p.Key == "" {
		t.Errorf("behind an error: %+v", p)
	}
	w.rules.Guards.Markers[plan.Source].Got = "another"
	w.run()
	if p := w.past["c"]; p.Missing != [2]uint8{} || p.Key == "" {
		t.Errorf("on another disk: %+v", p)
	}
	w.rules.Guards.Markers[plan.Source].Got = "s"
	w.file(plan.Dest, "foreign", "x")
	w.run()
	if p := w.past["foreign"]; p.Key != "" {
		t.Errorf("what others brought: %+v", p)
	}
}

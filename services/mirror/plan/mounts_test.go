package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// onDisk is a synced world of files on two disks, one in the other, which are mounted below a
// side's root, and of files beside them.
func onDisk(t *testing.T, mode plan.Mode, s plan.Side) *world {
	w := newWorld(t, mode)
	w.sides[s].mounts = map[string]entry.FSID{"d": {2}, "d/s/deep": {3}}
	for _, p := range []string{"a", "b", "c", "d.txt", "d/m", "d/s/n", "d/s/deep/o", "e"} {
		w.file(plan.Source, p, p)
	}
	w.run()
	return w
}

// unmount leaves of what lies below a side's paths nothing but directories.
func (w *world) unmount(s plan.Side, mountpoints ...string) {
	for _, p := range mountpoints {
		w.remove(s, p)
		delete(w.sides[s].mounts, p)
	}
	for _, p := range mountpoints {
		w.dir(s, p)
	}
}

func TestWhatIsNotMountedIsNotMissing(t *testing.T) {
	for _, c := range []struct {
		mode plan.Mode
		side plan.Side // on which it is mounted
	}{{plan.Mirror, plan.Source}, {plan.TwoWay, plan.Source}, {plan.TwoWay, plan.Dest}} {
		for name, happens := range map[string]func(w *world){
			"unmounted":    func(w *world) { w.unmount(c.side, "d") },
			"mounted over": func(w *world) { w.unmount(c.side, "d"); w.sides[c.side].mounts["d"] = entry.FSID{4} },
			"no directory": func(w *world) { w.remove(c.side, "d") },
		} {
			t.Run(fmt.Sprintf("%s, %s, %s", c.mode, c.side, name), func(t *testing.T) {
				w := onDisk(t, c.mode, c.side)
				happens(w)
				w.remove(c.side, "b")
				for range 3 {
					actions, report := w.run()
					for _, key := range deletes(actions) {
						if strings.HasPrefix(key, "d/") {
							t.Errorf("deletes %q", key)
						}
					}
					r := report.Refusals
					if len(r) != 1 || r[0].Guard != plan.GuardMount || !strings.Contains(r[0].Value, fmt.Sprintf(`at "d", "d/s/deep" in the %s`, c.side)) || r[0].Fix == "" {
						t.Fatalf("refusals are %v", r)
					}
				}
				if w.sides[c.side.Other()].nodes["b"] != nil {
					t.Error("what is gone beside it is kept")
				}
				for p, past := range w.past {
					if past.Missing != [2]uint8{} {
						t.Errorf("%q is counted as missing", p)
					}
				}
				w.rules.Accept = true
				w.run()
				w.rules.Accept = false
				for range 2 {
					if _, report := w.run(); len(report.Refusals) > 0 {
						t.Errorf("it was accepted: %v", report.Refusals)
					}
				}
				if left := w.sides[c.side.Other()].nodes; left["d/m"] != nil || left["d/s/deep/o"] != nil || left["a"] == nil {
					t.Errorf("left is %v", w.show(c.side.Other()))
				}
			})
		}
	}
}

// What is gone from a disk that is there is deleted, and only that.
func TestWhatIsGoneFromAMountIsDeleted(t *testing.T) {
	w := onDisk(t, plan.Mirror, plan.Source)
	w.rules.Guards.Scans = 1
	w.remove(plan.Source, "d/s")
	delete(w.sides[plan.Source].mounts, "d/s/deep")
	actions, report := w.run()
	if got := deletes(actions); !slices.Equal(got, []string{"d/s/n"}) || len(report.Refusals) != 1 {
		t.Errorf("deletes %q, refuses %v", got, report.Refusals)
	}
	if r := report.Refusals[0]; r.Deletes != 2 || !strings.Contains(r.Value, `at "d/s/deep" in`) {
		t.Errorf("refuses %v", r)
	}
}

// What lay where another disk is mounted now is told from what lay on that disk.
func TestWhatIsMountedOverAndWhatIsNotMountedAreKept(t *testing.T) {
	w := onDisk(t, plan.Mirror, plan.Source)
	over := map[string]entry.FSID{"e.d": {5}}
	w.file(plan.Source, "e.d/below", "")
	w.run()
	w.remove(plan.Source, "e.d/below")
	w.sides[plan.Source].mounts = over
	w.file(plan.Source, "e.d/upon", "")
	w.unmount(plan.Source, "d")
	w.run()
	delete(over, "e.d")
	w.file(plan.Source, "e.d/below", "")
	w.remove(plan.Source, "e.d/upon")
	for range 3 {
		if actions, report := w.run(); len(deletes(actions)) > 0 || len(report.Refusals) != 1 || !strings.Contains(report.Refusals[0].Value, `"e.d"`) {
			t.Fatalf("deletes %q, refuses %v", deletes(actions), report.Refusals)
		}
	}
}

// What a side leaves out as it lies in another file system takes no part, as if a filter had
// left it out.
func TestWhatIsLeftOutTakesNoPart(t *testing.T) {
	for _, c := range []struct {
		mode plan.Mode
		side plan.Side
	}{{plan.Mirror, plan.Source}, {plan.TwoWay, plan.Source}, {plan.TwoWay, plan.Dest}} {
		w := onDisk(t, c.mode, c.side)
		w.sides[c.side].closed = map[string]bool{"d": true}
		for p := range w.sides[c.side].nodes {
			if strings.HasPrefix(p, "d/") {
				w.remove(c.side, p)
			}
		}
		actions, report := w.plan(w.input())
		expect(t, actions, "equal a", "equal b", "equal c", "equal d.txt", "equal d/", "equal e")
		if len(report.Refusals) > 0 || report.Seen != [2]int64{6, 6} {
			t.Errorf("%s: %+v", c.mode, report)
		}
	}
}

// A copy deletes nothing, and does not take note that it kept what may not be gone.
func TestACopyForgetsNoMount(t *testing.T) {
	w := onDisk(t, plan.Copy, plan.Source)
	w.unmount(plan.Source, "d")
	actions, report := w.run()
	if len(report.Refusals) > 0 || !slices.Contains(ops(actions), "keep d/m: "+string(plan.KeepAway)) || w.past["d/m"].Missing != [2]uint8{} {
		t.Errorf("%v, %v", ops(actions), report.Refusals)
	}
	w.rules.Mode, w.rules.Guards.Scans = plan.Mirror, 1
	if actions, report = w.run(); len(deletes(actions)) > 0 || len(report.Refusals) != 1 {
		t.Errorf("deletes %q, refuses %v", deletes(actions), report.Refusals)
	}
}

// Of very many disks a few are named, and all are counted.
func TestManyMountsAreNamedShortly(t *testing.T) {
	for many, want := range map[int]string{2: `"d000", "d001" in`, 5: `"d002" in the source and at 2 other places`, 150: "and at more than 97 other places"} {
		w := newWorld(t, plan.Mirror)
		w.sides[plan.Source].mounts = map[string]entry.FSID{}
		w.file(plan.Source, "a", "")
		for i := range many {
			dir := fmt.Sprintf("d%03d", i)
			w.sides[plan.Source].mounts[dir] = entry.FSID{2, byte(i)}
			w.file(plan.Source, dir+"/m", "")
		}
		w.run()
		for i := range many {
			w.unmount(plan.Source, fmt.Sprintf("d%03d", i))
		}
		if _, report := w.run(); len(report.Refusals) != 1 || !strings.Contains(report.Refusals[0].Value, want) || report.Refusals[0].Deletes != int64(many) {
			t.Errorf("%d: %v", many, report.Refusals)
		}
	}
}

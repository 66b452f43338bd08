package plan_test

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/plan"
)

// What is passed over is what changes nothing: the rest of the plan is as without, and
// so is the report.
func TestWhatIsAsItWasLeftIsOnlyCounted(t *testing.T) {
	passedOver := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.SampledFrom([]plan.Mode{plan.Copy, plan.Mirror}).Draw(t, "mode"))
		edits(t, w, plan.Source)
		w.file(plan.Source, "stays", "")
		w.run()
		edits(t, w, plan.Source)
		if rapid.Bool().Draw(t, "a run, and edits of both sides") {
			w.run()
			edits(t, w, plan.Source, plan.Dest)
		}
		whole, report := w.plan(believed(w))
		number, bytes := 0, int64(0)
		w.rules.AsLeft = func(size int64) { number, bytes = number+1, bytes+size }
		short, shortReport := w.planAt(believed(w))
		passedOver += number
		silent := func(a plan.Action) bool {
			next, keep := w.rules.Next(a, true)
			return a.Op == plan.Equal && keep && reflect.DeepEqual(next, a.Past)
		}
		same := func(a, b plan.Action) bool { return reflect.DeepEqual(a, b) }
		rest := slices.DeleteFunc(slices.Clone(whole), silent)
		if got := slices.DeleteFunc(slices.Clone(short), silent); !slices.EqualFunc(got, rest, same) {
			t.Fatalf("passing over changes the plan:\n got %v\nwant %v", ops(got), ops(rest))
		}
		if len(short)+number != len(whole) {
			t.Fatalf("%d actions and %d passed over are not %d", len(short), number, len(whole))
		}
		if !maps.Equal(report.Ops, shortReport.Ops) || !maps.Equal(report.Bytes, shortReport.Bytes) || report.Seen != shortReport.Seen ||
			!reflect.DeepEqual(report.Refusals, shortReport.Refusals) || report.Faults != shortReport.Faults {
			t.Fatalf("the reports differ:\n got %+v\nwant %+v", shortReport, report)
		}
	})
	if passedOver == 0 {
		t.Fatal("nothing was ever passed over")
	}
}

// believed is the input of a run that does not look at the destination.
func believed(w *world) plan.Input {
	in := w.input()
	in.Dest = nil
	return in
}

// Each thing that tells a file from what was left keeps it from being passed over.
func TestNothingThatChangedIsPassedOver(t *testing.T) {
	for name, change := range map[string]func(w *world, n *node, p *plan.Past){
		"nothing":                     func(*world, *node, *plan.Past) {},
		"size":                        func(_ *world, n *node, _ *plan.Past) { n.content += "x" },
		"time":                        func(_ *world, n *node, _ *plan.Past) { n.mtime++ },
		"time of the inode":           func(_ *world, n *node, _ *plan.Past) { n.ctime++ },
		"inode":                       func(_ *world, n *node, _ *plan.Past) { n.inode++ },
		"mode":                        func(_ *world, n *node, _ *plan.Past) { n.mode ^= 1 },
		"kind":                        func(_ *world, n *node, _ *plan.Past) { n.kind = 2 },
		"missing in a scan":           func(_ *world, _ *node, p *plan.Past) { p.Missing[plan.Source] = 1 },
		"modified as it was scanned":  func(_ *world, _ *node, p *plan.Past) { p.Dirty[plan.Source] = true },
		"the destination's mode":      func(_ *world, _ *node, p *plan.Past) { p.Dest.Mode ^= 1 },
		"the destination's time":      func(_ *world, _ *node, p *plan.Past) { p.Dest.MTime++ },
		"nothing at the destination":  func(_ *world, _ *node, p *plan.Past) { p.Dest = plan.Past{}.Dest },
		"modified as it is scanned":   func(w *world, n *node, p *plan.Past) { n.ctime = w.clock + 9*second; p.Source.Change.CTime = n.ctime },
		"extended attributes then":    func(_ *world, _ *node, p *plan.Past) { p.Source.Xattrs = map[string][]byte{"user.a": nil} },
		"no identity of the inode":    func(w *world, _ *node, p *plan.Past) { p.Source.Change = plan.Past{}.Source.Change },
		"the destination's own owner": func(_ *world, _ *node, p *plan.Past) { p.Dest.UID++ },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, plan.Mirror)
			w.file(plan.Source, "a", "content")
			w.run()
			past := w.past["a"]
			change(w, w.sides[plan.Source].nodes["a"], &past)
			w.past["a"] = past
			number := 0
			w.rules.AsLeft = func(int64) { number++ }
			actions, _ := w.plan(believed(w))
			if want := name == "nothing"; (number == 1) != want || len(actions)+number != 1 {
				t.Fatalf("%d passed over, and %v", number, ops(actions))
			}
		})
	}
}

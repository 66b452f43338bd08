package plan_test

import (
	"errors"
	"iter"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
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
		w.rules.Both[plan.Dest] = rapid.Bool().Draw(t, "the destination can hold a file and a directory of one name")
		faults := [2]int{rapid.IntRange(-1, 30).Draw(t, "fault of the source"), rapid.IntRange(-1, 30).Draw(t, "fault of the past")}
		twice := rapid.IntRange(-1, 30).Draw(t, "twice in the source")
		input := func() plan.Input {
			in := w.input()
			in.Dest, in.Source = nil, again(in.Source, twice)
			if faults[0] >= 0 && faults[0] < 20 {
				in.Source = failing(in.Source, faults[0])
			}
			if faults[1] >= 0 && faults[1] < 10 {
				in.Past = failing(in.Past, faults[1])
			}
			return in
		}
		whole, report := w.plan(input())
		number, bytes := 0, int64(0)
		w.rules.AsLeft = func(size int64) { number, bytes = number+1, bytes+size }
		short, shortReport := w.planAt(input())
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

// again yields the n-th entry twice.
func again(in iter.Seq2[entry.Entry, error], n int) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		for e, err := range in {
			if !yield(e, err) || n == 0 && !yield(e, err) {
				return
			}
			n--
		}
	}
}

// A stream that is out of order ends the plan at once, also behind what is passed over.
func TestNothingFollowsAnErrorBehindWhatIsPassedOver(t *testing.T) {
	w := newWorld(t, plan.Mirror)
	w.file(plan.Source, "a", "")
	w.file(plan.Source, "0", "")
	w.run()
	in := believed(w)
	a, zero := w.look(plan.Source, "a"), w.look(plan.Source, "0")
	in.Source, in.Past = seq([]entry.Entry{a, a, zero}), seq([]plan.Past{w.past["a"]})
	w.rules.AsLeft = func(int64) {}
	w.rules.ScanStart = time.Unix(0, w.tick())
	p, err := plan.New(in, w.rules, &plan.MemorySpill{Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for a, err := range p.Actions() {
		if !errors.Is(err, plan.ErrOrder) {
			t.Errorf("%v, %v", a.Op, err)
		}
		break
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

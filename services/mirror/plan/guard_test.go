package plan_test

import (
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

var errDisk = errors.New("input/output error")

// failing is a stream with an error behind its first n elements, or at its end.
func failing[T any](in iter.Seq2[T, error], n int) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for e, err := range in {
			if n == 0 && !yield(none, errDisk) {
				return
			}
			n--
			if !yield(e, err) {
				return
			}
		}
		if n >= 0 {
			yield(none, errDisk)
		}
	}
}

// synced is a world of ten files, of which two are gone on the source since.
func synced(t fataler, mode plan.Mode) *world {
	w := newWorld(t, mode)
	w.rules.Guards.Scans = 1
	for _, name := range strings.Split("abcdefghij", "") {
		w.file(plan.Source, name, "content of "+name)
	}
	w.run()
	w.remove(plan.Source, "c")
	w.remove(plan.Source, "j")
	return w
}

func deletes(actions []plan.Action) (keys []string) {
	for _, a := range actions {
		if a.Op == plan.Delete {
			keys = append(keys, a.Key)
		}
	}
	return keys
}

// refusedBy demands that exactly one guard refused, with all a human needs.
func refusedBy(t *testing.T, actions []plan.Action, report plan.Report, guard plan.Guard) {
	t.Helper()
	if got := deletes(actions); len(got) > 0 {
		t.Errorf("deletes %v", got)
	}
	if len(report.Refusals) != 1 || report.Refusals[0].Guard != guard {
		t.Fatalf("refusals are %v, want one of %s", report.Refusals, guard)
	}
	if r := report.Refusals[0]; r.Value == "" || r.Limit == "" || r.Fix == "" {
		t.Errorf("the refusal leaves something open: %+v", r)
	}
}

func TestGuardsLetThroughWhatIsMeant(t *testing.T) {
	for _, mode := range []plan.Mode{plan.Mirror, plan.TwoWay} {
		actions, report := synced(t, mode).run()
		if got := deletes(actions); !slices.Equal(got, []string{"c", "j"}) || len(report.Refusals) > 0 {
			t.Errorf("mode %d deletes %v, refuses %v", mode, got, report.Refusals)
		}
	}
}

// Pain 3 (mc#2048, rclone#1186): a missing source wipes the target.
func TestGuardIdentityPain3AnotherDiskIsMounted(t *testing.T) {
	for name, m := range map[string]plan.Marker{
		"differs": {Want: "s", Got: "t"}, "missing": {Want: "s"}, "never set": {}, "never set, but there": {Got: "s"},
	} {
		t.Run(name, func(t *testing.T) {
			w := synced(t, plan.Mirror)
			w.file(plan.Source, "new", "")
			w.rules.Guards.Markers[plan.Source] = m
			actions, report := w.run()
			refusedBy(t, actions, report, plan.GuardIdentity)
			if !slices.Contains(ops(actions), "put new") {
				t.Errorf("the copies are off too: %v", ops(actions))
			}
		})
	}
}

func TestGuardIdentityPain3OfTheDestinationInTwoWayRuns(t *testing.T) {
	w := synced(t, plan.TwoWay)
	w.file(plan.Source, "c", "content of c")
	w.file(plan.Source, "j", "content of j")
	w.run()
	w.remove(plan.Dest, "a")
	w.rules.Guards.Markers[plan.Dest].Got = ""
	actions, report := w.run()
	refusedBy(t, actions, report, plan.GuardIdentity)
}

// Pain 3 again: the mount point is there, and nothing is mounted.
func TestGuardEmptyPain3EmptySourceWipesTarget(t *testing.T) {
	for _, mode := range []plan.Mode{plan.Mirror, plan.TwoWay} {
		for _, left := range [][]string{nil, {"lost+found"}} {
			w := synced(t, mode)
			for p := range w.sides[plan.Source].nodes {
				w.remove(plan.Source, p)
			}
			for _, p := range left {
				w.dir(plan.Source, p)
			}
			actions, report := w.run()
			refusedBy(t, actions, report, plan.GuardEmpty)
			// It is not counted as missing either.
			w.rules.Guards.Scans = 2
			for p, past := range w.past {
				if past.Missing != [2]uint8{} {
					t.Errorf("%q is counted as missing", p)
				}
			}
		}
	}
}

// Pain 3, the part of it that exits 0: a walk or list error on either side.
func TestGuardListingPain3ErrorsOnEitherSide(t *testing.T) {
	spoil := map[string]func(*plan.Input){
		"source at once":    func(in *plan.Input) { in.Source = failing(in.Source, 0) },
		"source in between": func(in *plan.Input) { in.Source = failing(in.Source, 5) },
		"source at its end": func(in *plan.Input) { in.Source = failing(in.Source, 1<<30) },
		"destination":       func(in *plan.Input) { in.Dest = failing(in.Dest, 5) },
		"last run":          func(in *plan.Input) { in.Past = failing(in.Past, 5) },
	}
	for _, mode := range []plan.Mode{plan.Mirror, plan.TwoWay} {
		for name, spoil := range spoil {
			t.Run(name, func(t *testing.T) {
				w := synced(t, mode)
				w.file(plan.Source, "b", "other content")
				in := w.input()
				spoil(&in)
				actions, report := w.plan(in)
				refusedBy(t, actions, report, plan.GuardListing)
				if !slices.Contains(changes(actions), "put b to destination") {
					t.Errorf("the copies are off too: %v", ops(actions))
				}
				for _, a := range actions {
					behind := strings.HasPrefix(name, "source") && (a.Key == "j" || a.Key == "c" && name == "source at once")
					if behind && a.Reason != plan.KeepUnlisted {
						t.Errorf("%q is behind the error and kept because it is %q", a.Key, a.Reason)
					}
				}
				if report.Faults != 1 || !errors.Is(report.Errors[0], errDisk) {
					t.Errorf("faults %d: %v", report.Faults, report.Errors)
				}
				for _, a := range actions {
					if a.Op == plan.Keep && a.Reason == plan.KeepMissing {
						t.Errorf("%q is counted as missing, though it may be there", a.Key)
					}
				}
			})
		}
	}
}

// Pain 9: a destination that could not be listed is no destination that was emptied.
func TestTwoWayPain9CreatesNothingBehindAnError(t *testing.T) {
	w := synced(t, plan.TwoWay)
	w.file(plan.Source, "k", "new here")
	w.file(plan.Dest, "k", "new there")
	w.file(plan.Source, "a", "edited")
	in := w.input()
	in.Dest = func(yield func(entry.Entry, error) bool) { yield(entry.Entry{}, errDisk) }
	actions, _ := w.plan(in)
	for _, a := range actions {
		if a.Op != plan.Keep || a.Reason != plan.KeepUnlisted {
			t.Errorf("%v without knowing the destination", ops([]plan.Action{a}))
		}
	}
	// Nor when it is not known what the last run left.
	in = w.input()
	in.Past = func(yield func(plan.Past, error) bool) { yield(plan.Past{}, errDisk) }
	actions, _ = w.plan(in)
	if got := changes(actions); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "put") }) {
		t.Errorf("brings back what may have been deleted: %v", got)
	}
}

// In one-way runs the last run stands for a destination that cannot be listed, so
// that not everything is uploaded again.
func TestTheLastRunStandsForADestinationThatFails(t *testing.T) {
	w := synced(t, plan.Mirror)
	w.file(plan.Source, "b", "edited")
	in := w.input()
	in.Dest = func(yield func(entry.Entry, error) bool) { yield(entry.Entry{}, errDisk) }
	actions, _ := w.plan(in)
	if got := changes(actions); !slices.Equal(got, []string{"put b to destination"}) {
		t.Errorf("got %v", got)
	}
}

// Pain 9: absent here in one scan and there in the next is not absent twice.
func TestMissingIsCountedForEachSidePain9(t *testing.T) {
	w := synced(t, plan.TwoWay)
	w.file(plan.Source, "c", "content of c")
	w.file(plan.Source, "j", "content of j")
	w.run()
	w.rules.Guards.Scans = 2
	a := *w.sides[plan.Source].nodes["a"]
	w.remove(plan.Source, "a")
	w.run()
	w.sides[plan.Source].nodes["a"] = &a // as it was; no edit
	w.remove(plan.Dest, "a")
	actions, _ := w.run()
	if got := deletes(actions); len(got) > 0 {
		t.Errorf("deletes %v", got)
	}
	if past := w.past["a"]; past.Missing != [2]uint8{plan.Dest: 1} {
		t.Errorf("missing in %v scans", past.Missing)
	}
}

// Pain 3 in small: somebody deletes the wrong directory.
func TestGuardNumberPain3TooManyDeletes(t *testing.T) {
	w := synced(t, plan.Mirror)
	w.rules.Guards.Number = 1
	actions, report := w.run()
	refusedBy(t, actions, report, plan.GuardNumber)
	const said = "deletes refused by guard number: found 2 of the destination's 10 entries, want at most 1 (deletes.most); if this is meant, allow it for one run with --may-delete 2, or raise deletes.most in the inventory"
	if got := report.Refusals[0]; got.String() != said || got.Deletes != 2 {
		t.Errorf("it says %s (%d)", got, got.Deletes)
	}
	w = synced(t, plan.Mirror)
	w.rules.Guards.Number, w.rules.Guards.Once = 1, true
	if _, report := w.run(); report.Refusals[0].Limit != "at most 1 (--may-delete)" {
		t.Errorf("of a limit for this run it says %s", report.Refusals[0])
	}

	w = synced(t, plan.Mirror)
	w.rules.Guards.Number = 2
	if actions, report := w.run(); len(deletes(actions)) != 2 {
		t.Errorf("refused %v at the limit", report.Refusals)
	}
}

func TestGuardPercentPain3TooGreatAShare(t *testing.T) {
	w := synced(t, plan.Mirror)
	w.rules.Guards.Percent = 19.9
	actions, report := w.run()
	refusedBy(t, actions, report, plan.GuardPercent)
	const said = "found 2 of the destination's 10 entries, want at most 1 (19.9 %, deletes.mostPercent); if this is meant, allow it for one run with --may-delete 2, or raise deletes.mostPercent in the inventory"
	if got := report.Refusals[0].String(); !strings.HasSuffix(got, said) {
		t.Errorf("it says %s", got)
	}

	w = synced(t, plan.Mirror)
	w.rules.Guards.Percent = 20
	if actions, report := w.run(); len(deletes(actions)) != 2 {
		t.Errorf("refused %v at the limit", report.Refusals)
	}
}

func TestGuardsDefaultToLimitsAndNotToNone(t *testing.T) {
	for mode, want := range map[plan.Mode]int{plan.Mirror: 2, plan.Copy: 0} {
		w := synced(t, mode)
		w.rules.Guards.Number, w.rules.Guards.Percent = 0, 0
		if actions, report := w.run(); len(deletes(actions)) != want { // 20 %
			t.Errorf("refused %v within the defaults", report.Refusals)
		}
	}
	w := synced(t, plan.Mirror)
	w.rules.Guards.Number, w.rules.Guards.Percent = 0, 0
	w.remove(plan.Source, "d")
	actions, report := w.run() // 30 %
	refusedBy(t, actions, report, plan.GuardPercent)
}

// Pain 12: a file that moves while the tree is walked is missed once, not twice.
func TestGuardScansPain12MissingOnceIsNotGone(t *testing.T) {
	w := synced(t, plan.Mirror)
	w.rules.Guards.Scans = 0 // the default, two
	actions, _ := w.run()
	if got := deletes(actions); len(got) > 0 {
		t.Fatalf("deletes %v at once", got)
	}
	w.file(plan.Source, "c", "back")
	actions, _ = w.run()
	if got := deletes(actions); !slices.Equal(got, []string{"j"}) {
		t.Fatalf("deletes %v in the second scan", got)
	}
	w.remove(plan.Source, "c")
	if actions, _ = w.run(); len(deletes(actions)) > 0 {
		t.Errorf("missing, there, missing is not missing twice: %v", deletes(actions))
	}
}

// Pain 9: in two-way runs a delete destroys the only other copy.
func TestGuardVersionedPain9TwoWayDeletesNeedVersions(t *testing.T) {
	w := synced(t, plan.TwoWay)
	w.rules.Guards.Versioned = false
	actions, report := w.run()
	refusedBy(t, actions, report, plan.GuardVersioned)
	for _, p := range []string{"c", "j"} {
		if w.sides[plan.Source].nodes[p] != nil {
			t.Errorf("%q came back", p)
		}
	}
}

// Pain 8 and the filter's: what the filter leaves out is not deleted either.
func TestWhatTheFilterLeavesOutIsNotDeleted(t *testing.T) {
	w := synced(t, plan.Mirror)
	w.rules.Filter = func(p string, _ entry.Kind) bool { return p != "c" }
	actions, _ := w.run()
	if got := deletes(actions); !slices.Equal(got, []string{"j"}) {
		t.Errorf("deletes %v", got)
	}
}

func TestUnsortedStreamsEndThePlan(t *testing.T) {
	w := synced(t, plan.Mirror)
	in := w.input()
	list := w.entries(plan.Source)
	slices.Reverse(list)
	in.Source = seq(list)
	w.rules.ScanStart = w.rules.ScanStart.Add(1)
	p, err := plan.New(in, w.rules, &plan.MemorySpill{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var last error
	for a, err := range p.Actions() {
		if a.Op == plan.Delete {
			t.Error("deletes from a stream without order")
		}
		last = err
	}
	var where *plan.StreamError
	if !errors.Is(last, plan.ErrOrder) || !errors.As(last, &where) || where.Stream != "source" {
		t.Errorf("got %v", last)
	}
}

func TestASpillThatIsFullEndsThePlan(t *testing.T) {
	w := synced(t, plan.Mirror)
	p, err := plan.New(w.input(), w.rules, &plan.MemorySpill{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	var last error
	for a, err := range p.Actions() {
		if a.Op == plan.Delete {
			t.Error("deletes before all were known")
		}
		last = err
	}
	if !errors.Is(last, plan.ErrSpillFull) {
		t.Errorf("got %v", last)
	}
}

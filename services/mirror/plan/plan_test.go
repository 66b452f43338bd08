package plan_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

func expect(t *testing.T, got []plan.Action, want ...string) {
	t.Helper()
	if lines := ops(got); !slices.Equal(lines, want) {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(lines, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// Pain 4 (mc#2187, restic#2179): same size, kept time. Only the ctime tells.
func TestAnEditThatKeepsSizeAndTimeIsHashedPain4(t *testing.T) {
	for _, mode := range []plan.Mode{plan.Copy, plan.TwoWay} {
		w := newWorld(t, mode)
		w.file(plan.Source, "a", "one")
		w.run()
		n := *w.sides[plan.Source].nodes["a"]
		n.content = "two"
		w.write(plan.Source, "a", n)
		planned, _ := w.plan(w.input())
		expect(t, planned, "rehash a")
		w.apply(planned)
		expect(t, planned, "put a")
		if got := w.sides[plan.Dest].nodes["a"].content; got != "two" {
			t.Errorf("the destination holds %q", got)
		}
	}
}

// A chmod is no upload; a chmod and nothing else moves the ctime, too.
func TestAttributesAloneAreNotUploaded(t *testing.T) {
	for _, mode := range []plan.Mode{plan.Copy, plan.TwoWay} {
		w := newWorld(t, mode)
		w.file(plan.Source, "a", "one")
		w.run()
		n := *w.sides[plan.Source].nodes["a"]
		n.mode = 0o600
		w.write(plan.Source, "a", n)
		settled, _ := w.run()
		expect(t, settled, "meta a")
		again, _ := w.run()
		expect(t, again, "equal a")
	}
}

// Pain 12 (restic#3041): all inodes change when a clone is mounted. Nothing is
// uploaded again.
func TestANewInodeIsHashedAndNotUploadedPain12(t *testing.T) {
	w := newWorld(t, plan.Copy)
	w.file(plan.Source, "a", "one")
	w.run()
	n := *w.sides[plan.Source].nodes["a"]
	n.inode += 1000
	w.write(plan.Source, "a", n)
	settled, _ := w.run()
	expect(t, settled, "equal a")
}

// Pain 6 (rclone#2206): what was modified when the scan began may be modified
// again within the same tick of the clock.
func TestWhatWasModifiedAtTheScanIsHashedByTheNextPain6(t *testing.T) {
	w := newWorld(t, plan.Copy)
	w.file(plan.Source, "old", "")
	w.file(plan.Source, "young", "")
	w.sides[plan.Source].nodes["young"].ctime = w.clock + 10*second - second // the run begins at +10
	w.run()
	n := w.sides[plan.Source].nodes["young"]
	n.content = "" // an edit here would leave every time as it was
	planned, _ := w.plan(w.input())
	expect(t, planned, "equal old", "rehash young")
	w.apply(planned)
	again, _ := w.run()
	expect(t, again, "equal old", "equal young")
}

func TestASettledEntryKnowsItsHashes(t *testing.T) {
	w := newWorld(t, plan.Copy)
	w.file(plan.Source, "a", "one")
	w.run()
	actions, _ := w.run()
	for _, s := range []plan.Side{plan.Source, plan.Dest} {
		if e := actions[0].At(s); e.Sum.BLAKE3 != hashOf("one").BLAKE3 {
			t.Errorf("the manifest would lack the hash of the %v's %q", s, e.Path)
		}
	}
}

// Pain 2 and state mode: without a listing the last run stands for the
// destination.
func TestTheLastRunStandsForTheDestination(t *testing.T) {
	w := newWorld(t, plan.Mirror)
	w.rules.Guards.Scans = 1
	for _, p := range []string{"a", "b", "c", "d/e"} {
		w.file(plan.Source, p, p)
	}
	w.run()
	w.file(plan.Source, "b", "other")
	w.file(plan.Source, "n", "new")
	w.remove(plan.Source, "c")
	w.remove(plan.Source, "d")
	in := w.input()
	in.Dest = nil
	actions, _ := w.plan(in)
	expect(t, actions, "equal a", "put b", "put n", "delete c", "delete d/e", "delete d/")
}

// Drift: the destination was damaged, and the source is as it was.
func TestDriftOfTheDestinationIsMended(t *testing.T) {
	w := newWorld(t, plan.Copy)
	w.file(plan.Source, "a", "one")
	w.file(plan.Source, "b", "one")
	w.run()
	w.file(plan.Dest, "a", "bad")
	w.remove(plan.Dest, "b")
	actions, _ := w.run()
	expect(t, actions, "put a", "put b")
}

func TestAnAuditBelievesHashesOnly(t *testing.T) {
	w := newWorld(t, plan.Copy)
	w.file(plan.Source, "a", "one")
	w.file(plan.Source, "b", "one")
	w.run()
	// Damage that no time shows, as of a disk.
	w.sides[plan.Dest].nodes["a"].content = "0ne"
	quiet, _ := w.plan(w.input())
	expect(t, quiet, "equal a", "equal b")
	w.rules.Audit = true
	for _, w.rules.Trust = range []plan.Trust{plan.TrustTimes, plan.TrustSize} {
		planned, _ := w.plan(w.input())
		expect(t, planned, "rehash a", "rehash b")
	}
	actions, _ := w.run()
	expect(t, actions, "put a", "equal b")

	w = newWorld(t, plan.TwoWay)
	w.rules.Audit = true
	w.file(plan.Source, "a", "one")
	w.run()
	planned, _ := w.plan(w.input())
	expect(t, planned, "rehash a")
}

// An audit does not even believe that the last run left both sides equal.
func TestAnAuditDoesNotBelieveTheLastRun(t *testing.T) {
	w := newWorld(t, plan.Copy)
	w.blind = true
	w.rules.Lists[plan.Dest] = 0
	w.rules.Audit = true
	w.file(plan.Source, "a", "one")
	w.run()
	w.sides[plan.Dest].nodes["a"].content = "0ne"
	past := w.past["a"]
	past.Dest = w.look(plan.Dest, "a")
	w.past["a"] = past
	actions, _ := w.run()
	expect(t, actions, "put a")
}

// The time of a directory moves with every name in it.
func TestTheTimeOfADirectoryIsNoChange(t *testing.T) {
	for _, mode := range []plan.Mode{plan.Mirror, plan.TwoWay} {
		w := newWorld(t, mode)
		w.file(plan.Source, "d/a", "")
		w.run()
		w.sides[plan.Source].nodes["d"].mtime = w.tick()
		w.sides[plan.Dest].nodes["d"].mtime = w.tick()
		actions, _ := w.run()
		expect(t, actions, "equal d/", "equal d/a")
	}
}

func TestSettleWithoutAHashTakesTheContentForChanged(t *testing.T) {
	w := newWorld(t, plan.TwoWay)
	w.file(plan.Source, "a", "one")
	w.file(plan.Dest, "a", "one")
	planned, _ := w.plan(w.input())
	expect(t, planned, "rehash a")
	expect(t, []plan.Action{w.rules.Settle(planned[0])}, "conflict a: created on both sides")

	w = newWorld(t, plan.TwoWay)
	w.file(plan.Source, "a", "one")
	w.run()
	w.file(plan.Source, "a", "two")
	w.file(plan.Dest, "a", "two")
	w.sides[plan.Source].nodes["a"].mtime = w.sides[plan.Dest].nodes["a"].mtime
	planned, _ = w.plan(w.input())
	expect(t, planned, "rehash a")
	expect(t, []plan.Action{w.rules.Settle(planned[0])}, "conflict a: changed on both sides")
}

func TestWithoutAPastTrustDecides(t *testing.T) {
	for trust, want := range map[plan.Trust][]string{
		plan.TrustTimes:  {"equal a", "put b"},
		plan.TrustHashes: {"rehash a", "rehash b"},
		plan.TrustSize:   {"equal a", "meta b"},
	} {
		w := newWorld(t, plan.Copy)
		w.rules.Trust = trust
		for _, s := range []plan.Side{plan.Source, plan.Dest} {
			w.file(s, "a", "one")
			w.file(s, "b", "one")
			w.sides[s].nodes["a"].mtime = 0
		}
		actions, _ := w.plan(w.input())
		expect(t, actions, want...)
	}
}

func TestTimesThatOneSideCutsAreEqualWithinTheGrain(t *testing.T) {
	w := newWorld(t, plan.Copy)
	w.rules.Trust = plan.TrustTimes
	w.file(plan.Source, "a", "one")
	w.file(plan.Dest, "a", "one")
	w.sides[plan.Source].nodes["a"].mtime = 1_000_999_999
	w.sides[plan.Dest].nodes["a"].mtime = 1_000_000_000
	w.rules.Grain = time.Millisecond
	actions, _ := w.plan(w.input())
	expect(t, actions, "equal a")
	w.rules.Grain = 0
	actions, _ = w.plan(w.input())
	expect(t, actions, "put a")
}

// Pain 5 (rclone#523): the ETag of an object in parts is no MD5 of its content.
func TestETagsOfPartsAreComparedWithTheirPartSizePain5(t *testing.T) {
	one := func(etag string, part int64) entry.Entry {
		s := entry.Sum{Has: entry.HasETag, ETag: etag}
		if part > 0 {
			s.Has, s.PartSize = s.Has|entry.HasPartSize, part
		}
		return entry.Entry{Path: "a", Size: 3, MTime: 1, Sum: s}
	}
	for _, c := range []struct {
		source, dest entry.Entry
		want         string
	}{
		{one("x-2", 16), one("y-2", 16), "put a"},
		{one("x-2", 16), one("y-3", 8), "equal a"}, // says nothing; the times do
		{one("x-2", 16), one("y-2", 0), "equal a"},
		{one("x", 0), one("y", 0), "put a"},
		{one("x-2", 0), one("x-2", 0), "equal a"},
	} {
		rules := plan.Rules{Lists: [2]plan.Attr{plan.AttrMTime, plan.AttrMTime}, ScanStart: time.Unix(100, 0)}
		p, err := plan.New(plan.Input{Source: seq([]entry.Entry{c.source}), Dest: seq([]entry.Entry{c.dest})}, rules, nil)
		if err != nil {
			t.Fatal(err)
		}
		for a, err := range p.Actions() {
			if got := a.Op.String() + " " + a.Key; err != nil || got != c.want {
				t.Errorf("%+v and %+v: %s, %v, want %s", c.source.Sum, c.dest.Sum, got, err, c.want)
			}
		}
	}
}

// Pain 8 (rclone#7270): two names of one look.
func TestNamesThatLookAlikeAreReportedPain8(t *testing.T) {
	const nfc, nfd = "é", "e\u0301"
	w := newWorld(t, plan.Copy)
	w.file(plan.Source, "d/"+nfc, "1")
	w.file(plan.Source, "d/"+nfd, "2")
	w.file(plan.Source, "f/"+nfc, "3")
	actions, _ := w.run()
	i := slices.IndexFunc(actions, func(a plan.Action) bool { return a.Reason == plan.ConflictUnicode })
	if i < 0 || actions[i].Key != "d/"+nfc || actions[i].Twin != "d/"+nfd {
		t.Fatalf("got %v", ops(actions))
	}
	if w.sides[plan.Dest].nodes["d/"+nfc] == nil || w.sides[plan.Dest].nodes["d/"+nfd] == nil {
		t.Error("one of the two was not copied, though the destination tells them apart")
	}
	again, _ := w.run()
	if len(changes(again)) > 0 {
		t.Errorf("does not converge: %v", changes(again))
	}
	for _, mode := range []plan.Mode{plan.Copy, plan.TwoWay} {
		w = newWorld(t, mode)
		for _, p := range []string{nfd, "g/\u00e4", nfc} {
			w.file(plan.Source, p, "1")
		}
		w.file(plan.Dest, "g/a\u0308", "another spelling")
		actions, _ = w.run()
		got := slices.DeleteFunc(actions, func(a plan.Action) bool { return a.Reason != plan.ConflictUnicode })
		want := []string{"conflict " + nfc + ": two names that look alike"}
		if mode == plan.TwoWay {
			want = []string{"conflict g/\u00e4: two names that look alike", want[0]}
		}
		expect(t, got, want...)
	}
	two := newWorld(t, plan.TwoWay)
	two.file(plan.Source, nfc, "1")
	two.file(plan.Dest, nfd, "1")
	actions, _ = two.run()
	if !slices.ContainsFunc(actions, func(a plan.Action) bool { return a.Reason == plan.ConflictUnicode }) {
		t.Errorf("names across the sides: %v", ops(actions))
	}
}

var errTooLong = errors.New("too long")

// Pain 7 (rclone#1202): what cannot be kept is said, not dropped.
func TestWhatASideCannotHoldIsReportedPain7(t *testing.T) {
	w := newWorld(t, plan.TwoWay)
	w.rules.Holds[plan.Dest] = func(e entry.Entry) error {
		if strings.HasPrefix(e.Path, "long") {
			return errTooLong
		}
		return nil
	}
	w.file(plan.Source, "a", "1")
	w.file(plan.Source, "long", "1")
	w.file(plan.Dest, "longer", "1")
	actions, _ := w.run()
	expect(t, actions, "put a", "unholdable long", "put longer")
	if !errors.Is(actions[1].Err, errTooLong) {
		t.Errorf("the reason is %v", actions[1].Err)
	}
}

// Pain 9 (rclone#7471).
func TestTwoWayConflictsAreReportedAndNotResolvedPain9(t *testing.T) {
	w := newWorld(t, plan.TwoWay)
	w.rules.Guards.Scans = 1
	for _, p := range []string{"both", "gone", "same", "left", "right", "modes"} {
		w.file(plan.Source, p, "base")
	}
	w.run()
	w.file(plan.Source, "both", "1")
	w.file(plan.Dest, "both", "two")
	w.remove(plan.Source, "gone")
	w.file(plan.Dest, "gone", "edited")
	for s := range w.sides {
		w.file(plan.Side(s), "same", "equal now")
		w.sides[s].nodes["same"].mtime = 5
	}
	w.file(plan.Source, "left", "new left")
	w.file(plan.Dest, "right", "new right")
	for s := range w.sides {
		w.file(plan.Side(s), "new modes", "equal")
		w.sides[s].nodes["new modes"].mtime = 5
	}
	// Equal contents, and modes that nobody but a human can choose from.
	for s, mode := range []uint32{0o600, 0o640} {
		for _, p := range []string{"modes", "new modes"} {
			w.sides[s].nodes[p].mode = mode
		}
	}
	w.file(plan.Source, "born", "1")
	w.file(plan.Dest, "born", "two")
	w.sides[plan.Source].nodes["born"].mtime = w.sides[plan.Dest].nodes["born"].mtime
	settled, _ := w.run()
	expect(t, settled,
		"conflict born: created on both sides",
		"conflict both: changed on both sides",
		"conflict gone: deleted on one side and changed on the other",
		"put left",
		"conflict modes: changed on both sides",
		"conflict new modes: created on both sides",
		"put right", "equal same")
	if w.sides[plan.Dest].nodes["left"].content != "new left" || w.sides[plan.Source].nodes["right"].content != "new right" {
		t.Error("the one-sided changes went the wrong way")
	}
}

// Whoever remembers by changes must be told of what no stream but the past has:
// a file that is made anew there later was not deleted on the other side.
func TestWhatBothSidesLostIsForgotten(t *testing.T) {
	w := newWorld(t, plan.TwoWay)
	w.file(plan.Source, "lost", "1")
	w.file(plan.Source, "stays", "1")
	w.run()
	w.remove(plan.Source, "lost")
	w.remove(plan.Dest, "lost")
	actions, _ := w.run()
	expect(t, actions, "gone lost", "equal stays")
	if p, ok := w.rules.Next(actions[0], true); ok {
		t.Errorf("it is remembered as %+v", p)
	}
}

// A file and a directory of one name need each other's place.
func TestSwapsOfFileAndDirectoryWaitForTheDeletes(t *testing.T) {
	w := newWorld(t, plan.Mirror)
	w.rules.Guards.Scans = 1
	w.file(plan.Source, "was dir/x", "")
	w.file(plan.Source, "was dir-between", "")
	w.file(plan.Source, "was file", "")
	w.run()
	w.remove(plan.Source, "was dir")
	w.file(plan.Source, "was dir", "")
	w.file(plan.Source, "was file/y", "")
	actions, _ := w.run()
	expect(t, actions, "equal was dir-between",
		"delete was dir/x", "delete was dir/", "put was dir",
		"delete was file", "mkdir was file/", "put was file/y")

	// Where both fit, nothing waits.
	w = newWorld(t, plan.Mirror)
	w.rules.Both[plan.Dest] = true
	w.rules.Guards.Scans = 1
	w.file(plan.Source, "a", "")
	w.file(plan.Dest, "a/x", "")
	planned, _ := w.plan(w.input())
	expect(t, planned, "put a", "delete a/x", "delete a/")
}

func TestASwapIsAConflictWhereNothingIsRemoved(t *testing.T) {
	w := newWorld(t, plan.Copy)
	w.file(plan.Source, "a/x", "")
	w.file(plan.Dest, "a", "")
	w.file(plan.Source, "b", "")
	w.file(plan.Dest, "b/x", "")
	actions, _ := w.run()
	const kind = ": a file and a directory of one name"
	expect(t, actions, "keep a: nothing is removed in this mode", "conflict a/"+kind, "conflict a/x"+kind,
		"keep b/x: nothing is removed in this mode", "keep b/: nothing is removed in this mode", "conflict b"+kind)
}

// A bucket that others wrote has no entry for its directories.
func TestADirectoryThatTheSourceImpliesIsNotDeleted(t *testing.T) {
	w := newWorld(t, plan.Mirror)
	w.rules.Guards.Scans = 1
	w.rules.Trust = plan.TrustSize
	for _, c := range []struct{ source, dest []entry.Entry }{
		{[]entry.Entry{{Path: "d/x"}}, []entry.Entry{{Path: "d", Kind: entry.Dir}, {Path: "d/x"}}},
		{[]entry.Entry{{Path: "d/x"}}, []entry.Entry{{Path: "d", Kind: entry.Dir}}},
		{[]entry.Entry{{Path: "d/x"}}, []entry.Entry{{Path: "d", Kind: entry.Dir}, {Path: "d/x", Kind: entry.Dir}}},
		{[]entry.Entry{{Path: "d/x/y"}}, []entry.Entry{{Path: "d", Kind: entry.Dir}, {Path: "d/x"}}},
	} {
		actions, _ := w.plan(plan.Input{Source: seq(c.source), Dest: seq(c.dest)})
		if lines := ops(actions); !slices.Contains(lines, "keep d/: something in it stays") {
			t.Errorf("got %v", lines)
		}
	}
}

// A bucket may hold both a file and a directory of one name. The file, which
// comes first, is copied.
func TestASourceThatHoldsBothIsAConflict(t *testing.T) {
	w := newWorld(t, plan.Mirror)
	w.rules.Both[plan.Source] = true
	in := plan.Input{Source: seq([]entry.Entry{{Path: "a"}, {Path: "a", Kind: entry.Dir}, {Path: "a/x"}}), Dest: seq[entry.Entry](nil)}
	actions, _ := w.plan(in)
	const kind = ": a file and a directory of one name"
	expect(t, actions, "put a", "conflict a/"+kind, "conflict a/x"+kind)
}

func TestTwoEntriesOfOneKeyAreAConflict(t *testing.T) {
	w := newWorld(t, plan.Mirror)
	w.rules.Guards.Scans = 1
	in := plan.Input{
		Source: seq([]entry.Entry{{Path: "a", Size: 1}, {Path: "a", Kind: entry.Fifo}, {Path: "b"}}),
		Dest:   seq([]entry.Entry{{Path: "z"}}),
	}
	actions, report := w.plan(in)
	expect(t, actions, "conflict a: two entries of one key", "put a", "put b", "keep z: deletes are refused")
	if len(report.Refusals) == 0 {
		t.Error("deletes stay on, though it is not known what the source holds")
	}
}

func TestBreakingOffStopsTheStreams(t *testing.T) {
	w := synced(t, plan.Mirror)
	in := w.input()
	stopped := 0
	source := in.Source
	in.Source = func(yield func(entry.Entry, error) bool) {
		defer func() { stopped++ }()
		source(yield)
	}
	p, err := plan.New(in, w.rules, &plan.MemorySpill{})
	if err != nil {
		t.Fatal(err)
	}
	for range p.Actions() {
		break
	}
	if stopped != 1 {
		t.Error("the source's stream was left open")
	}
	for _, err := range p.Actions() {
		if !errors.Is(err, plan.ErrUsed) {
			t.Errorf("a second time: %v", err)
		}
	}
}

func TestRulesThatContradictThemselvesAreRefused(t *testing.T) {
	good := newWorld(t, plan.Mirror)
	for field, spoil := range map[string]func(*plan.Input, *plan.Rules){
		"Source":         func(in *plan.Input, _ *plan.Rules) { in.Source = nil },
		"Mode":           func(_ *plan.Input, r *plan.Rules) { r.Mode = 9 },
		"Unedited":       func(_ *plan.Input, r *plan.Rules) { r.Unedited = true },
		"ScanStart":      func(_ *plan.Input, r *plan.Rules) { r.ScanStart = time.Time{} },
		"Dest":           func(in *plan.Input, r *plan.Rules) { in.Dest, r.Audit = nil, true },
		"Dest ":          func(in *plan.Input, r *plan.Rules) { in.Dest, r.Unedited, r.Mode = nil, true, plan.Copy },
		"Guards.Percent": func(_ *plan.Input, r *plan.Rules) { r.Guards.Percent = 101 },
		"Guards.Scans":   func(_ *plan.Input, r *plan.Rules) { r.Guards.Scans = -1 },
	} {
		in, rules := good.input(), good.rules
		rules.ScanStart = time.Unix(1, 0)
		spoil(&in, &rules)
		_, err := plan.New(in, rules, &plan.MemorySpill{})
		var refused *plan.RulesError
		if !errors.Is(err, plan.ErrRules) || !errors.As(err, &refused) || refused.Field != strings.TrimSpace(field) || refused.Fix == "" {
			t.Errorf("%s: got %v", field, err)
		}
	}
	rules := good.rules
	rules.ScanStart = time.Unix(1, 0)
	if _, err := plan.New(good.input(), rules, nil); !errors.Is(err, plan.ErrRules) {
		t.Errorf("no spill: got %v", err)
	}
}

// What stands in the place of something else is missing for sure: no second scan is
// waited for, but the guards are asked.
func TestAnObstacleGoesInTheFirstRun(t *testing.T) {
	fresh := func() *world {
		w := newWorld(t, plan.Mirror)
		w.rules.Guards.Scans = 2
		w.file(plan.Source, "a/x", "")
		w.file(plan.Source, "b", "")
		w.file(plan.Dest, "a", "")
		w.file(plan.Dest, "a-between", "")
		w.file(plan.Dest, "a.file", "")
		w.file(plan.Dest, "b/c/x", "")
		w.file(plan.Dest, "b/y", "")
		return w
	}
	const kept = ": missing, but not in enough scans yet"
	w := fresh()
	actions, _ := w.run()
	expect(t, actions, "keep a-between"+kept, "keep a.file"+kept, "delete a", "mkdir a/", "put a/x",
		"delete b/c/x", "delete b/c/", "delete b/y", "delete b/", "put b")

	w = fresh()
	w.rules.Guards.Number = 2
	planned, _ := w.plan(w.input())
	const place = ": what stands in its place may not be deleted"
	const refused = ": deletes are refused"
	expect(t, planned, "keep a-between"+refused, "keep a.file"+refused, "keep a"+refused, "conflict a/"+place, "conflict a/x"+place,
		"keep b/c/x"+refused, "keep b/c/"+refused, "keep b/y"+refused, "keep b/"+refused, "conflict b"+place)

	// A bucket may hold both: what it does not list may only have slipped.
	w = fresh()
	w.rules.Both[plan.Source] = true
	const kind = ": a file and a directory of one name"
	planned, _ = w.plan(w.input())
	expect(t, planned, "conflict a/"+kind, "conflict a/x"+kind, "conflict b"+kind, "keep a"+kept, "keep a-between"+kept,
		"keep a.file"+kept, "keep b/c/x"+kept, "keep b/c/"+kept, "keep b/y"+kept, "keep b/"+kept)
}

// A link may have the content of a file as its target: one that replaces the other is
// another thing, whatever their hashes say, also where the destination lists names only.
func TestAnotherKindIsNeverTheSameContent(t *testing.T) {
	sum := entry.Sum{Has: entry.HasETag, ETag: "e"}
	file := entry.Entry{Path: "f", Size: 3, Mode: 0o644, MTime: 5, Sum: sum}
	link := file
	link.Kind, link.Target, link.Mode = entry.Symlink, "abc", 0o777
	for _, was := range []entry.Entry{file, link} {
		now := file
		if was.Kind == entry.File {
			now = link
		}
		for name, dest := range map[string]struct {
			now   entry.Entry
			lists plan.Attr
		}{"attributes": {was, plan.AllAttrs}, "names": {file, 0}} {
			rules := plan.Rules{Mode: plan.Mirror, Lists: [2]plan.Attr{plan.AllAttrs, dest.lists}, ScanStart: time.Unix(1<<30, 0)}
			a := rules.Settle(plan.Action{Op: plan.Rehash, Key: "f", To: plan.Dest, Source: now, Dest: dest.now, Past: plan.Past{Key: "f", Source: was, Dest: was}})
			if a.Op != plan.Put {
				t.Errorf("%s became %s, and its copy, of which %s are listed, is to be kept: %v", was.Kind, now.Kind, name, a.Op)
			}
		}
	}
}

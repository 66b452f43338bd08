package plan_test

import (
	"errors"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// A file that was written a moment before the last scan is compared by its content
// when the other side deletes it: a delete is no conflict.
func TestADeleteOfWhatIsDirtyIsNoConflict(t *testing.T) {
	for _, gone := range []plan.Side{plan.Source, plan.Dest} {
		there := gone.Other()
		w := newWorld(t, plan.TwoWay)
		w.rules.Guards.Scans = 1
		w.file(there, "stays", "")
		for _, p := range []string{"plain", "edited", "read badly"} {
			w.file(there, p, "one")
		}
		for _, p := range []string{"plain", "edited", "read badly"} {
			w.sides[there].nodes[p].ctime = w.clock + 10*second - second // the run begins at +10
		}
		w.run()
		for _, p := range []string{"plain", "edited", "read badly"} {
			w.remove(gone, p)
		}
		w.sides[there].nodes["edited"].content = "two" // which its times do not show
		hash := w.rules.Hash
		w.rules.Hash = func(s plan.Side, e entry.Entry, like entry.Sum) (entry.Sum, error) {
			if e.Path == "read badly" {
				return entry.Sum{}, errors.New("a bad sector")
			}
			return hash(s, e, like)
		}
		const conflict = ": deleted on one side and changed on the other"
		actions, _ := w.run()
		expect(t, actions, "conflict edited"+conflict, "conflict read badly"+conflict, "equal stays", "delete plain")
		if w.read != 2 {
			t.Errorf("%d contents were read", w.read)
		}
	}
}

// What is young at the scan might be written to between that and its delete.
func TestWhatIsYoungIsDeletedByTheNextRun(t *testing.T) {
	w := newWorld(t, plan.TwoWay)
	w.rules.Guards.Scans = 1
	w.file(plan.Source, "a", "one")
	w.file(plan.Source, "b", "one")
	w.run()
	w.remove(plan.Dest, "a")
	w.sides[plan.Source].nodes["a"].ctime = w.clock + 10*second // when the next run begins
	actions, _ := w.run()
	expect(t, actions, "keep a: modified a moment ago: the next run sees to it", "equal b")
	actions, _ = w.run()
	expect(t, actions, "equal b", "delete a")
}

// An object that another program wrote has no attributes: equal contents are no
// conflict, and get those of the file.
func TestEqualContentsOnBothSidesAreNoConflict(t *testing.T) {
	for _, object := range []plan.Side{plan.Source, plan.Dest} {
		w := newWorld(t, plan.TwoWay)
		past := func(p string) {
			w.file(plan.Source, p, "before")
			w.run()
		}
		past("edited")
		for _, p := range []string{"created", "edited"} {
			for _, s := range []plan.Side{plan.Source, plan.Dest} {
				w.file(s, p, "equal")
			}
			w.sides[object.Other()].nodes[p].mode = 0o600
		}
		w.rules.ScanStart = time.Unix(0, w.tick())
		settle := func(p string) plan.Action {
			a := plan.Action{Op: plan.Rehash, Key: p, Past: w.past[p], Source: w.look(plan.Source, p), Dest: w.look(plan.Dest, p)}
			e := &a.Source
			if object == plan.Dest {
				e = &a.Dest
			}
			e.Change = entry.Change{}
			a.Source.Sum, a.Dest.Sum = hashOf("equal"), hashOf("equal")
			return w.rules.Settle(a)
		}
		for _, p := range []string{"created", "edited"} {
			if a := settle(p); a.Op != plan.Meta || a.To != object {
				t.Errorf("%s: %v on the %v: %s", p, a.Op, a.To, a.Reason)
			}
		}
	}
	// Between directories, times alone are nothing that a human has to choose from.
	w := newWorld(t, plan.TwoWay)
	w.file(plan.Source, "a", "equal")
	w.file(plan.Dest, "a", "equal")
	actions, _ := w.run()
	expect(t, actions, "meta a")
	actions, _ = w.run()
	expect(t, actions, "equal a")
}

// An ETag of parts whose size nobody knows cannot be made again: both are read.
func TestAnETagOfUnknownPartsIsNoHash(t *testing.T) {
	w := newWorld(t, plan.TwoWay)
	w.file(plan.Source, "a", "equal")
	w.file(plan.Dest, "a", "equal")
	in := w.input()
	e := w.look(plan.Dest, "a")
	e.Sum = entry.Sum{Has: entry.HasETag, ETag: "0123-2"}
	in.Dest = seq([]entry.Entry{e})
	actions, _ := w.plan(in)
	if len(actions) != 1 || actions[0].Doubt != [2]bool{true, true} {
		t.Errorf("got %+v", actions)
	}
}

func TestConflictsSayWhatToDo(t *testing.T) {
	for _, r := range []plan.Reason{
		plan.ConflictChanged, plan.ConflictCreated, plan.ConflictDeleted, plan.ConflictKind, plan.ConflictPlace, plan.ConflictKey, plan.ConflictUnicode,
	} {
		if r.Fix() == "" {
			t.Errorf("%q says nothing", r)
		}
	}
}

// That an object tells when it was written makes its attributes no more meant: those of
// the file are.
func TestAttributesOfAFileAreThoseThatWereMeant(t *testing.T) {
	for _, change := range []entry.Change{{}, {CTime: 9}} {
		source := entry.Entry{Path: "f", Size: 1, Mode: 0o600, Change: entry.Change{Inode: 1, CTime: 5}, Sum: entry.Sum{Has: entry.HasCRC32C}}
		dest := entry.Entry{Path: "f", Size: 1, Mode: 0o644, Change: change, Sum: source.Sum}
		for side, e := range [][2]entry.Entry{{source, dest}, {dest, source}} {
			rules := plan.Rules{Mode: plan.TwoWay, Lists: [2]plan.Attr{plan.AllAttrs, plan.AllAttrs}, ScanStart: time.Unix(1<<30, 0)}
			a := rules.Settle(plan.Action{Op: plan.Rehash, Key: "f", Source: e[0], Dest: e[1]})
			if want := plan.Side(side).Other(); a.Op != plan.Meta || a.To != want {
				t.Errorf("%v on the %s, not on the %s", a.Op, a.To, want)
			}
		}
	}
}

package state_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

func TestASpillGivesBackWhatWasPushed(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, dir)
	for _, n := range []int{0, 1, 20_000} {
		spill, err := s.Spill()
		must(t, err)
		action := func(i int) plan.Action {
			p := left(fmt.Sprintf("dir/%06d", n-i), int64(i)) // the deepest first, as deletes come
			return plan.Action{Op: plan.Delete, Key: p.Key, To: plan.Dest, Dest: p.Dest, Past: p}
		}
		for i := range n {
			must(t, spill.Push(action(i)))
		}
		for range 2 {
			i := 0
			for a, err := range spill.All() {
				must(t, err)
				if want := action(i); a.Key != want.Key || a.Dest.Sum != want.Dest.Sum || a.Past.Source.Change != want.Past.Source.Change {
					t.Fatalf("action %d is %+v, want %+v", i, a, want)
				}
				i++
				if i == 2 { // another one at the same time
					for a, err := range spill.All() {
						if err != nil || a.Key != action(0).Key {
							t.Fatalf("got %+v, %v", a, err)
						}
						break
					}
				}
			}
			if i != n {
				t.Fatalf("%d actions, want %d", i, n)
			}
		}
		if err := spill.Push(action(0)); err == nil {
			t.Error("pushed after it was read")
		}
		onlyFiles(t, dir, "lock")
		must(t, spill.Close())
	}
}

func TestASpillKeepsReasonsAndErrors(t *testing.T) {
	spill, err := opened(t, t.TempDir()).Spill()
	must(t, err)
	defer func() { must(t, spill.Close()) }()
	must(t, spill.Push(plan.Action{Op: plan.Unholdable, Key: "a", Err: errors.New("too long")}))
	must(t, spill.Push(plan.Action{Op: plan.Conflict, Key: "\xff\n", Reason: plan.ConflictUnicode, Twin: "b"}))
	var got []plan.Action
	for a, err := range spill.All() {
		must(t, err)
		got = append(got, a)
	}
	if len(got) != 2 || got[0].Err.Error() != "too long" || got[1].Key != "\xff\n" || got[1].Reason != plan.ConflictUnicode || got[1].Twin != "b" {
		t.Errorf("got %+v", got)
	}
}

func TestASpillServesAPlan(t *testing.T) {
	s := opened(t, t.TempDir())
	spill, err := s.Spill()
	must(t, err)
	defer func() { must(t, spill.Close()) }()
	must(t, s.Note(left("a/gone", 1)))
	must(t, s.Note(left("b", 2)))
	must(t, s.Commit())
	source := left("b", 2).Source
	p, err := plan.New(plan.Input{
		Source: func(yield func(entry.Entry, error) bool) { yield(source, nil) },
		Past:   s.Past(),
	}, plan.Rules{
		Mode: plan.Mirror, Lists: [2]plan.Attr{plan.AllAttrs, plan.AllAttrs}, ScanStart: time.Unix(1<<33, 0),
		Roots:  [2]entry.FSID{source.Change.FS, source.Change.FS},
		Guards: plan.Guards{Scans: 1, Number: -1, Percent: 100, Markers: [2]plan.Marker{{Want: "x", Got: "x"}, {Want: "y", Got: "y"}}},
	}, spill)
	must(t, err)
	var got []string
	for a, err := range p.Actions() {
		must(t, err)
		got = append(got, a.Op.String()+" "+a.Key)
	}
	if fmt.Sprint(got) != "[equal b delete a/gone]" {
		t.Errorf("got %q", got)
	}
}

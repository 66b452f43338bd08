package plan_test

import (
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Few names that begin each other, so that files, directories and what lies
// between them in the order of keys get in each other's way.
var names = rapid.SampledFrom([]string{"a", "a-", "b", "é", "e\u0301", "\xff"})

func drawPath(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(names, 1, 3).Draw(t, "path"), "/")
}

func existing(t *rapid.T, w *world, s plan.Side) (string, bool) {
	all := slices.Sorted(maps.Keys(w.sides[s].nodes))
	if len(all) == 0 {
		return "", false
	}
	return rapid.SampledFrom(all).Draw(t, "existing"), true
}

// edit does one thing to a side that somebody might do. It returns the kind.
func edit(t *rapid.T, w *world, s plan.Side) {
	d := w.sides[s]
	content := rapid.SampledFrom([]string{"", "x", "y", "zz"})
	what := rapid.SampledFrom([]string{"create", "create", "edit", "touchback", "rename", "delete", "swap", "chmod", "link", "mkdir", "touch"}).Draw(t, "edit")
	switch what {
	case "create", "link", "mkdir":
		p := drawPath(t)
		for q := p; q != "."; q = parentOf(q) {
			if n := d.nodes[q]; n != nil && (n.kind != entry.Dir || q == p) {
				w.remove(s, q)
			}
		}
		switch what {
		case "create":
			w.file(s, p, content.Draw(t, "content"))
		case "mkdir":
			w.dir(s, p)
		default:
			w.parents(s, p)
			w.write(s, p, node{kind: entry.Symlink, content: "to" + content.Draw(t, "target"), mode: 0o777, mtime: w.tick()})
		}
		return
	}
	p, ok := existing(t, w, s)
	if !ok {
		return
	}
	n := *d.nodes[p]
	switch what {
	case "edit", "touchback":
		if n.kind != entry.File {
			return
		}
		n.content = content.Draw(t, "content")
		if what == "edit" {
			n.mtime = w.tick()
		}
		w.write(s, p, n)
	case "touch":
		n.mtime = w.tick()
		w.write(s, p, n)
	case "chmod":
		if n.kind != entry.Symlink { // which has no mode of its own
			n.mode ^= 0o111
			w.write(s, p, n)
		}
	case "delete":
		w.remove(s, p)
	case "swap":
		kind := n.kind
		w.remove(s, p)
		if kind == entry.Dir {
			w.file(s, p, content.Draw(t, "content"))
		} else {
			w.file(s, p+"/"+names.Draw(t, "name"), content.Draw(t, "content"))
		}
	case "rename":
		q := rapid.SampledFrom([]string{"r", "a!", "b/r"}).Draw(t, "to")
		if strings.HasPrefix(q+"/", p+"/") || strings.HasPrefix(p+"/", q+"/") {
			return
		}
		rename(w, s, p, q)
	}
}

func parentOf(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return "."
}

// rename keeps inodes and times, as rename(2) does.
func rename(w *world, s plan.Side, from, to string) {
	d := w.sides[s]
	moved := map[string]node{}
	for p, n := range d.nodes {
		if p == from || strings.HasPrefix(p, from+"/") {
			moved[to+strings.TrimPrefix(p, from)] = *n
		}
	}
	w.remove(s, from)
	w.remove(s, to)
	if up := parentOf(to); up != "." && d.nodes[up] != nil && d.nodes[up].kind != entry.Dir {
		w.remove(s, up)
	}
	w.parents(s, to)
	for _, p := range slices.Sorted(maps.Keys(moved)) {
		w.write(s, p, moved[p])
	}
}

func edits(t *rapid.T, w *world, sides ...plan.Side) {
	for range rapid.SampledFrom([]int{24, 12, 6, 3, 1, 0}).Draw(t, "edits") {
		edit(t, w, rapid.SampledFrom(sides).Draw(t, "side"))
	}
}

// Pains 1, 4, 7, 8: a mirror is equal afterwards, whatever was done to both
// sides, by way of a bucket's listing too.
func TestMirrorMakesTheSidesEqualAndConverges(t *testing.T) {
	for name, blind := range map[string]bool{"directories": false, "listing without metadata": true} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := newWorld(t, plan.Mirror)
				sides := []plan.Side{plan.Source, plan.Dest}
				if w.blind = blind; blind {
					w.rules.Lists[plan.Dest] = 0
					sides = sides[:1] // what such a listing does not show cannot be mended
				}
				for range rapid.IntRange(1, 4).Draw(t, "rounds") {
					edits(t, w, sides...)
					if rapid.Bool().Draw(t, "edit between two runs") {
						w.run()
						edits(t, w, sides...)
					}
					w.file(plan.Source, "keeps the source from being empty", "")
					converge(t, w)
					if s, d := w.show(plan.Source), w.show(plan.Dest); !maps.Equal(s, d) {
						t.Fatalf("the sides differ:\nsource %v\ndest   %v", s, d)
					}
				}
			})
		})
	}
}

// converge runs until nothing changes any more. A swap of file and directory
// needs three runs: missing once, missing twice, and one more whose own directory
// was in the way; the last one must be empty.
func converge(t fataler, w *world) {
	t.Helper()
	var last []plan.Action
	for range 5 {
		if last, _ = w.run(); len(changes(last)) == 0 {
			// Twice, as a run that only counted what is missing is no end.
			if last, _ = w.run(); len(changes(last)) == 0 {
				return
			}
		}
	}
	t.Fatalf("does not converge: %v", changes(last))
}

// Pain 3: without remove, nothing that the destination alone holds is lost.
func TestCopyLosesNothingOfTheDestination(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, plan.Copy)
		for range rapid.IntRange(1, 3).Draw(t, "rounds") {
			edits(t, w, plan.Source, plan.Dest)
			before := w.show(plan.Dest)
			w.run()
			after := w.show(plan.Dest)
			for p, was := range before {
				if n := w.sides[plan.Source].nodes[p]; (n == nil || (n.kind == entry.Dir) != strings.HasPrefix(was, "dir")) && after[p] != was {
					t.Fatalf("%q was %s and is %s", p, was, after[p])
				}
			}
			for p, n := range w.sides[plan.Source].nodes {
				if got := w.sides[plan.Dest].nodes[p]; n.kind == entry.File && (got == nil || got.content != n.content) && !blocked(before, p) {
					t.Fatalf("%q was not copied", p)
				}
			}
			if again, _ := w.run(); len(changes(again)) > 0 {
				t.Fatalf("the second run is not empty: %v", changes(again))
			}
		}
	})
}

// blocked reports whether a file stands in the way of p, or a directory in its place.
func blocked(side map[string]string, p string) bool {
	if strings.HasPrefix(side[p], "dir") {
		return true
	}
	for q := parentOf(p); q != "."; q = parentOf(q) {
		if line, ok := side[q]; ok && !strings.HasPrefix(line, "dir") {
			return true
		}
	}
	return false
}

// Pain 9: whatever was edited on a side since the last run is still there, as it
// was edited, after a two-way run.
func TestTwoWayLosesNoEditAndConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, plan.TwoWay)
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			edits(t, w, plan.Source, plan.Dest)
			for i := range 5 {
				if i == 1 && rapid.Bool().Draw(t, "edit between two runs") {
					edits(t, w, plan.Source, plan.Dest)
				}
				var edited, before [2]map[string]string
				for _, s := range []plan.Side{plan.Source, plan.Dest} {
					edited[s], before[s] = editedSince(w, s), w.show(s)
				}
				w.run()
				for s, want := range edited {
					now := w.show(plan.Side(s))
					for p, line := range want {
						// What both sides were edited to gets one time.
						if now[p] != line && (untimed(now[p]) != untimed(line) || untimed(before[1-s][p]) != untimed(line)) {
							t.Fatalf("on the %v %q was edited to %s and is %s", plan.Side(s), p, line, now[p])
						}
					}
				}
			}
			if again, _ := w.run(); len(changes(again)) > 0 {
				t.Fatalf("does not converge: %v", changes(again))
			}
		}
	})
}

// untimed is a line of show without the time at its end.
func untimed(line string) string { return line[:strings.LastIndexByte(line, ' ')+1] }

// editedSince is what a side holds that the last run did not leave there.
func editedSince(w *world, s plan.Side) map[string]string {
	out := w.show(s)
	for _, p := range w.past {
		if !plan.Present(p.Source) || !plan.Present(p.Dest) {
			continue
		}
		e := p.At(s)
		n := w.sides[s].nodes[e.Path]
		switch {
		case n == nil || n.kind != e.Kind || n.mode != e.Mode:
		case n.kind == entry.Dir,
			n.kind == entry.Symlink && n.content == e.Target && n.mtime == e.MTime,
			n.kind == entry.File && hashOf(n.content).BLAKE3 == e.Sum.BLAKE3 && n.mtime == e.MTime:
			delete(out, e.Path)
		}
	}
	return out
}

// Pains 3 and 12: a guard that refuses leaves no delete, and takes no copy away.
func TestNoDeleteWhenAnyGuardRefuses(t *testing.T) {
	trips := map[string]func(*world, *plan.Input){
		"identity":  func(w *world, _ *plan.Input) { w.rules.Guards.Markers[plan.Source].Got = "another disk" },
		"number":    func(w *world, _ *plan.Input) { w.rules.Guards.Number = 1 },
		"percent":   func(w *world, _ *plan.Input) { w.rules.Guards.Percent = 0.001 },
		"error":     func(_ *world, in *plan.Input) { in.Source = failing(in.Source, 1<<30) },
		"dest":      func(_ *world, in *plan.Input) { in.Dest = failing(in.Dest, 1<<30) },
		"versioned": func(w *world, _ *plan.Input) { w.rules.Mode, w.rules.Guards.Versioned = plan.TwoWay, false },
	}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, plan.Mirror)
		w.rules.Guards.Scans = 1
		edits(t, w, plan.Source)
		for _, p := range []string{"0", "z/1", "z/2"} {
			w.file(plan.Source, p, "")
		}
		w.run()
		edits(t, w, plan.Source)
		for _, p := range []string{"0", "z/1"} {
			w.remove(plan.Source, p)
		}
		w.file(plan.Source, "new", "")
		name := rapid.SampledFrom(slices.Sorted(maps.Keys(trips))).Draw(t, "trip")
		free, _ := w.plan(w.input())
		in := w.input()
		trips[name](w, &in)
		got, report := w.plan(in)
		if len(report.Refusals) == 0 {
			t.Fatalf("nothing was refused")
		}
		if i := slices.IndexFunc(got, func(a plan.Action) bool { return a.Op == plan.Delete }); i >= 0 {
			t.Fatalf("%v, though %v", ops(got[i:i+1]), report.Refusals)
		}
		want := upTo(free, plan.Delete)
		if w.rules.Mode == plan.Mirror && !reflect.DeepEqual(changes(upTo(got, plan.Delete)), changes(want)) {
			t.Fatalf("the copies are not the same:\n got %v\nwant %v", changes(got), changes(want))
		}
		w.apply(got)
	})
}

// upTo is the actions before the first of an operation.
func upTo(actions []plan.Action, op plan.Op) []plan.Action {
	if i := slices.IndexFunc(actions, func(a plan.Action) bool { return a.Op == op }); i >= 0 {
		return actions[:i]
	}
	return actions
}

// The plan depends on what the streams hold, not on how they come: pushed, pulled
// page by page, with entries among them that take no part.
func TestThePlanIsTheSameWhateverTheChunking(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.SampledFrom([]plan.Mode{plan.Copy, plan.Mirror, plan.TwoWay}).Draw(t, "mode"))
		edits(t, w, plan.Source, plan.Dest)
		w.run()
		edits(t, w, plan.Source, plan.Dest)
		in := w.input()
		want, _ := w.plan(in)
		w.clock -= 10 * second // the same start of the scan
		page := rapid.IntRange(1, 5).Draw(t, "page")
		got, _ := w.plan(plan.Input{Source: paged(in.Source, page), Dest: paged(in.Dest, page), Past: paged(in.Past, page)})
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v\nwant %v", ops(got), ops(want))
		}
	})
}

// paged reads a stream ahead by pages, as listings come.
func paged[T any](in iter.Seq2[T, error], size int) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var page []T
		flush := func() bool {
			for _, e := range page {
				if !yield(e, nil) {
					return false
				}
			}
			page = page[:0]
			return true
		}
		for e := range in {
			if page = append(page, e); len(page) == size && !flush() {
				return
			}
		}
		flush()
	}
}

package plan_test

import (
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// rewritten is an object that somebody gave another content of the same size, and
// left the metadata that told of the one before.
func rewritten(e entry.Entry, now string) entry.Entry {
	e.Sum.ETag = hashOf(now).ETag
	return e
}

// What an object's metadata says of its content is no proof once the ETag differs.
func TestMetadataDoesNotOutrankAnETag(t *testing.T) {
	was := entry.Entry{Path: "a", Size: 3, Mode: 0o644, MTime: second, Sum: hashOf("one")}
	file := was
	file.Sum = entry.Sum{}
	for _, c := range []struct {
		mode   plan.Mode
		source entry.Entry
		to     plan.Side
	}{
		{plan.Mirror, file, plan.Dest}, {plan.Mirror, was, plan.Dest}, // from a directory, and from a bucket
		{plan.TwoWay, file, plan.Source}, {plan.TwoWay, was, plan.Source},
	} {
		w := newWorld(t, c.mode)
		planned, _ := w.plan(plan.Input{
			Source: seq([]entry.Entry{c.source}), Dest: seq([]entry.Entry{rewritten(was, "two")}),
			Past: seq([]plan.Past{{Key: "a", Source: was, Dest: was}}),
		})
		expect(t, planned, "put a")
		if planned[0].To != c.to {
			t.Errorf("%v: it is written to the %s", c.mode, planned[0].To)
		}
	}
}

// An audit takes no metadata for what was read.
func TestAnAuditBelievesNoMetadata(t *testing.T) {
	was := entry.Entry{Path: "a", Size: 3, Mode: 0o644, MTime: second, Sum: hashOf("one")}
	file := was
	file.Sum = entry.Sum{}
	for _, past := range [][]plan.Past{nil, {{Key: "a", Source: file, Dest: rewritten(was, "two")}}} {
		for _, c := range []struct{ content, want string }{{"one", "put a"}, {"two", "equal a"}} {
			w := newWorld(t, plan.Mirror)
			w.rules.Audit = true
			planned, _ := w.plan(plan.Input{Source: seq([]entry.Entry{file}), Dest: seq([]entry.Entry{rewritten(was, "two")}), Past: seq(past)})
			expect(t, planned, "rehash a")
			a := planned[0]
			a.Source.Sum = hashOf(c.content)
			expect(t, []plan.Action{w.rules.Settle(a)}, c.want)
		}
	}
}

// What an audit finds damaged, though nothing has touched it, is not copied over what
// is sound.
func TestAnAuditCopiesNoRot(t *testing.T) {
	for _, mode := range []plan.Mode{plan.Mirror, plan.TwoWay} {
		w := newWorld(t, mode)
		w.file(plan.Source, "a", "one")
		w.run()
		w.rules.Audit = true
		w.run()                                         // which reads both
		w.sides[plan.Source].nodes["a"].content = "two" // behind its inode's back
		settled, _ := w.run()
		expect(t, settled, "conflict a: "+string(plan.ConflictRotten))
		if settled[0].Reason.Fix() == "" || w.sides[plan.Dest].nodes["a"].content != "one" {
			t.Errorf("%v: got %+v", mode, settled[0])
		}
		// What somebody has touched is meant.
		n := *w.sides[plan.Source].nodes["a"]
		w.write(plan.Source, "a", n)
		settled, _ = w.run()
		expect(t, settled, "put a")
	}
}

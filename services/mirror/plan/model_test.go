package plan_test

import (
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/blake3"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// fataler is what a model needs of a test.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// world is two file systems and what the last run left on them. It refuses what a
// kernel would refuse, so that an order that cannot be carried out fails the test.
type world struct {
	t     fataler
	sides [2]*disk
	past  map[string]plan.Past
	clock int64
	rules plan.Rules
	// blind lists the destination as a bucket without metadata does.
	blind bool
	// read counts what the plan had read while it was made.
	read int
}

type disk struct {
	nodes map[string]*node // by path; the root is not among them
	inode uint64
	// mounts are the file systems that begin at paths, but for the root's.
	mounts map[string]entry.FSID
	// closed are paths of mounts that the side does not look into.
	closed map[string]bool
}

type node struct {
	kind    entry.Kind
	content string // or the target of a link
	mode    uint32
	mtime   int64
	ctime   int64
	inode   uint64
}

const second = int64(time.Second)

func newWorld(t fataler, mode plan.Mode) *world {
	w := &world{t: t, past: map[string]plan.Past{}, clock: 1_000_000 * second}
	for s := range w.sides {
		w.sides[s] = &disk{nodes: map[string]*node{}}
	}
	w.rules = plan.Rules{
		Mode: mode,
		Hash: func(s plan.Side, e entry.Entry, _ entry.Sum) (entry.Sum, error) {
			w.read++
			return hashOf(w.sides[s].nodes[e.Path].content), nil
		},
		Lists: [2]plan.Attr{plan.AllAttrs, plan.AllAttrs},
		Roots: [2]entry.FSID{{1}, {1}},
		Trust: plan.TrustHashes,
		Guards: plan.Guards{
			Markers: [2]plan.Marker{{Want: "s", Got: "s"}, {Want: "d", Got: "d"}},
			Number:  -1, Percent: 100, Versioned: true,
		},
	}
	return w
}

// tick lets more time pass than the times of files are coarse.
func (w *world) tick() int64 {
	w.clock += 10 * second
	return w.clock
}

func (w *world) write(s plan.Side, p string, n node) {
	d := w.sides[s]
	n.ctime = w.tick()
	if n.inode == 0 {
		d.inode++
		n.inode = d.inode
	}
	d.nodes[p] = &n
}

// file makes or overwrites a file, and the directories above it, in place of
// what stands in their way.
func (w *world) file(s plan.Side, p, content string) {
	if n := w.sides[s].nodes[p]; n != nil && n.kind == entry.Dir {
		w.remove(s, p)
	}
	w.parents(s, p)
	w.write(s, p, node{content: content, mode: 0o644, mtime: w.tick()})
}

func (w *world) dir(s plan.Side, p string) {
	w.parents(s, p)
	w.write(s, p, node{kind: entry.Dir, mode: 0o755, mtime: w.tick()})
}

func (w *world) parents(s plan.Side, p string) {
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if n := w.sides[s].nodes[d]; n == nil || n.kind != entry.Dir {
			w.write(s, d, node{kind: entry.Dir, mode: 0o755, mtime: w.tick()})
		}
	}
}

func (w *world) remove(s plan.Side, p string) {
	for q := range w.sides[s].nodes {
		if q == p || strings.HasPrefix(q, p+"/") {
			delete(w.sides[s].nodes, q)
		}
	}
}

// fs is the file system that a path lies in.
func (d *disk) fs(p string) entry.FSID {
	for ; p != "."; p = path.Dir(p) {
		if id, ok := d.mounts[p]; ok {
			return id
		}
	}
	return entry.FSID{1}
}

func (d *disk) entry(p string, n *node) entry.Entry {
	e := entry.Entry{
		Path: p, Kind: n.kind, Mode: n.mode, MTime: n.mtime, Size: int64(len(n.content)),
		Change: entry.Change{FS: d.fs(p), Inode: n.inode, CTime: n.ctime}, Closed: d.closed[p],
	}
	if n.kind == entry.Symlink {
		e.Target = n.content
	}
	return e
}

func hashOf(content string) (s entry.Sum) {
	s.BLAKE3 = blake3.Sum256([]byte(content))
	s.ETag = fmt.Sprintf("%x", s.BLAKE3[:16])
	s.Has = entry.HasBLAKE3 | entry.HasETag
	return s
}

// look is an entry as the side's stream shows it.
func (w *world) look(s plan.Side, p string) entry.Entry {
	n := w.sides[s].nodes[p]
	if n == nil {
		return entry.Entry{}
	}
	e := w.sides[s].entry(p, n)
	if s == plan.Dest && w.blind {
		kind := entry.File
		sum := entry.Sum{Has: entry.HasETag, ETag: hashOf(n.content).ETag}
		if n.kind == entry.Dir {
			kind, sum = entry.Dir, entry.Sum{}
		}
		e = entry.Entry{Path: p, Kind: kind, Size: e.Size, Sum: sum}
	}
	return e
}

func (w *world) entries(s plan.Side) []entry.Entry {
	var out []entry.Entry
	for p := range w.sides[s].nodes {
		out = append(out, w.look(s, p))
	}
	slices.SortFunc(out, func(a, b entry.Entry) int { return entry.Compare(a.Key(), b.Key()) })
	return out
}

func seq[T any](list []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (w *world) input() plan.Input {
	keys := slices.Sorted(maps.Keys(w.past))
	past := make([]plan.Past, len(keys))
	for i, k := range keys {
		past[i] = w.past[k]
	}
	return plan.Input{Source: seq(w.entries(plan.Source)), Dest: seq(w.entries(plan.Dest)), Past: seq(past)}
}

// plan makes the actions of a run without carrying them out.
func (w *world) plan(in plan.Input) ([]plan.Action, plan.Report) {
	w.t.Helper()
	w.rules.ScanStart = time.Unix(0, w.tick())
	return w.planAt(in)
}

// planAt is plan at the time of the one before.
func (w *world) planAt(in plan.Input) ([]plan.Action, plan.Report) {
	w.t.Helper()
	p, err := plan.New(in, w.rules, &plan.MemorySpill{Limit: 1 << 20})
	if err != nil {
		w.t.Fatalf("New: %v", err)
	}
	var out []plan.Action
	for a, err := range p.Actions() {
		if err != nil {
			w.t.Fatalf("Actions: %v", err)
		}
		out = append(out, a)
	}
	return out, p.Report()
}

// run makes a plan and carries it out.
func (w *world) run() ([]plan.Action, plan.Report) {
	w.t.Helper()
	actions, report := w.plan(w.input())
	w.apply(actions)
	return actions, report
}

// apply carries actions out in their order, and keeps the next run's past. Each
// Rehash is replaced by what it was settled to.
func (w *world) apply(actions []plan.Action) {
	w.t.Helper()
	next := map[string]plan.Past{}
	deleting := false
	for i, a := range actions {
		if a.Op == plan.Rehash {
			a = w.settle(a)
			actions[i] = a
		}
		if deleting && (a.Op == plan.Meta || a.Op == plan.Rehash) {
			w.t.Fatalf("%v %q behind a delete", a.Op, a.Key)
		}
		deleting = deleting || a.Op == plan.Delete
		w.do(&a)
		if p, ok := w.rules.Next(a, true); ok {
			if _, twice := next[p.Key]; twice {
				w.t.Fatalf("two pasts for %q", p.Key)
			}
			next[p.Key] = p
		}
	}
	w.past = next
}

// settle hashes what is in doubt.
func (w *world) settle(a plan.Action) plan.Action {
	w.t.Helper()
	if a.Doubt[plan.Source] {
		a.Source.Sum = hashOf(w.sides[plan.Source].nodes[a.Source.Path].content)
	}
	if a.Doubt[plan.Dest] {
		a.Dest.Sum = hashOf(w.sides[plan.Dest].nodes[a.Dest.Path].content)
	}
	a = w.rules.Settle(a)
	if a.Op == plan.Rehash {
		w.t.Fatalf("%q was settled to another Rehash", a.Key)
	}
	return a
}

func (w *world) do(a *plan.Action) {
	w.t.Helper()
	to, from := w.sides[a.To], w.sides[a.To.Other()]
	switch a.Op {
	case plan.Delete:
		p := a.At(a.To).Path
		n := to.nodes[p]
		if n == nil || (n.kind == entry.Dir) != (a.At(a.To).Kind == entry.Dir) {
			w.t.Fatalf("delete of %q, which is not there", a.Key)
		}
		for q := range to.nodes {
			if strings.HasPrefix(q, p+"/") {
				w.t.Fatalf("delete of %q, which still holds %q", a.Key, q)
			}
		}
		delete(to.nodes, p)
		return
	case plan.Put, plan.MakeDir, plan.Meta:
	default:
		return
	}
	p := a.At(a.To.Other()).Path
	if a.Op == plan.MakeDir && from.nodes[p] == nil { // comes back for what is new in it
		p = a.At(a.To).Path
		from = to
	}
	src, old := from.nodes[p], to.nodes[p]
	if src == nil {
		w.t.Fatalf("%v of %q, which its source does not hold", a.Op, a.Key)
	}
	if parent := path.Dir(p); parent != "." && (to.nodes[parent] == nil || to.nodes[parent].kind != entry.Dir) {
		w.t.Fatalf("%v of %q: there is no directory for it", a.Op, a.Key)
	}
	if old != nil && (old.kind == entry.Dir) != (src.kind == entry.Dir) {
		w.t.Fatalf("%v of %q: a file or a directory is in its place", a.Op, a.Key)
	}
	if plan.Present(a.At(a.To)) != (old != nil) {
		w.t.Fatalf("%v of %q expects %v there and finds %v", a.Op, a.Key, plan.Present(a.At(a.To)), old != nil)
	}
	if a.Op == plan.Meta && (old == nil || old.content != src.content || old.kind != src.kind) {
		w.t.Fatalf("only the attributes of %q are written, and the contents differ", a.Key)
	}
	copied := *src
	copied.inode = 0
	if old != nil {
		copied.inode = old.inode
	}
	w.write(a.To, p, copied)
	a.Source, a.Dest = w.look(plan.Source, p), w.look(plan.Dest, p)
	if src.kind == entry.File {
		a.Source.Sum, a.Dest.Sum = hashOf(src.content), hashOf(src.content)
	}
}

// show describes a side in a comparable way.
func (w *world) show(s plan.Side) map[string]string {
	out := map[string]string{}
	for p, n := range w.sides[s].nodes {
		line := fmt.Sprintf("%v %o %q", n.kind, n.mode, n.content)
		if n.kind != entry.Dir {
			line += fmt.Sprint(" ", n.mtime)
		}
		out[p] = line
	}
	return out
}

func changes(actions []plan.Action) (out []string) {
	for _, a := range actions {
		if a.Op.Changes() {
			out = append(out, fmt.Sprintf("%v %s to %v", a.Op, a.Key, a.To))
		}
	}
	return out
}

func ops(actions []plan.Action) (out []string) {
	for _, a := range actions {
		line := a.Op.String() + " " + a.Key
		if a.Reason != "" {
			line += ": " + string(a.Reason)
		}
		out = append(out, line)
	}
	return out
}

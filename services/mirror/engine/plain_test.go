package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// On a server whose listing tells neither kinds nor attributes, each object is asked for
// what it is when it is new or was written, and never else.
func TestALaterRunAsksForWhatWasWrittenSince(t *testing.T) {
	c, proxy := enginetest.Plain(t, server.Bucket(t, false))
	full(t, c)
	w, _ := out(t, c, true)
	w.job.Mode, w.job.Guards = plan.Mirror, plan.Guards{Number: -1, Percent: 100, Scans: 1}
	asked := func(what string, heads, gets int) {
		t.Helper()
		if took := proxy.Took(); took["HEAD object"] != heads || took["GET object"] != gets {
			t.Errorf("%s: asked %v, not for %d and %d objects", what, took, heads, gets)
		}
	}
	proxy.Took()
	n := int(w.whole().Seen[plan.Source])
	asked("the first copy", 0, n)
	for _, check := range []Check{CheckAuto, CheckState, CheckListing} {
		w.idle(check)
		asked(fmt.Sprintf("unchanged, %d", check), 0, 0)
	}
	w.job.Check = CheckAuto
	edit(t, c)
	proxy.Took()
	w.job.DryRun = true
	dry, _ := w.told()
	asked("a dry run", 4, 0)
	w.job.DryRun = false
	real, _ := w.told()
	asked("the run", 4, 2) // of links and of what has other attributes no content is asked for
	if !slices.Equal(dry, real) || len(real) != 5 {
		t.Errorf("the dry run said\n%s\nand the run did\n%s", strings.Join(dry, "\n"), strings.Join(real, "\n"))
	}
	w.same()
	proxy.Took()
	w.idle(CheckAuto)
	asked("once more", 0, 0)
	w.job.AcceptPlaces = true
	w.idle(CheckListing)
	asked("places that were accepted", n, 1) // the target of the long link
	w.job.AcceptPlaces = false
	w.job.Check = CheckAudit
	if r := w.whole(); r.Check != CheckAudit || r.Done[plan.Equal] != r.Seen[plan.Source] {
		t.Errorf("an audit: %+v", r)
	}
	if took := proxy.Took(); took["HEAD object"] != n {
		t.Errorf("an audit: asked %v", took)
	}
	w.state = t.TempDir()
	w.reopen()
	w.idle(CheckAuto)
	asked("nothing is known", n, 1)
}

// nameless is a place as earlier versions saw it on such a server.
type nameless struct{ place.Place }

func (n nameless) Entries(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	o.Names = true
	return n.Place.Entries(ctx, o)
}

func (n nameless) Traits() place.Traits {
	t := n.Place.Traits()
	t.Lists = 0
	return t
}

// What earlier versions made plain files of becomes what it is.
func TestWhatWasCopiedWithoutAttributesIsMended(t *testing.T) {
	c, _ := enginetest.Plain(t, server.Bucket(t, false))
	full(t, c)
	w, from := out(t, c, true)
	w.job.Places[plan.Source] = nameless{from.spy}
	w.whole()
	if tree := enginetest.Tree(t, w.to.String()); strings.HasPrefix(tree["link"], "link") {
		t.Fatalf("it is none of those: %q", tree)
	}
	w.job.Places[plan.Source] = from
	w.whole()
	w.same()
	w.idle(CheckListing)
}

// What tells of an object's writing makes it no file: its hashes are what its writer says,
// its upload is gone on with, and who only looked at it need not know it.
func TestAnObjectThatTellsOfItsWritingIsNoFile(t *testing.T) {
	e := entry.Entry{Path: "f", Size: 20, Change: entry.Change{CTime: 5}, Sum: entry.Sum{Has: entry.HasBLAKE3 | entry.HasETag, ETag: "e"}}
	if unread(e).Sum.Contains(entry.HasBLAKE3) {
		t.Error("a hash that nobody has computed is believed")
	}
	u := &upload{Size: 10, Parts: make([][]byte, 2), Entry: wire.AppendEntry(nil, e)}
	if !u.is(e) {
		t.Error("its upload is not known again")
	}
	looked := e
	looked.Change = entry.Change{}
	if !untouched(&looked, &e) || !untouched(&e, &looked) {
		t.Error("a look that tells nothing of changes shows one")
	}
	if looked.Change.CTime = 6; untouched(&looked, &e) {
		t.Error("it was written again, and nothing shows it")
	}
}

// edit changes a bucket in each way that there is: the content, the attributes alone, the
// kind, something new, something gone.
func edit(t *testing.T, c bucket.Config) {
	t.Helper()
	p, err := store.Open(t.Context(), c, store.Options{})
	must(t, err)
	defer func() { must(t, p.Close()) }()
	have := map[string]entry.Entry{}
	for e, err := range p.Entries(t.Context(), place.ListOptions{}) {
		must(t, err)
		have[e.Key()] = e
	}
	attrs := have["mode"]
	attrs.Mode, attrs.UID = 0o4711, 12345
	_, err = p.SetAttrs(t.Context(), attrs, have["mode"])
	must(t, errors.Join(err, p.Remove(t.Context(), []entry.Entry{have["many/02"]})[0]))
	for _, e := range []entry.Entry{
		{Path: "many/00", Size: 7, Mode: 0o640, MTime: 5}, {Path: "new", Size: 7, Mode: 0o600, MTime: 6},
		{Path: "many/01", Kind: entry.Symlink, Target: "00", MTime: 7},
	} {
		_, err := p.Put(t.Context(), place.Write{Entry: e, Have: have[e.Path], Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("another")), nil
		}})
		must(t, err)
	}
}

// onDisks is a bucket in which there is no file and directory of one name: S3 holds both, and
// the MinIO behind a plain server does not.
type onDisks struct{ *store.Place }

func (o onDisks) Traits() place.Traits {
	t := o.Place.Traits()
	t.Both = false
	return t
}

// Whatever is done to a directory arrives in another one by way of such a server, in each
// kind of run, and dry runs say so before.
func TestAllTravelsThroughAPlainServer(t *testing.T) {
	for seed := range uint64(12) {
		c, proxy := enginetest.Plain(t, server.Bucket(t, false))
		p, err := store.Open(t.Context(), c, store.Options{})
		must(t, err)
		t.Cleanup(func() { must(t, p.Close()) })
		in := between(t, plan.Mirror, &spy{Place: onDisks{p}})
		on, _ := out(t, c, true)
		on.job.Mode, on.job.Guards = plan.Mirror, in.job.Guards
		random := rand.New(rand.NewPCG(seed, 11))
		editor := enginetest.Editor{TB: t, Dir: in.dir, Rand: random}
		for round := range 6 {
			editor.Edit(10)
			in.remove("keeps the source from being empty")
			in.write("keeps the source from being empty", "")
			left := in.settle()
			on.job.Check = []Check{CheckAuto, CheckListing, CheckAudit}[random.IntN(3)]
			on.job.DryRun = true
			dry, _ := on.told()
			on.job.DryRun = false
			real, _ := on.told()
			if !slices.Equal(dry, real) {
				t.Fatalf("seed %d, round %d: the dry run said\n%s\nand the run did\n%s", seed, round, strings.Join(dry, "\n"), strings.Join(real, "\n"))
			}
			on.settle()
			if got, want := enginetest.Tree(t, on.to.String()), without(enginetest.Tree(t, in.dir), left.Unholdable); !maps.Equal(got, want) {
				t.Fatalf("seed %d, round %d: there is\n%q\nand should be\n%q", seed, round, got, want)
			}
			proxy.Took()
			on.settle()
			if took := proxy.Took(); took["HEAD object"]+took["GET object"] > 0 {
				t.Fatalf("seed %d, round %d: an idle run asked %v", seed, round, took)
			}
		}
	}
}

// without leaves out what a bucket cannot hold, with all below.
func without(tree map[string]string, unholdable []plan.Action) map[string]string {
	maps.DeleteFunc(tree, func(path, _ string) bool {
		return slices.ContainsFunc(unholdable, func(a plan.Action) bool {
			return path == a.Source.Path || strings.HasPrefix(path, a.Source.Path+"/")
		})
	})
	return tree
}

// settle runs until nothing is left to do: what stands in the way is removed first.
func (w *world) settle() Report {
	w.Helper()
	w.job.Check = CheckAuto
	for range 4 {
		r := w.run()
		if r.Failed > 0 || r.Faults > 0 || len(r.Refusals) > 0 {
			w.Fatalf("it failed: %+v", r)
		}
		if r.Done[plan.Equal]+r.Done[plan.Unholdable] == r.Seen[plan.Source] {
			return r
		}
	}
	w.Fatal("it never comes to an end")
	return Report{}
}

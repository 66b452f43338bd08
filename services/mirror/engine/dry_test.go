package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// A dry run does nothing, and says exactly what the run after it does.
func TestADryRunIsTheRunButForWhatItDoes(t *testing.T) {
	c := server.Bucket(t, false)
	var number int
	open := map[string]func(testing.TB) *spy{
		"directory": func(t testing.TB) *spy { return openLocal(t, t.TempDir()) },
		"bucket": func(t testing.TB) *spy {
			number++
			c.Prefix = fmt.Sprint(number)
			p, err := store.Open(t.Context(), c, store.Options{})
			must(t, err)
			t.Cleanup(func() { must(t, p.Close()) })
			return &spy{Place: p}
		},
	}
	for _, mode := range []plan.Mode{plan.Copy, plan.Mirror, plan.TwoWay} {
		for _, kind := range slices.Sorted(maps.Keys(open)) {
			t.Run(fmt.Sprintf("%s %d", kind, mode), func(t *testing.T) {
				for seed := range uint64(8) {
					dryAndReal(t, between(t, mode, open[kind](t)), seed)
				}
			})
		}
	}
}

func dryAndReal(t *testing.T, w *world, seed uint64) {
	here := &enginetest.Editor{TB: t, Dir: w.dir, Rand: rand.New(rand.NewPCG(seed, 1))}
	there := &enginetest.Editor{TB: t, Dir: w.to.String(), Rand: rand.New(rand.NewPCG(seed, 2))}
	for round := range 3 {
		here.Edit(8)
		if filepath.IsAbs(there.Dir) {
			there.Edit(2)
		}
		w.job.Check = []Check{CheckListing, CheckListing, CheckAudit}[round]
		before := [2]map[string]string{enginetest.Tree(t, w.dir), holds(t, w.to)}
		past := w.past()
		w.to.took()
		w.from.took()
		w.job.DryRun = true
		dry, would := w.told()
		if did := append(w.to.took(), w.from.took()...); len(did) > 0 {
			t.Fatalf("the dry run did %q", did)
		}
		w.job.DryRun = false
		if !maps.Equal(before[0], enginetest.Tree(t, w.dir)) || !maps.Equal(before[1], holds(t, w.to)) || !maps.Equal(past, w.past()) {
			t.Fatal("the dry run changed something")
		}
		real, r := w.told()
		if r.Failed > 0 {
			t.Fatalf("it failed: %v", r.Failures)
		}
		if would.Whole() != r.Whole() {
			t.Fatalf("seed %d, round %d: the dry run was whole: %t, the run: %t", seed, round, would.Whole(), r.Whole())
		}
		if !slices.Equal(dry, real) {
			t.Fatalf("seed %d, round %d: the dry run said\n%s\nand the run did\n%s", seed, round, strings.Join(dry, "\n"), strings.Join(real, "\n"))
		}
	}
}

// told makes a run and gives what it tells of.
func (w *world) told() ([]string, Report) {
	w.Helper()
	var all []string
	w.job.Each = func(d Done) {
		all = append(all, fmt.Sprintf("%s %q on the %s: %s %v", d.Action.Op, d.Action.Key, d.Action.To, d.Action.Reason, d.Err))
	}
	r := w.run()
	w.job.Each = nil
	slices.Sort(all)
	return all, r
}

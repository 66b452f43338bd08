package validator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// Properties of a ledger check.
const (
	propLost      = "lost"
	propRecovered = "recovered-unknown"
	propDuplicate = "duplicate"
	propPhantom   = "phantom"
	propStale     = "stale-reads"
	propLedger    = "ledger"
)

// tally adds up the lanes' results for one property each.
type tally struct {
	acked                                int64
	lost, recovered, duplicate, phantom  int64
	lostAt, recoveredAt, doubleAt, phaAt []string
}

// ledger compares the acknowledgements of every write lane at the target, those
// of earlier observer claims included, with the canaries that the target holds.
func (s *stepRun) ledger(ctx context.Context, k drill.Check, t *target.Target) ([]event.Property, []event.LedgerFound, error) {
	if t.Observer == nil {
		return nil, nil, fmt.Errorf("driver %s cannot read ledgers", t.Driver.Name())
	}
	lanes, err := verdict.LanesFromBatches(s.batches())
	var errs []error
	if err != nil {
		errs = append(errs, fmt.Errorf("the stored attempts: %w", err))
	}
	var sum tally
	var found []event.LedgerFound
	kinds := t.Driver.Describe().Probes
	for _, pr := range s.phase.Probes {
		if kind, ok := target.Find(kinds, pr.Probe); pr.Target != k.Target || !ok || !kind.Writes {
			continue
		}
		for _, cut := range s.cut.Lanes {
			if cut.Probe != pr.Name {
				continue
			}
			f, err := s.readLane(ctx, t, pr, cut, lanes, &sum)
			if err != nil {
				errs = append(errs, fmt.Errorf("lane %s/%s, claim %d: %w", cut.Probe, cut.Lane, cut.Epoch, err))
				continue
			}
			found = append(found, f)
		}
	}
	if len(found)+len(errs) == 0 {
		errs = append(errs, fmt.Errorf("no ledger of a write probe at target %s was read", k.Target))
	}
	props := sum.properties(s.phase.Objective.RPO, len(errs) == 0)
	if stale, ok := s.staleReads(lanes, k.Target, sum.lost); ok {
		props = append(props, stale)
	}
	for _, err := range errs {
		props = append(props, inconclusive(propLedger, err.Error()))
	}
	return props, found, nil
}

func (s *stepRun) batches() []event.ProbeBatch {
	var out []event.ProbeBatch
	for _, b := range s.view.batches {
		if b.Phase == s.phase.Name {
			out = append(out, b)
		}
	}
	return out
}

// readLane reads one lane's canaries and adds the comparison to the sum.
func (s *stepRun) readLane(ctx context.Context, t *target.Target, pr drill.Probe, cut event.LaneCut, lanes []verdict.Lane, sum *tally) (event.LedgerFound, error) {
	out := event.LedgerFound{Probe: cut.Probe, Lane: cut.Lane, Epoch: cut.Epoch, UpTo: cut.UpTo}
	lane, ok := findLane(lanes, cut)
	if !ok {
		return out, errors.New("no attempt of it is stored")
	}
	if last := lane.Attempts[len(lane.Attempts)-1].Seq; last < cut.UpTo {
		return out, fmt.Errorf("attempts %d to %d of the cut are not stored", last+1, cut.UpTo)
	}
	spec := target.ProbeSpec{
		Drill: s.id, Probe: pr.Probe, Name: pr.Name, Lane: cut.Lane, Params: pr.Params, Epoch: cut.Epoch, Deadline: pr.Deadline.D(),
	}
	held, err := target.Call(ctx, s.c.CheckTime, "read the ledger", func(ctx context.Context) (target.Held, error) {
		return t.Observer.ReadLedger(ctx, spec, cut.UpTo)
	}, nil)
	if err != nil {
		return out, err
	}
	if err := held.Present.Validate(); err != nil {
		return out, fmt.Errorf("read the ledger: %w", err)
	}
	// Numbers go on from phase to phase; the earlier phases' are not this one's.
	span := event.Ranges{{lane.Attempts[0].Seq, cut.UpTo}}
	out.Present = held.Present.And(span)
	doubles := map[int64]int64{}
	for seq, n := range held.Duplicates {
		if span.Has(seq) {
			doubles[seq] = n
			if out.Duplicates == nil {
				out.Duplicates = map[string]int64{}
			}
			out.Duplicates[fmt.Sprint(seq)] = n
		}
	}
	r, err := verdict.CompareLedger(lane, verdict.Ledger{
		Probe: cut.Probe, Lane: cut.Lane, Epoch: cut.Epoch, UpTo: cut.UpTo, Present: out.Present, Duplicates: doubles,
	}, nil)
	if err != nil {
		return out, err
	}
	sum.add(r)
	return out, nil
}

func findLane(lanes []verdict.Lane, cut event.LaneCut) (verdict.Lane, bool) {
	for _, l := range lanes {
		if l.Probe == cut.Probe && l.Name == cut.Lane && l.Epoch == cut.Epoch && len(l.Attempts) > 0 {
			return l, true
		}
	}
	return verdict.Lane{}, false
}

func (t *tally) add(r verdict.LedgerResult) {
	t.acked += r.Acked
	count := func(n *int64, at *[]string, set event.Ranges) {
		*n += set.Len()
		for _, p := range set {
			if len(*at) < maxSamples {
				*at = append(*at, sample(r, p))
			}
		}
	}
	count(&t.lost, &t.lostAt, r.Lost)
	count(&t.recovered, &t.recoveredAt, r.Recovered)
	count(&t.duplicate, &t.doubleAt, r.Duplicate)
	count(&t.phantom, &t.phaAt, r.Phantom)
}

func sample(r verdict.LedgerResult, p [2]int64) string {
	if p[0] == p[1] {
		return fmt.Sprintf("%s/%s/%d #%d", r.Probe, r.Lane, r.Epoch, p[0])
	}
	return fmt.Sprintf("%s/%s/%d #%d-%d", r.Probe, r.Lane, r.Epoch, p[0], p[1])
}

// properties judges the sums. Where not all lanes could be read, what was found
// may fail a property but cannot pass it.
func (t *tally) properties(rpo *drill.RPO, whole bool) []event.Property {
	pass := event.ResultPass
	if !whole {
		pass = event.ResultInconclusive
	}
	lost := event.Property{Name: propLost, Result: pass, Samples: t.lostAt,
		Found: fmt.Sprintf("%d of %d acknowledged writes are not there", t.lost, t.acked)}
	switch {
	case t.acked == 0:
		lost.Result, lost.Found = event.ResultInconclusive, "no write was acknowledged, so none could be lost"
	case rpo != nil && rpo.Records != nil:
		lost.Wanted = fmt.Sprintf("at most %d", *rpo.Records)
		if t.lost > *rpo.Records {
			lost.Result = event.ResultFail
		}
	case t.lost > 0: // no objective, so there is nothing to judge it by
		lost.Result = event.ResultInfo
	}
	none := func(name string, n int64, what string, at []string) event.Property {
		p := event.Property{Name: name, Result: pass, Found: fmt.Sprintf("%d %s", n, what), Wanted: "0", Samples: at}
		if n > 0 {
			p.Result = event.ResultFail
		}
		return p
	}
	return []event.Property{
		lost,
		{Name: propRecovered, Result: event.ResultInfo, Samples: t.recoveredAt,
			Found: fmt.Sprintf("%d writes whose answer was an error or missing are there", t.recovered)},
		none(propDuplicate, t.duplicate, "writes are there more than once", t.doubleAt),
		none(propPhantom, t.phantom, "writes are there that were never attempted", t.phaAt),
	}
}

// staleReads counts reads that missed a write acknowledged before they began.
// After a loss they are its shadow: the loss itself is judged.
func (s *stepRun) staleReads(lanes []verdict.Lane, at string, lost int64) (event.Property, bool) {
	here := map[string]bool{}
	for _, pr := range s.phase.Probes {
		here[pr.Name] = pr.Target == at
	}
	var mine []verdict.Lane
	reads := false
	for _, l := range lanes {
		if here[l.Probe] {
			mine = append(mine, l)
			reads = reads || l.Kind == "read"
		}
	}
	if !reads {
		return event.Property{}, false
	}
	var stale int64
	var samples, unknown []string
	for _, l := range mine {
		if l.Kind != "read" {
			continue
		}
		switch n, why := verdict.StaleReads(l, mine); {
		case why != "":
			unknown = append(unknown, l.ID()+": "+why)
		case n > 0:
			stale += n
			samples = append(samples, fmt.Sprintf("%s: %d", l.ID(), n))
		}
	}
	p := event.Property{Name: propStale, Result: event.ResultPass, Wanted: "0", Samples: samples,
		Found: fmt.Sprintf("%d reads missed a write acknowledged before they began", stale)}
	switch {
	case stale > 0 && lost > 0:
		p.Result, p.Wanted = event.ResultInfo, ""
		p.Found += "; writes were lost, so they had to"
	case stale > 0:
		p.Result = event.ResultFail
	case len(unknown) > 0:
		p.Result = event.ResultInconclusive
		p.Found = strings.Join(unknown, "; ")
	}
	return p, true
}

// whyNoBaseline quotes the problem that was recorded instead of a baseline.
func whyNoBaseline(rec *event.BaselineRecorded, check string) string {
	if rec == nil {
		return ""
	}
	for _, p := range rec.Problems {
		if rest, ok := strings.CutPrefix(p, check+": "); ok {
			return ": " + rest
		}
	}
	return ""
}

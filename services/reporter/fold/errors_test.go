package fold

import (
	"slices"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// TestErrorsAreThoseOfTheOutage: by the numbers of its attempts, of its lane and claim, each
// text once, whatever the order of the batches.
func TestErrorsAreThoseOfTheOutage(t *testing.T) {
	batch := func(lane string, claim, first int64, errs ...event.ProbeError) event.ProbeBatch {
		return event.ProbeBatch{Probe: "orders", Lane: lane, Epoch: claim, FirstSeq: first, Errors: errs}
	}
	at := func(seq int64, text string) event.ProbeError { return event.ProbeError{FirstSeq: seq, Text: text} }
	f := &phaseFold{targets: map[string]string{}, met: map[claimLane][]event.ProbeError{}, log: &phaseLog{batches: []event.ProbeBatch{
		batch("pooled", 1, 20, at(20, "last"), at(21, "after")),
		batch("pooled", 1, 1, at(9, "before"), at(10, "first"), at(15, "again")),
		batch("pooled", 1, 16, at(16, "first"), at(17, "again")),
		batch("pooled", 2, 1, at(12, "another claim's")),
		batch("fresh", 1, 1, at(12, "another lane's")),
	}}}
	f.openLanes()
	for seqs, want := range map[[2]int64][]string{
		{10, 20}: {"first", "again", "last"}, {9, 9}: {"before"}, {11, 14}: nil, {22, 30}: nil, {21, 99}: {"after"},
	} {
		o := verdict.Outage{Probe: "orders", Lane: "pooled", FirstBad: seqs[0], LastBad: seqs[1]}
		if got := f.errorsOf(o, 1); !slices.Equal(got, want) {
			t.Errorf("attempts %d to %d: %q, want %q", seqs[0], seqs[1], got, want)
		}
	}
}

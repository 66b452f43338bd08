package observer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// past is what earlier claims of the drill measured in a phase, by lane: what a
// lane was like before the fault and when it went down are not found out again.
type past map[laneID]pastLane

type pastLane struct {
	// attempts lie in the order of their schedule; their numbers are their claims'.
	attempts []verdict.Attempt
	// deadline is the longest D that was in force.
	deadline time.Duration
}

// recallTime bounds the reading of what earlier claims measured.
const recallTime = 10 * time.Second

// recall reads what earlier claims measured. What cannot be read or compared is
// logged and done without: the latency then has no limit.
func (o opening) recall(ctx context.Context, phase string) past {
	ctx, cancel := context.WithTimeout(ctx, recallTime)
	defer cancel()
	history, err := o.c.Bus.History(ctx, o.id)
	if err != nil {
		o.c.Log.WarnContext(ctx, "what the claims before this one measured cannot be read; latency has no limit after a fault that lies before this claim", "drill", o.id, "error", err)
		return nil
	}
	got, err := measuredBefore(history, phase, o.epoch, o.c.Clock.Now().Clock)
	if err != nil {
		o.c.Log.WarnContext(ctx, "not all that the claims before this one measured is used; latency may have no limit after a fault that lies before this claim", "drill", o.id, "error", err)
	}
	return got
}

// measuredBefore gathers the attempts of the phase's claims before epoch. Those of
// another boot or machine have times that mean nothing on this clock: they are left
// out, and the error says so, as it does of attempts that are missing or malformed.
func measuredBefore(history []bus.Stored, phase string, epoch int64, clock string) (past, error) {
	var batches []event.ProbeBatch
	for _, st := range history {
		if b, ok := st.Payload.(*event.ProbeBatch); ok && st.Trust == nil && b.Phase == phase && b.Epoch < epoch {
			batches = append(batches, *b)
		}
	}
	lanes, err := verdict.LanesFromBatches(batches)
	errs := []error{err}
	out, foreign := past{}, map[int64]bool{}
	for _, l := range lanes { // by epoch within a lane, so by time
		if l.Clock != clock {
			if !foreign[l.Epoch] {
				foreign[l.Epoch] = true
				errs = append(errs, fmt.Errorf("claim %d measured by clock %s, which is of another boot or machine than %s", l.Epoch, l.Clock, clock))
			}
			continue
		}
		id := laneID{l.Probe, l.Name}
		p := out[id]
		p.attempts = append(p.attempts, l.Attempts...)
		p.deadline = max(p.deadline, time.Duration(l.Deadline))
		out[id] = p
	}
	return out, errors.Join(errs...)
}

// resume opens a lane in the live picture as the continuation of the lane that
// earlier claims had: their attempts come first, under the numbers before its own.
// What is to be told of them was told by them. It returns the lane's deadline.
func (w *watch) resume(l *watched) time.Duration {
	p := w.past[l.id]
	deadline := max(l.probe.Deadline.D(), p.deadline)
	n := int64(len(p.attempts))
	w.live.Open(l.key, l.first-n, int64(deadline))
	for i, a := range p.attempts {
		a.Seq = l.first - n + int64(i)
		w.live.Add(l.key, a)
	}
	if n > 0 {
		w.baseFrom = max(w.baseFrom, p.attempts[0].Scheduled)
	}
	return deadline
}

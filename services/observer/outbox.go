package observer

import (
	"cmp"
	"slices"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/observer/probe"
)

const (
	// maxBatch is how many attempts one event carries.
	maxBatch = 400
	// maxNotices is how many live notices may wait: a lane that flaps faster than
	// they are stored loses some, and the report recomputes them all. A comparison of
	// clocks cannot be recomputed, so it is kept; there is one a fault, about.
	maxNotices = 32
	// maxHeld is how many attempts may wait for the server: half an hour of a probe
	// at its burst rate, at most some 60 MB.
	maxHeld = 200_000
	// maxErrors is how many distinct error texts one event carries.
	maxErrors = 5
)

// outbox is what was measured and is not in the history yet. What was stored leaves
// it when it is seen there, so that neither a lost answer nor a conflict can lose or
// double anything.
type outbox struct {
	lanes   []*laneOut
	notices []event.Draft
	dropped int
	// held is how many attempts wait, limit how many may; 0 means maxHeld. The
	// attempts under way when it is reached come on top.
	held, limit int
	// last is when attempts were published; due asks for it out of turn.
	last int64
	due  bool
}

// laneOut are a lane's attempts in order of number, without a gap.
type laneOut struct {
	id   laneID
	meta verdict.BatchMeta
	recs []probe.Record
}

func (o *outbox) empty() bool { return o.held == 0 && len(o.notices) == 0 }

// full reports whether no more attempts should be made.
func (o *outbox) full() bool { return o.held >= cmp.Or(o.limit, maxHeld) }

func (o *outbox) notice(d event.Draft) {
	if len(o.notices) >= maxNotices && d.Type != event.TypeClockCompared {
		o.dropped++
		return
	}
	o.notices = append(o.notices, d)
}

// noticed forgets the first notice, which is in the history.
func (o *outbox) noticed() {
	if len(o.notices) > 0 {
		o.notices = slices.Delete(o.notices, 0, 1)
	}
}

func (o *outbox) add(id laneID, meta verdict.BatchMeta, recs []probe.Record) {
	o.held += len(recs)
	for _, l := range o.lanes {
		if l.id == id && l.meta.Phase == meta.Phase {
			l.recs = append(l.recs, recs...)
			return
		}
	}
	o.lanes = append(o.lanes, &laneOut{id: id, meta: meta, recs: slices.Clone(recs)})
}

// published forgets attempts that are in the history.
func (o *outbox) published(phase string, id laneID, upTo int64) {
	i := slices.IndexFunc(o.lanes, func(l *laneOut) bool { return l.id == id && l.meta.Phase == phase })
	if i < 0 {
		return
	}
	l := o.lanes[i]
	n := int(min(max(0, upTo+1-l.recs[0].Seq), int64(len(l.recs))))
	o.held -= n
	if n == len(l.recs) {
		o.lanes = slices.Delete(o.lanes, i, i+1)
		return
	}
	clear(l.recs[:n]) // their texts are not needed any more
	l.recs = l.recs[n:]
}

// batches packs at most limit events of attempts; all says that nothing is left.
func (o *outbox) batches(limit int, now event.Reading) (out []event.Draft, all bool) {
	for _, l := range o.lanes {
		for rest := l.recs; len(rest) > 0; {
			if len(out) >= limit {
				return out, false
			}
			n := run(rest)
			out = append(out, event.Draft{Type: event.TypeProbeBatch, Data: pack(l.meta, rest[:n], now)})
			rest = rest[n:]
		}
	}
	return out, true
}

// run is how many of the first records fit one event: they share a deadline.
func run(recs []probe.Record) int {
	n := 1
	for n < len(recs) && n < maxBatch && recs[n].Deadline == recs[0].Deadline {
		n++
	}
	return n
}

func pack(m verdict.BatchMeta, recs []probe.Record, now event.Reading) event.ProbeBatch {
	m.Clock, m.Deadline = now, int64(recs[0].Deadline)
	attempts := make([]verdict.Attempt, len(recs))
	for i, r := range recs {
		attempts[i] = r.Attempt
		if r.Err != "" {
			m.Errors = countError(m.Errors, r)
		}
	}
	return verdict.NewBatch(m, attempts)
}

func countError(errs []event.ProbeError, r probe.Record) []event.ProbeError {
	text := r.Err
	if len(errs) >= maxErrors && !slices.ContainsFunc(errs, func(e event.ProbeError) bool { return e.Text == text }) {
		text = "other errors"
	}
	for i := range errs {
		if errs[i].Text == text {
			errs[i].Count++
			return errs
		}
	}
	return append(errs, event.ProbeError{FirstSeq: r.Seq, Count: 1, Text: text})
}

// drain takes what the lanes have settled into the live picture and the outbox.
func (s *session) drain() {
	w := s.watch
	for _, l := range w.lanes {
		recs := l.lane.Take(nil)
		if len(recs) == 0 {
			continue
		}
		for _, r := range recs {
			if r.Err != "" {
				l.reason = r.Err
			}
			r.Attempt.Deadline = int64(r.Deadline)
			for _, n := range w.live.Add(l.key, r.Attempt) {
				s.tell(s.noticeOf(n, l.reason))
			}
		}
		l.taken = recs[len(recs)-1].Seq
		s.outbox.add(l.id, verdict.BatchMeta{
			Phase: w.phase.Name, Probe: l.id.probe, Target: l.probe.Target,
			Kind: l.key.Kind, Lane: l.id.lane, Reads: l.probe.Of(), Epoch: l.key.Epoch,
		}, recs)
	}
}

func (s *session) noticeOf(n verdict.Notice, reason string) event.Draft {
	phase, at := s.watch.phase.Name, s.reading(n.At)
	if n.Ended {
		return event.Draft{Type: event.TypeOutageEnded, Data: event.OutageEnded{
			Phase: phase, Probe: n.Lane.Probe, Lane: n.Lane.Name, At: at, Lasted: n.Lasted,
		}}
	}
	return event.Draft{Type: event.TypeOutageStarted, Data: event.OutageStarted{
		Phase: phase, Probe: n.Lane.Probe, Lane: n.Lane.Name, At: at, Error: reason,
	}}
}

// tell queues a live notice.
func (s *session) tell(d event.Draft) { s.outbox.notice(d) }

package observer

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/observer/probe"
)

const (
	// publishEvery is how often attempts are published.
	publishEvery = time.Second
	// maxBatch is how many attempts one event carries.
	maxBatch = 400
	// maxDrafts is how many events are appended at once.
	maxDrafts = 64
	// maxNotices is how many live notices may wait: a lane that flaps faster than
	// they are stored loses some, and the report recomputes them all.
	maxNotices = 32
	// maxErrors is how many distinct error texts one event carries.
	maxErrors = 5
)

// outbox is what was measured and is not in the history yet. Attempts leave it
// when they are seen there, so that neither a lost answer nor a conflict can
// lose or double one.
type outbox struct {
	lanes   []*laneOut
	notices []event.Draft
	dropped int
	// last is when attempts were published; due asks for it out of turn.
	last int64
	due  bool
}

type laneOut struct {
	id   laneID
	meta verdict.BatchMeta
	recs []probe.Record
}

func (o *outbox) notice(d event.Draft) {
	if len(o.notices) >= maxNotices {
		o.dropped++
		return
	}
	o.notices = append(o.notices, d)
}

func (o *outbox) add(id laneID, meta verdict.BatchMeta, recs []probe.Record) {
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
	for _, l := range o.lanes {
		if l.id == id && l.meta.Phase == phase {
			l.recs = slices.DeleteFunc(l.recs, func(r probe.Record) bool { return r.Seq <= upTo })
		}
	}
	o.lanes = slices.DeleteFunc(o.lanes, func(l *laneOut) bool { return len(l.recs) == 0 })
}

// batches packs at most limit events of attempts; all says that nothing is left.
func (o *outbox) batches(limit int, now event.Reading) (out []event.Draft, all bool) {
	for _, l := range o.lanes {
		for rest := l.recs; len(rest) > 0; {
			if len(out) == limit {
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

// flush publishes notices at once and attempts about once a second, or all of
// them when no lane makes any more.
func (s *session) flush(ctx context.Context) {
	now := s.c.Clock.Now()
	due := s.outbox.due || s.watch == nil || now.Mono-s.outbox.last >= int64(publishEvery)
	for {
		drafts := slices.Clone(s.outbox.notices)
		n, all := len(drafts), true
		if due {
			var b []event.Draft
			b, all = s.outbox.batches(maxDrafts-n, now)
			drafts = append(drafts, b...)
		}
		if len(drafts) == 0 || !s.append(ctx, drafts...) {
			return
		}
		s.sent(n, due, now.Mono)
		if all {
			return
		}
	}
}

// answer appends an answer with every attempt that led to it right before it, so
// that whoever reads the answer has them. Where that fails nothing is lost: the
// question still stands at the next tick.
func (s *session) answer(ctx context.Context, answer event.Draft) {
	now := s.c.Clock.Now()
	for {
		drafts := slices.Clone(s.outbox.notices)
		n := len(drafts)
		b, all := s.outbox.batches(maxDrafts-n-1, now)
		drafts = append(drafts, b...)
		if all {
			drafts = append(drafts, answer)
		}
		if !s.append(ctx, drafts...) {
			return
		}
		s.sent(n, true, now.Mono)
		if all {
			return
		}
	}
}

func (s *session) sent(notices int, batches bool, now int64) {
	s.outbox.notices = slices.Delete(s.outbox.notices, 0, notices)
	if batches {
		s.outbox.last, s.outbox.due = now, false
	}
	if s.outbox.dropped > 0 {
		s.log.Warn("live notices were left out, the lanes flap", "count", s.outbox.dropped)
		s.outbox.dropped = 0
	}
}

// abortCommand is what the injector reads from drill.cmd.<drill>.abort.
type abortCommand struct {
	By     string `json:"by"`
	Reason string `json:"reason"`
	Cause  string `json:"cause"`
}

// stopConditions asks for an abort when a probe is down for longer than the
// phase lets pass. Any of its lanes counts: this is a guard rail.
func (s *session) stopConditions(ctx context.Context) {
	w, now := s.watch, s.c.Clock.Now().Mono
	if len(w.phase.Stop) == 0 || s.state.Abort != nil {
		return
	}
	down := w.live.Down()
	for _, c := range w.phase.Stop {
		for k, since := range down {
			if k.Probe != c.Probe || now-since <= int64(c.DownFor) || now < w.stopped[c.Probe] {
				continue
			}
			w.stopped[c.Probe] = now + int64(stopAgain)
			reason := fmt.Sprintf("probe %s (%s) has been down for %v, longer than the stop condition's %v",
				k.Probe, k.Name, time.Duration(now-since).Round(time.Millisecond), c.DownFor)
			s.sendAbort(ctx, reason)
		}
	}
}

// stopAgain is when an abort that has had no effect is asked for again.
const stopAgain = 5 * time.Second

func (s *session) sendAbort(ctx context.Context, reason string) {
	data, err := json.Marshal(abortCommand{By: event.Observer + "/" + s.me, Reason: reason, Cause: "stop-condition"})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, appendTime)
		defer cancel()
		err = s.c.Bus.Command(ctx, s.id, "abort", data)
	}
	if err != nil {
		s.log.ErrorContext(ctx, "the abort that a stop condition asks for was not sent; it is tried again", "reason", reason, "error", err)
		return
	}
	s.log.WarnContext(ctx, "a stop condition asks for an abort", "reason", reason)
}

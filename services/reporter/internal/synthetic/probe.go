package synthetic

import (
	"cmp"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

const (
	deadline = 250 * time.Millisecond
	baseline = 100 * time.Millisecond
	burst    = 10 * time.Millisecond
	fresh    = 200 * time.Millisecond
)

// down is a stretch without service. A hang answers nobody; otherwise attempts
// are refused at once.
type down struct {
	from, to time.Duration
	hang     bool
}

// watch is a phase's probing, from begin to end; it is at burst rate in the
// given stretches.
type watch struct {
	phase      string
	begin, end time.Duration
	bursts     []down
	downs      []down
	epoch      int64
	// late delays every attempt after its schedule, as a starved observer would.
	late time.Duration
	// slow is the stretch in which answers take 40 ms.
	slow down
}

// lanes makes the attempts of the usual three lanes.
func (b *Builder) lanes(w watch) []verdict.Lane {
	write := b.lane(w, "orders-write", "write", "pooled", baseline)
	return []verdict.Lane{
		write,
		b.lane(w, "orders-write", "write", "fresh", fresh),
		b.reads(b.lane(w, "orders-read", "read", "pooled", baseline), write),
	}
}

func (b *Builder) lane(w watch, probe, kind, name string, interval time.Duration) verdict.Lane {
	l := verdict.Lane{Phase: w.phase, Target: "orders", Clock: ClockName, Probe: probe, Kind: kind, Name: name, Epoch: w.epoch, Deadline: int64(deadline)}
	salt := int64(len(probe)*31 + len(name)*17)
	seq := int64(0)
	var pool connections
	for at := w.begin; at < w.end; {
		seq++
		start := at + w.late + time.Duration((seq*104729+salt)%180)*time.Microsecond
		a := b.attempt(w, seq, at, start, salt)
		a.Connected = name == "pooled" && !pool.left(a.Started)
		l.Attempts, pool.pending = append(l.Attempts, a), append(pool.pending, a)
		step := interval
		if name == "pooled" && slices.ContainsFunc(w.bursts, func(d down) bool { return at >= d.from && at < d.to }) {
			step = burst
		}
		at += step
	}
	return l
}

// connections follows whether a pooled lane has a connection left: of an ok attempt that was
// over by then, with no failure since it began.
type connections struct {
	// pending are the attempts that were not over when it was last asked.
	pending []verdict.Attempt
	// dropped is when the last failure was over, opened when the newest ok attempt began.
	dropped, opened int64
}

// left tells whether one is left at t; t never goes back.
func (c *connections) left(t int64) bool {
	c.pending = slices.DeleteFunc(c.pending, func(a verdict.Attempt) bool {
		switch {
		case a.Completed > t:
			return false
		case a.Bad():
			c.dropped = max(c.dropped, a.Completed)
		default:
			c.opened = max(c.opened, a.Started)
		}
		return true
	})
	return c.opened > 0 && c.opened >= c.dropped
}

// attempt meets the service as the truth has it at its start.
func (b *Builder) attempt(w watch, seq int64, at, start time.Duration, salt int64) verdict.Attempt {
	took, outcome := time.Duration(800+(seq*7919+salt)%700)*time.Microsecond, verdict.OK
	if start >= w.slow.from && start < w.slow.to {
		took = 40 * time.Millisecond
	}
	for _, d := range w.downs {
		if start+took/2 < d.from || start+took/2 >= d.to {
			continue
		}
		took, outcome = time.Duration(300+(seq*31+salt)%200)*time.Microsecond, verdict.Failed
		if d.hang {
			took, outcome = deadline, verdict.Unknown
		}
	}
	return verdict.Attempt{Seq: seq, Scheduled: monoBase + int64(at), Started: monoBase + int64(start), Completed: monoBase + int64(start+took), Outcome: outcome}
}

// reads lets a read lane see the newest canary that was acknowledged before.
func (b *Builder) reads(l, of verdict.Lane) verdict.Lane {
	acked := slices.DeleteFunc(slices.Clone(of.Attempts), func(w verdict.Attempt) bool { return w.Outcome != verdict.OK })
	slices.SortFunc(acked, func(x, y verdict.Attempt) int { return cmp.Compare(x.Completed, y.Completed) })
	newest := int64(0)
	for i, a := range l.Attempts {
		for len(acked) > 0 && acked[0].Completed <= a.Started {
			newest, acked = max(newest, acked[0].Seq), acked[1:]
		}
		if a.Outcome == verdict.OK {
			l.Attempts[i].Observed = newest
		}
	}
	return l
}

// publish adds the lanes' batches, one a second, each written when its last
// attempt is over.
func (b *Builder) publish(lanes []verdict.Lane) {
	for _, l := range lanes {
		for from := 0; from < len(l.Attempts); {
			to := from
			for to < len(l.Attempts) && l.Attempts[to].Scheduled < l.Attempts[from].Scheduled+int64(time.Second) {
				to++
			}
			part := l.Attempts[from:to]
			at := time.Duration(part[len(part)-1].Completed-monoBase) + 40*time.Millisecond
			b.Add(at, event.TypeProbeBatch, verdict.NewBatch(verdict.BatchMeta{
				Phase: l.Phase, Probe: l.Probe, Target: l.Target, Kind: l.Kind, Lane: l.Name, Epoch: l.Epoch,
				Clock: b.Reading(at), Deadline: l.Deadline, Errors: batchErrors(part),
			}, part))
			from = to
		}
	}
}

func batchErrors(part []verdict.Attempt) []event.ProbeError {
	var out []event.ProbeError
	for _, a := range part {
		text := ""
		switch a.Outcome {
		case verdict.Failed:
			text = "connection refused"
		case verdict.Unknown:
			text = "no answer within 250ms"
		default:
			continue
		}
		if i := slices.IndexFunc(out, func(e event.ProbeError) bool { return e.Text == text }); i >= 0 {
			out[i].Count++
		} else {
			out = append(out, event.ProbeError{FirstSeq: a.Seq, Count: 1, Text: text})
		}
	}
	return out
}

// held is what the target holds of a lane up to a moment: all that was
// acknowledged, without the last lost acknowledgements before the fault.
func held(l verdict.Lane, upTo, fault time.Duration, lost int) event.LedgerFound {
	out := event.LedgerFound{Probe: l.Probe, Lane: l.Name, Epoch: l.Epoch}
	var before []int64
	for _, a := range l.Attempts {
		if a.Outcome == verdict.OK && a.Completed < monoBase+int64(fault) {
			before = append(before, a.Seq)
		}
	}
	gone := before[max(0, len(before)-lost):]
	for _, a := range l.Attempts {
		if a.Completed > monoBase+int64(upTo) {
			break
		}
		out.UpTo = a.Seq
		if a.Outcome == verdict.OK && !slices.Contains(gone, a.Seq) {
			out.Present.Add(a.Seq)
		}
	}
	return out
}

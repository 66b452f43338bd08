package verdict

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// BatchMeta is what all attempts of a batch share.
type BatchMeta struct {
	Phase  string
	Probe  string
	Target string
	Kind   string
	Lane   string
	// Reads is as in event.ProbeBatch.
	Reads string
	Epoch int64
	// Clock is any reading of the observer's clock: it gives the origin its
	// clock's name and, by the distance on the monotonic clock, its wall time.
	Clock event.Reading
	// Deadline is D in nanoseconds.
	Deadline int64
	Errors   []event.ProbeError
}

const microsecond = int64(time.Microsecond)

// NewBatch packs attempts with consecutive sequence numbers into a batch. What
// comes after a jump in the numbers is left out, which a reader then finds as a
// gap. Starts are rounded down, completions and when they asked up, by less than a
// microsecond each; a schedule time moves down with its start and never above it.
func NewBatch(m BatchMeta, attempts []Attempt) event.ProbeBatch {
	b := event.ProbeBatch{
		Phase: m.Phase, Probe: m.Probe, Target: m.Target, Kind: m.Kind, Lane: m.Lane, Reads: m.Reads, Epoch: m.Epoch,
		DeadlineUS: m.Deadline / microsecond, Errors: m.Errors,
		Origin: event.Reading{Clock: m.Clock.Clock},
	}
	if len(attempts) == 0 {
		return b
	}
	origin := attempts[0].Scheduled
	b.FirstSeq = attempts[0].Seq
	b.Origin.Mono = origin
	b.Origin.Wall = m.Clock.Wall.Add(time.Duration(origin - m.Clock.Mono))
	outcomes := make([]byte, 0, len(attempts))
	var slot int64
	for i, a := range attempts {
		if a.Seq != b.FirstSeq+int64(i) {
			break
		}
		at := floorUS(a.Scheduled - origin)
		late := floorUS(a.Started - origin - at*microsecond)
		took := -floorUS(origin + (at+late)*microsecond - a.Completed)
		b.ScheduledUS = append(b.ScheduledUS, at-slot)
		b.LateUS = append(b.LateUS, late)
		b.TookUS = append(b.TookUS, took)
		var asked int64
		if a.Asked > 0 {
			asked = -floorUS(origin + (at+late)*microsecond - a.Started - a.Asked)
		}
		b.AskedUS = append(b.AskedUS, asked)
		outcomes = append(outcomes, byte(a.Outcome))
		a.Connected = a.Connected && m.Lane == lanePooled && a.Outcome != Unsent
		for _, mark := range marks(&b, &a) {
			if *mark.is {
				*mark.of = append(*mark.of, a.Seq)
			}
		}
		if m.Kind != kindWrite {
			b.ObservedSeq = append(b.ObservedSeq, a.Observed)
		}
		slot = at
	}
	b.Outcomes = string(outcomes)
	if !slices.ContainsFunc(b.AskedUS, func(us int64) bool { return us != 0 }) {
		b.AskedUS = nil
	}
	return b
}

// mark is a list of the attempts of which something is true, and where that stands in
// one of them.
type mark struct {
	name string
	of   *[]int64
	is   *bool
}

func marks(b *event.ProbeBatch, a *Attempt) [2]mark {
	return [2]mark{{"extra", &b.Extra, &a.Extra}, {"connected", &b.Connected, &a.Connected}}
}

// floorUS divides by a microsecond, downwards.
func floorUS(ns int64) int64 {
	q := ns / microsecond
	if ns%microsecond < 0 {
		q--
	}
	return q
}

// BatchError says which batch cannot be used and why.
type BatchError struct {
	Phase, Probe, Lane string
	Epoch, FirstSeq    int64
	Why                string
}

// Error names the batch and what is wrong with it.
func (e *BatchError) Error() string {
	return fmt.Sprintf("probe batch from %d on of lane %s/%s epoch %d in phase %q: %s", e.FirstSeq, e.Probe, e.Lane, e.Epoch, e.Phase, e.Why)
}

// LanesFromBatches unpacks batches, given in any order, into lanes sorted by
// phase, probe, name and epoch: an observer's claim starts lanes of its own. A
// batch that is there twice, word for word, counts once.
//
// The error joins a *BatchError for every batch that is malformed, contradicts
// its lane, overlaps another or leaves a gap behind the one before. The lanes
// then hold what could be read, for people: a measurement made from them is
// INVALID, and its Input should name the error among its Invalidities.
func LanesFromBatches(batches []event.ProbeBatch) ([]Lane, error) {
	type key struct {
		phase, probe, lane string
		epoch              int64
	}
	groups := map[key][]*event.ProbeBatch{}
	var keys []key
	var errs []error
	for i := range batches {
		b := &batches[i]
		if why := malformed(b); why != "" {
			errs = append(errs, batchError(b, "%s", why))
			continue
		}
		k := key{b.Phase, b.Probe, b.Lane, b.Epoch}
		if groups[k] == nil {
			keys = append(keys, k)
		}
		groups[k] = append(groups[k], b)
	}
	slices.SortFunc(keys, func(x, y key) int {
		return cmp.Or(cmp.Compare(x.phase, y.phase), cmp.Compare(x.probe, y.probe), cmp.Compare(x.lane, y.lane), cmp.Compare(x.epoch, y.epoch))
	})
	lanes := make([]Lane, 0, len(keys))
	for _, k := range keys {
		l, err := join(groups[k])
		errs = append(errs, err)
		lanes = append(lanes, l)
	}
	return lanes, errors.Join(errs...)
}

func batchError(b *event.ProbeBatch, format string, args ...any) *BatchError {
	return &BatchError{Phase: b.Phase, Probe: b.Probe, Lane: b.Lane, Epoch: b.Epoch, FirstSeq: b.FirstSeq, Why: fmt.Sprintf(format, args...)}
}

// Bounds of what a batch may hold, so that no sum overflows.
const (
	maxMono  = int64(1) << 62
	maxMicro = int64(1) << 48
	maxSeq   = int64(1) << 60
)

// malformed says what is wrong with a batch by itself, or "".
func malformed(b *event.ProbeBatch) string {
	n := len(b.Outcomes)
	switch {
	case n == 0:
		return "it has no attempts"
	case len(b.ScheduledUS) != n || len(b.LateUS) != n || len(b.TookUS) != n:
		return fmt.Sprintf("its columns have %d, %d, %d and %d rows", len(b.ScheduledUS), len(b.LateUS), len(b.TookUS), n)
	case len(b.AskedUS) != 0 && len(b.AskedUS) != n:
		return fmt.Sprintf("it says of %d attempts when they asked, and has %d", len(b.AskedUS), n)
	case len(b.ObservedSeq) != 0 && len(b.ObservedSeq) != n:
		return fmt.Sprintf("it has %d observed numbers for %d attempts", len(b.ObservedSeq), n)
	case b.FirstSeq < 0 || b.FirstSeq > maxSeq:
		return "its first number is out of range"
	case b.Origin.Mono < -maxMono || b.Origin.Mono > maxMono:
		return "its origin is out of range"
	case b.Origin.Clock == "":
		return "its origin names no clock"
	case b.DeadlineUS < 0 || b.DeadlineUS > maxMicro:
		return "its deadline is out of range"
	}
	for _, mark := range marks(b, &Attempt{}) {
		of := *mark.of
		if !slices.IsSorted(of) || len(of) > 0 && (of[0] < b.FirstSeq || of[len(of)-1]-b.FirstSeq >= int64(n)) {
			return fmt.Sprintf("its %s attempts are not in order, or not all its own", mark.name)
		}
	}
	var slot int64
	for i := range n {
		seq := b.FirstSeq + int64(i)
		switch {
		case b.ScheduledUS[i] < 0 || b.ScheduledUS[i] > maxMicro:
			return fmt.Sprintf("attempt %d: its slot lies before the one before, or too far after it", seq)
		case b.LateUS[i] < -maxMicro || b.LateUS[i] > maxMicro:
			return fmt.Sprintf("attempt %d: its start is out of range", seq)
		case b.TookUS[i] < 0 || b.TookUS[i] > maxMicro:
			return fmt.Sprintf("attempt %d: it completed before it started, or too late", seq)
		case len(b.AskedUS) > 0 && (b.AskedUS[i] < 0 || b.AskedUS[i] > b.TookUS[i]):
			return fmt.Sprintf("attempt %d: it asked before it started, or after it completed", seq)
		}
		if slot += b.ScheduledUS[i]; slot > maxMicro {
			return fmt.Sprintf("attempt %d: its slot is out of range", seq)
		}
		switch Outcome(b.Outcomes[i]) {
		case OK, Failed, Unknown, Skipped, Unsent:
		default:
			return fmt.Sprintf("attempt %d: the outcome %q is none of k, f, u, s, n", seq, b.Outcomes[i:i+1])
		}
	}
	return ""
}

// join makes one lane of its batches.
func join(bs []*event.ProbeBatch) (Lane, error) {
	slices.SortStableFunc(bs, func(x, y *event.ProbeBatch) int { return cmp.Compare(x.FirstSeq, y.FirstSeq) })
	b0 := bs[0]
	l := Lane{Phase: b0.Phase, Target: b0.Target, Clock: b0.Origin.Clock, Probe: b0.Probe, Kind: b0.Kind, Name: b0.Lane, Epoch: b0.Epoch, Reads: b0.Reads}
	var errs []error
	next := b0.FirstSeq
	var last *event.ProbeBatch
	for _, b := range bs {
		switch {
		case last != nil && same(last, b):
			continue
		case b.Target != l.Target || b.Kind != l.Kind || b.Origin.Clock != l.Clock || b.Reads != l.Reads:
			errs = append(errs, batchError(b, "its target, kind, clock or source of reads differs from the lane's"))
			continue
		case b.FirstSeq < next:
			errs = append(errs, batchError(b, "it overlaps the one before, which ends at %d", next-1))
			continue
		case b.FirstSeq > next:
			errs = append(errs, batchError(b, "attempts %d to %d are missing", next, b.FirstSeq-1))
		}
		if n := len(l.Attempts); n > 0 && b.Origin.Mono+b.ScheduledUS[0]*microsecond < l.Attempts[n-1].Scheduled {
			errs = append(errs, batchError(b, "its first slot lies before the last one of the batch before"))
			continue
		}
		l.unpack(b)
		next, last = b.FirstSeq+int64(len(b.Outcomes)), b
	}
	return l, errors.Join(errs...)
}

// same reports whether two batches say the same about the same attempts.
func same(x, y *event.ProbeBatch) bool {
	return x.FirstSeq == y.FirstSeq && x.Outcomes == y.Outcomes && x.Origin.Mono == y.Origin.Mono && x.Origin.Clock == y.Origin.Clock &&
		x.Target == y.Target && x.Kind == y.Kind && x.Reads == y.Reads && x.DeadlineUS == y.DeadlineUS &&
		slices.Equal(x.ScheduledUS, y.ScheduledUS) && slices.Equal(x.LateUS, y.LateUS) &&
		slices.Equal(x.TookUS, y.TookUS) && slices.Equal(x.ObservedSeq, y.ObservedSeq) &&
		slices.Equal(x.Extra, y.Extra) && slices.Equal(x.Connected, y.Connected) && slices.Equal(x.AskedUS, y.AskedUS)
}

// unpack appends a batch's attempts, each with the batch's deadline. The lane's is the
// largest that any batch had.
func (l *Lane) unpack(b *event.ProbeBatch) {
	l.Deadline = max(l.Deadline, b.DeadlineUS*microsecond)
	l.Attempts = slices.Grow(l.Attempts, len(b.Outcomes))
	at := b.Origin.Mono
	for i := range len(b.Outcomes) {
		at += b.ScheduledUS[i] * microsecond
		a := Attempt{Seq: b.FirstSeq + int64(i), Scheduled: at, Deadline: b.DeadlineUS * microsecond, Outcome: Outcome(b.Outcomes[i])}
		a.Started = at + b.LateUS[i]*microsecond
		a.Completed = a.Started + b.TookUS[i]*microsecond
		if len(b.ObservedSeq) > 0 {
			a.Observed = b.ObservedSeq[i]
		}
		if len(b.AskedUS) > 0 {
			a.Asked = b.AskedUS[i] * microsecond
		}
		for _, mark := range marks(b, &a) {
			_, *mark.is = slices.BinarySearch(*mark.of, a.Seq)
		}
		l.Attempts = append(l.Attempts, a)
	}
}

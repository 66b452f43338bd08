package verdict

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"pgregory.net/rapid"
)

func metaOf(kind string) BatchMeta {
	reads := ""
	if kind != kindWrite {
		reads = "writes"
	}
	return BatchMeta{Phase: "p", Probe: "orders", Target: "db", Kind: kind, Lane: lanePooled, Reads: reads, Epoch: 2, Deadline: 250 * ms,
		Clock: event.Reading{Clock: "obs", Mono: 5_000_000_123, Wall: time.Unix(1_700_000_000, 0).UTC()}}
}

// drawAttempts draws a lane's attempts with nanosecond times.
func drawAttempts(t *rapid.T, kind string) []Attempt {
	n := rapid.IntRange(1, 120).Draw(t, "n")
	at := rapid.Int64Range(-1e15, 1e15).Draw(t, "at")
	first := rapid.Int64Range(0, 1e9).Draw(t, "first")
	out := make([]Attempt, n)
	for i := range out {
		at += rapid.Int64Range(0, 300*ms).Draw(t, "step")
		a := Attempt{Seq: first + int64(i), Scheduled: at, Outcome: rapid.SampledFrom([]Outcome{OK, Failed, Unknown, Skipped, Unsent}).Draw(t, "outcome")}
		a.Started = at + rapid.Int64Range(0, 30*ms).Draw(t, "late")
		a.Completed = a.Started + rapid.Int64Range(0, 400*ms).Draw(t, "took")
		if a.Outcome == Skipped {
			a.Started, a.Completed = at, at
		}
		if a.Outcome != Skipped {
			a.Extra, a.Connected = rapid.Bool().Draw(t, "extra"), rapid.Bool().Draw(t, "connected")
			a.Asked = rapid.Int64Range(0, a.Completed-a.Started).Draw(t, "asked")
		}
		if kind != kindWrite {
			a.Observed = rapid.Int64Range(0, 1e9).Draw(t, "observed")
		}
		out[i] = a
	}
	return out
}

// TestBatchRoundTrip: whatever the times and however the run is cut, starts come
// back no later and completions no earlier, by less than a microsecond, through
// JSON too; a second trip changes nothing more.
func TestBatchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]string{kindWrite, "read"}).Draw(t, "kind")
		want := drawAttempts(t, kind)
		trip := func(as []Attempt) Lane {
			var bs []event.ProbeBatch
			for rest := as; len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
				bs = append(bs, NewBatch(metaOf(kind), rest[:n]))
				rest = rest[n:]
			}
			bs = rapid.Permutation(bs).Draw(t, "order")
			raw, err := json.Marshal(append(bs, bs[0]))
			if err != nil {
				t.Fatal(err)
			}
			var back []event.ProbeBatch
			if err := json.Unmarshal(raw, &back); err != nil {
				t.Fatal(err)
			}
			lanes, err := LanesFromBatches(back)
			if err != nil || len(lanes) != 1 {
				t.Fatalf("%d lanes: %v", len(lanes), err)
			}
			return lanes[0]
		}
		lane := trip(want)
		if lane.ID() != "orders/pooled" || lane.Kind != kind || (lane.Reads == "writes") != (kind != kindWrite) || lane.Epoch != 2 || lane.Deadline != 250*ms || lane.Clock != "obs" || lane.Phase != "p" || lane.Target != "db" {
			t.Fatalf("%+v", lane)
		}
		if len(lane.Attempts) != len(want) {
			t.Fatalf("%d attempts of %d", len(lane.Attempts), len(want))
		}
		for i, got := range lane.Attempts {
			w := want[i]
			early := func(what string, g, w int64) {
				if g > w || w-g >= microsecond {
					t.Fatalf("attempt %d: %s %d became %d", w, what, w, g)
				}
			}
			early("schedule", got.Scheduled, w.Scheduled)
			early("start", got.Started, w.Started)
			early("completion", w.Completed, got.Completed)
			if w.Asked > 0 {
				early("asking", w.Started+w.Asked, got.Started+got.Asked)
			}
			if got.Seq != w.Seq || got.Outcome != w.Outcome || got.Observed != w.Observed || got.Extra != w.Extra ||
				got.Connected != (w.Connected && w.Outcome != Unsent) || w.Asked == 0 && got.Asked != 0 {
				t.Fatalf("%+v became %+v", w, got)
			}
		}
	})
}

// TestBatchIsAFixedPoint: what was read from batches is packed into the same.
func TestBatchIsAFixedPoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBatch(metaOf("read"), drawAttempts(t, "read"))
		lanes, err := LanesFromBatches([]event.ProbeBatch{b})
		if err != nil {
			t.Fatal(err)
		}
		if again := NewBatch(metaOf("read"), lanes[0].Attempts); !reflect.DeepEqual(again, b) {
			t.Fatalf("%+v\n%+v", b, again)
		}
	})
}

func TestNewBatchOrigin(t *testing.T) {
	b := NewBatch(metaOf(kindWrite), []Attempt{{Seq: 7, Scheduled: 6_000_000_123, Started: 6_000_000_123, Completed: 6_000_000_124, Outcome: OK}})
	check(t, "mono", b.Origin.Mono, 6_000_000_123)
	check(t, "wall", b.Origin.Wall, time.Unix(1_700_000_001, 0).UTC())
	check(t, "took", b.TookUS, []int64{1})
	check(t, "observed", b.ObservedSeq, nil)
	if b := NewBatch(metaOf(kindWrite), nil); len(b.Outcomes) != 0 {
		t.Fatalf("%+v", b)
	}
	jump := NewBatch(metaOf(kindWrite), []Attempt{{Seq: 7, Outcome: OK}, {Seq: 9, Outcome: OK}})
	check(t, "up to the jump", jump.Outcomes, "k")
}

// TestLanesFromBatchesRefuses spoils good batches in each way that must be told.
func TestLanesFromBatchesRefuses(t *testing.T) {
	good := func() []event.ProbeBatch {
		l := laneOf(t, lanePooled, 10*ms, "30k")
		return []event.ProbeBatch{NewBatch(metaOf(kindWrite), l.Attempts[:10]), NewBatch(metaOf(kindWrite), l.Attempts[10:20]), NewBatch(metaOf(kindWrite), l.Attempts[20:])}
	}
	if lanes, err := LanesFromBatches(good()); err != nil || len(lanes) != 1 || len(lanes[0].Attempts) != 30 {
		t.Fatalf("good batches: %v", err)
	}
	cases := []struct {
		name, why string
		edit      func([]event.ProbeBatch) []event.ProbeBatch
	}{
		{"gap", "attempts 11 to 20 are missing", func(b []event.ProbeBatch) []event.ProbeBatch { return slices.Delete(b, 1, 2) }},
		{"overlap", "overlaps", func(b []event.ProbeBatch) []event.ProbeBatch { b[2].FirstSeq = 15; return b }},
		{"same numbers, other outcome", "overlaps", func(b []event.ProbeBatch) []event.ProbeBatch {
			c := b[1]
			c.Outcomes = "kkkkfkkkkk"
			return append(b, c)
		}},
		{"empty", "no attempts", func(b []event.ProbeBatch) []event.ProbeBatch { b[1] = event.ProbeBatch{}; return b }},
		{"ragged", "columns", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].LateUS = b[1].LateUS[1:]; return b }},
		{"outcome", "none of k, f, u, s", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].Outcomes = "kkkkxkkkkk"; return b }},
		{"observed", "observed", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].ObservedSeq = []int64{1}; return b }},
		{"backwards in a batch", "before the one before", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].ScheduledUS[3] = -1; return b }},
		{"backwards between batches", "before the last one", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].Origin.Mono = 0; return b }},
		{"negative time", "completed before it started", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].TookUS[0] = -1; return b }},
		{"asked before the start", "asked before it started", func(b []event.ProbeBatch) []event.ProbeBatch {
			b[1].AskedUS = make([]int64, len(b[1].Outcomes))
			b[1].AskedUS[2] = -1
			return b
		}},
		{"asked after the end", "asked before it started, or after", func(b []event.ProbeBatch) []event.ProbeBatch {
			b[1].AskedUS = make([]int64, len(b[1].Outcomes))
			b[1].AskedUS[2] = b[1].TookUS[2] + 1
			return b
		}},
		{"ragged asking", "when they asked", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].AskedUS = []int64{1}; return b }},
		{"overflow of a slot", "out of range", func(b []event.ProbeBatch) []event.ProbeBatch {
			b[1].ScheduledUS[1], b[1].ScheduledUS[2] = maxMicro, maxMicro
			return b
		}},
		{"overflow of the origin", "origin is out of range", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].Origin.Mono = math.MaxInt64; return b }},
		{"overflow of the number", "first number", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].FirstSeq = math.MaxInt64; return b }},
		{"late", "its start", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].LateUS[0] = math.MaxInt64; return b }},
		{"no clock", "names no clock", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].Origin.Clock = ""; return b }},
		{"another clock", "differs", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].Origin.Clock = "x"; return b }},
		{"another kind", "differs", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].Kind = "read"; return b }},
		{"another target", "differs", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].Target = "x"; return b }},
		{"deadline", "deadline", func(b []event.ProbeBatch) []event.ProbeBatch { b[1].DeadlineUS = -1; return b }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := LanesFromBatches(c.edit(good()))
			var be *BatchError
			if !errors.As(err, &be) || !strings.Contains(err.Error(), c.why) {
				t.Fatalf("error %v, want one about %q", err, c.why)
			}
		})
	}
}

func TestLanesOfSeveralEpochsAreSeparate(t *testing.T) {
	l := laneOf(t, lanePooled, 10*ms, "30k")
	one, two, other := metaOf(kindWrite), metaOf(kindWrite), metaOf(kindWrite)
	two.Epoch, two.Deadline, other.Lane = 3, 400*ms, "fresh"
	late := two
	late.Deadline = 300 * ms
	lanes, err := LanesFromBatches([]event.ProbeBatch{NewBatch(two, l.Attempts[:9]), NewBatch(one, l.Attempts), NewBatch(other, l.Attempts[:4]), NewBatch(late, l.Attempts[9:12])})
	if err != nil || len(lanes) != 3 {
		t.Fatalf("%d lanes: %v", len(lanes), err)
	}
	check(t, "first", []any{lanes[0].Name, lanes[0].Epoch, len(lanes[0].Attempts)}, []any{"fresh", int64(2), 4})
	check(t, "second", []any{lanes[1].Name, lanes[1].Epoch, len(lanes[1].Attempts)}, []any{lanePooled, int64(2), 30})
	check(t, "third", []any{lanes[2].Name, lanes[2].Epoch, len(lanes[2].Attempts)}, []any{lanePooled, int64(3), 12})
	check(t, "deadline", lanes[2].Deadline, 400*ms)
}

// FuzzLanesFromBatches: no bytes make it panic, and lanes without an error are
// fit to be measured.
func FuzzLanesFromBatches(f *testing.F) {
	l := laneOf(f, lanePooled, 10*ms, "10k 3f 2u 1s 10k")
	for _, bs := range [][]event.ProbeBatch{
		{NewBatch(metaOf(kindWrite), l.Attempts)},
		{NewBatch(metaOf("read"), l.Attempts[10:]), NewBatch(metaOf("read"), l.Attempts[:10])},
		{NewBatch(metaOf(kindWrite), l.Attempts[:5]), NewBatch(metaOf(kindWrite), l.Attempts[8:])},
	} {
		raw, err := json.Marshal(bs)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var bs []event.ProbeBatch
		if json.Unmarshal(raw, &bs) != nil {
			return
		}
		lanes, err := LanesFromBatches(bs)
		from, until := int64(math.MaxInt64), int64(math.MinInt64)
		for i := range lanes {
			if why := badLane(&lanes[i]); err == nil && why != "" {
				t.Fatalf("no error, but %s", why)
			}
			for _, a := range lanes[i].Attempts {
				from, until = min(from, a.Scheduled), max(until, a.Completed)
			}
		}
		in := Input{Lanes: lanes, From: from, Until: until, StableWindow: 1, RTO: 1, Faults: []FaultTime{{F0: from, F1: from, Proven: true}}}
		m := Measure(in)
		if err == nil && len(m.Lanes) != len(lanes) && m.Verdict != Invalid {
			t.Fatalf("%d of %d lanes measured: %+v", len(m.Lanes), len(lanes), m.Judgements)
		}
		checkDowntimeAlone(t, in, m)
	})
}

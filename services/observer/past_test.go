package observer

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// measured is a stored batch of n attempts, one a millisecond from the time at on,
// each of which took took.
func measured(phase, clock string, epoch, first, at int64, n int, took, deadline time.Duration) bus.Stored {
	as := make([]verdict.Attempt, n)
	for i := range as {
		t := at + int64(i)*int64(time.Millisecond)
		as[i] = verdict.Attempt{Seq: first + int64(i), Scheduled: t, Started: t, Completed: t + int64(took), Outcome: verdict.OK}
	}
	b := verdict.NewBatch(verdict.BatchMeta{
		Phase: phase, Probe: "w", Target: "t", Kind: kindWrite, Lane: "pooled", Epoch: epoch,
		Clock: event.Reading{Clock: clock}, Deadline: int64(deadline),
	}, as)
	return bus.Stored{Payload: &b}
}

// TestMeasuredBefore: what counts is what earlier claims measured in this phase on
// this clock, in its order; what cannot be used is named.
func TestMeasuredBefore(t *testing.T) {
	const ms = int64(time.Millisecond)
	untrusted := measured("p", "here", 2, 6, 60*ms, 5, time.Millisecond, time.Second)
	untrusted.Trust = errors.New("the signature is wrong")
	history := []bus.Stored{
		{Payload: &event.PhaseStarted{Phase: "p"}},
		measured("o", "here", 1, 1, 10*ms, 5, time.Millisecond, time.Second),
		measured("p", "here", 1, 6, 20*ms, 5, time.Millisecond, 250*time.Millisecond),
		measured("p", "here", 1, 11, 25*ms, 5, time.Millisecond, 700*time.Millisecond),
		measured("p", "elsewhere", 3, 1, 5*ms, 5, time.Millisecond, time.Minute),
		untrusted,
		measured("p", "here", 2, 1, 50*ms, 5, time.Millisecond, 250*time.Millisecond),
		measured("p", "here", 4, 1, 90*ms, 5, time.Millisecond, time.Minute), // its own
	}
	got, err := measuredBefore(history, "p", 4, "here")
	if err == nil || !strings.Contains(err.Error(), "claim 3 measured by clock elsewhere") || !strings.Contains(err.Error(), "another boot or machine") {
		t.Errorf("the claim on another clock: %v", err)
	}
	l := got[laneID{"w", "pooled"}]
	if len(got) != 1 || len(l.attempts) != 15 || l.deadline != 700*time.Millisecond {
		t.Fatalf("%d lanes, %d attempts, deadline %v", len(got), len(l.attempts), l.deadline)
	}
	for i, a := range l.attempts[1:] {
		if a.Scheduled <= l.attempts[i].Scheduled {
			t.Errorf("attempt %d lies before the one before", i+1)
		}
	}
	if got, err := measuredBefore(history[:4], "p", 1, "here"); err != nil || len(got) != 0 {
		t.Errorf("the first claim has the past %v, error %v", got, err)
	}
}

// TestResumedLaneHasALimit: with the earlier attempts the slow service is not stable;
// without them it is, and the deadline is the probe's.
func TestResumedLaneHasALimit(t *testing.T) {
	const ms = int64(time.Millisecond)
	history := []bus.Stored{measured("p", "here", 1, 1, 1000*ms, 500, time.Millisecond, 700*time.Millisecond)}
	known, err := measuredBefore(history, "p", 2, "here")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		past     past
		stable   bool
		deadline time.Duration
	}{"known": {known, false, 700 * time.Millisecond}, "unknown": {nil, true, 250 * time.Millisecond}} {
		w := &watch{live: verdict.NewLive(), past: c.past}
		l := &watched{
			id: laneID{"w", "pooled"}, first: 1, probe: drill.Probe{Deadline: event.Duration(250 * time.Millisecond)},
			key: verdict.LaneKey{Probe: "w", Kind: kindWrite, Name: "pooled", Epoch: 2},
		}
		if d := w.resume(l); d != c.deadline {
			t.Errorf("%s: the deadline is %v, want %v", name, d, c.deadline)
		}
		opened := 3000 * ms
		for i := range int64(1000) {
			at := opened + i*ms
			w.live.Add(l.key, verdict.Attempt{Seq: 1 + i, Scheduled: at, Started: at, Completed: at + 50*ms, Outcome: verdict.OK})
		}
		q := verdict.StableQuery{From: w.baseFrom, FirstFault: 1500 * ms, Since: opened, Window: 500 * ms}
		if got := w.live.Stable(q); got.Stable != c.stable {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

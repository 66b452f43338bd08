package fold_test

import (
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/reporter/fold"
	"github.com/firedrill/firedrill/services/reporter/internal/synthetic"
)

// TestWhatNobodyWatchedMayHaveBeenDowntime: an outage that lies wholly between two
// observers is within every downtime that the report tells.
func TestWhatNobodyWatchedMayHaveBeenDowntime(t *testing.T) {
	const down, hidden = 2306 * time.Millisecond, 120 * time.Millisecond
	r := mustFold(t, kill(func(p *synthetic.Phase) {
		p.ReclaimAt, p.Unwatched, p.Flap = 10*time.Second, 6*time.Second, 6*time.Second
	}))
	p, lanes := r.Phases[0], map[string][2]int64{}
	if !p.Downtime.Contains(int64(down+hidden)) || p.Downtime.Open || p.Downtime.Hi > int64(10*time.Second) {
		t.Errorf("downtime %s, was %v", fold.ShowFigure(p.Downtime), down+hidden)
	}
	for _, l := range p.Availability {
		sum := lanes[l.Probe+l.Lane]
		lanes[l.Probe+l.Lane] = [2]int64{sum[0] + l.Downtime.Lo, sum[1] + l.Downtime.Hi}
	}
	for lane, sum := range lanes {
		if sum[0] > int64(down+hidden) || sum[1] < int64(down+hidden) {
			t.Errorf("lane %s: %v to %v over its rows, was %v", lane, time.Duration(sum[0]), time.Duration(sum[1]), down+hidden)
		}
	}
	const cost = "Its users were without service for 2.55 s – 9.02 s" // with 280 ms of the failback
	if s := strings.Join(r.Summary, " "); !strings.Contains(s, cost) || !strings.Contains(s, "; the upper end holds the time in which nobody watched.") {
		t.Error(s)
	}
}

// TestAWayBackThatNobodyWatched: the same after the measured window, in the only row that
// the lane has.
func TestAWayBackThatNobodyWatched(t *testing.T) {
	const hidden = 280 * time.Millisecond
	p := mustFold(t, kill(func(p *synthetic.Phase) { p.ReclaimAt, p.Unwatched = 11*time.Second, 1200*time.Millisecond })).Phases[0]
	if b := p.Failback; b == nil || !b.Downtime.Contains(int64(hidden)) || !strings.Contains(b.Text(), "no attempt failed, but a part of it nobody watched: over all lanes the service was down for 0 s – ") {
		t.Fatalf("%+v", p.Failback)
	}
	for _, l := range p.Availability {
		if !l.After.Known || !l.After.Contains(int64(hidden)) {
			t.Errorf("%s/%s: %s after the window, was %v", l.Probe, l.Lane, fold.ShowFigure(l.After), hidden)
		}
	}
	// Half of the outage was seen: it may have been longer.
	p = mustFold(t, kill(func(p *synthetic.Phase) { p.ReclaimAt, p.Unwatched = 10300*time.Millisecond, 800*time.Millisecond })).Phases[0]
	if b := p.Failback; b == nil || b.Longest == nil || !b.Longest.Contains(int64(hidden)) || b.Longest.Hi < int64(800*time.Millisecond) {
		t.Errorf("%+v", p.Failback)
	}
	// Nobody came back before the phase's end, 6.5 s later.
	p = mustFold(t, kill(func(p *synthetic.Phase) { p.ReclaimAt, p.Unwatched = 17480*time.Millisecond, 6500*time.Millisecond })).Phases[0]
	if b := p.Failback; b == nil || !b.Downtime.Contains(int64(hidden)) || b.Downtime.Hi < int64(hidden+6500*time.Millisecond) {
		t.Errorf("%+v", p.Failback)
	}
	for _, l := range mustFold(t, kill(nil)).Phases[0].Availability {
		if l.After.Hi > int64(hidden+410*time.Millisecond) {
			t.Errorf("one observer, %s/%s: %s", l.Probe, l.Lane, fold.ShowFigure(l.After))
		}
	}
}

// TestTheLongestOutageIsNoDowntime where attempts succeeded within it.
func TestTheLongestOutageIsNoDowntime(t *testing.T) {
	b := fold.Failback{Outages: 1, Lane: "writes/pooled", Longest: interval(391, 681), Downtime: *interval(0, 697)}
	if got := b.Text(); !strings.Contains(got, "took 391 ms – 681 ms from its first failure to its end") || !strings.Contains(got, "may have let attempts through in between; without service, over all lanes, it was for 0 s – 697 ms.") {
		t.Error(got)
	}
	b.Downtime.Lo = b.Longest.Lo
	if got := b.Text(); strings.Contains(got, "let attempts through") || !strings.Contains(got, "took 391 ms – 681 ms (writes/pooled), and over all lanes the service was down for 391 ms – 697 ms.") {
		t.Error(got)
	}
}

// interval is one of milliseconds.
func interval(lo, hi int64) *event.Interval {
	return &event.Interval{Lo: lo * int64(time.Millisecond), Hi: hi * int64(time.Millisecond)}
}

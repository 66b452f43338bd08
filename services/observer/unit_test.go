package observer

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/observer/probe"
)

// However the delays of both ways lie, the true offset is inside the bounds.
func TestCompareClocksHoldsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		truth := rapid.Int64Range(-1e15, 1e15).Draw(t, "offset")
		now := int64(1e12)
		var samples []sample
		for range rapid.IntRange(1, 8).Draw(t, "trips") {
			out := rapid.Int64Range(0, 1e9).Draw(t, "out")
			back := rapid.Int64Range(0, 1e9).Draw(t, "back")
			samples = append(samples, sample{sent: now, got: now + out + back, other: event.Reading{Clock: "b", Mono: now + out + truth}})
			now += out + back + 1
		}
		c, err := compareClocks("a", "b", samples)
		if err != nil {
			t.Fatal(err)
		}
		if d := int64(c.Offset) - truth; d > int64(c.Error) || -d > int64(c.Error) {
			t.Fatalf("offset %d ± %d, the truth is %d", c.Offset, c.Error, truth)
		}
	})
}

func TestCompareClocksNeedsTheClock(t *testing.T) {
	_, err := compareClocks("a", "b", []sample{{sent: 1, got: 2, other: event.Reading{Clock: "c", Mono: 1}}})
	if !errors.Is(err, errNoSample) {
		t.Fatalf("got %v: an instance that restarted elsewhere was taken for the old one", err)
	}
}

func TestWants(t *testing.T) {
	const silence, opening = 5 * time.Second, 30 * time.Second
	at := func(s int) int64 { return int64(s) * int64(time.Second) }
	cases := map[string]struct {
		c    claim
		open bool
		now  int
		want bool
	}{
		"nobody":                          {claim{}, false, 100, true},
		"mine":                            {claim{holder: "a", epoch: 2, own: 2}, true, 1000, false},
		"an earlier life of mine":         {claim{holder: "a", epoch: 2, restarted: true}, false, 0, true},
		"lost to another after a restart": {claim{holder: "b", epoch: 4, own: 3, restarted: true, heard: at(99), heardBatch: true}, true, 100, false},
		"alive":                           {claim{holder: "b", epoch: 1, heard: at(96), heardBatch: true}, true, 100, false},
		"silent":                          {claim{holder: "b", epoch: 1, heard: at(94), heardBatch: true}, true, 100, true},
		"silent between phases":           {claim{holder: "b", epoch: 1, heard: at(10), heardBatch: true}, false, 100, false},
		"opening its lanes":               {claim{holder: "b", epoch: 1, heard: at(10), started: at(80)}, true, 100, false},
		"never opened its lanes":          {claim{holder: "b", epoch: 1, heard: at(10), started: at(69)}, true, 100, true},
		"mine, and the answer was lost":   {claim{me: "a", holder: "a", epoch: 2, asked: 2, heard: at(99)}, true, 100, true},
		"that, after an earlier one":      {claim{me: "a", holder: "a", epoch: 3, own: 1, asked: 3, heard: at(99)}, true, 100, true},
		"another was quicker":             {claim{me: "a", holder: "b", epoch: 2, asked: 2, heard: at(99)}, true, 100, false},
		"a namesake's":                    {claim{me: "a", holder: "a", epoch: 3, own: 2, asked: 2, heard: at(99)}, true, 100, false},
	}
	for name, c := range cases {
		if got := c.c.wants(c.open, at(c.now), silence, opening); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Who gives a claim up to make it anew, or comes back, leaves the drill to one who took
// it meanwhile.
func TestAHealthyObserverKeepsTheDrill(t *testing.T) {
	for name, c := range map[string]claim{
		"renewed":   {me: "a", holder: "a", epoch: 2, own: 2},
		"restarted": {me: "a", holder: "a", epoch: 2},
	} {
		if c.own != 0 {
			c.renew()
		} else {
			c.atStart()
		}
		if !c.wants(true, 0, time.Second, time.Second) {
			t.Errorf("%s: the claim is not made anew", name)
		}
		c.set(&event.ObserverClaimed{Instance: "b", Epoch: 3})
		if c.wants(true, 0, time.Second, time.Second) {
			t.Errorf("%s: the drill is taken from one who has just claimed it", name)
		}
	}
}

// TestALostClaimLeavesNothing: no watch is left when more waited than may be held, yet
// what waits must not be published by a later claim.
func TestALostClaimLeavesNothing(t *testing.T) {
	s := &session{log: slog.New(slog.DiscardHandler), claim: claim{me: "a", holder: "b", epoch: 2, own: 1}, giveWay: true}
	s.outbox.add(laneID{"w", "pooled"}, verdict.BatchMeta{Phase: "p"}, records(1, 10, time.Second))
	s.outbox.notice(event.Draft{Type: event.TypeOutageStarted})
	s.step(t.Context())
	if !s.outbox.empty() || s.giveWay {
		t.Fatalf("%d attempts and %d notices wait, making way: %v", s.outbox.held, len(s.outbox.notices), s.giveWay)
	}
}

// TestAnAnswerGoesAlong: however many lanes a phase has, one append takes a batch of
// each, the notices and the answer.
func TestAnAnswerGoesAlong(t *testing.T) {
	var s session
	for i := range 200 {
		s.outbox.add(laneID{fmt.Sprint("w", i), "pooled"}, verdict.BatchMeta{Phase: "p"}, records(1, 10, time.Second))
	}
	for range maxNotices {
		s.tell(event.Draft{Type: event.TypeOutageStarted})
	}
	if drafts, all := s.waiting(maxDrafts-1, true, event.Reading{}); !all || len(drafts) != 200+maxNotices {
		t.Errorf("%d events, all of them: %v", len(drafts), all)
	}
}

// TestASteadyStateThatIsLate: an answer that could not be stored is not overtaken by
// a window that begins after the time was up.
func TestASteadyStateThatIsLate(t *testing.T) {
	const ms, asked = int64(time.Millisecond), int64(time.Second)
	w := &watch{live: verdict.NewLive(), phase: drill.Phase{SteadyState: drill.SteadyState{
		Window: event.Duration(100 * ms), Timeout: event.Duration(200 * ms), MinAvailability: 100,
	}}}
	k := verdict.LaneKey{Probe: "w", Kind: kindWrite, Name: "pooled", Epoch: 1}
	w.live.Open(k, 1, 50*ms)
	for i := range int64(1000) {
		at, outcome := asked+i*ms, verdict.OK
		if i == 50 || i == 230 {
			outcome = verdict.Failed
		}
		w.live.Add(k, verdict.Attempt{Seq: 1 + i, Scheduled: at, Started: at, Completed: at + ms, Outcome: outcome})
	}
	w.steady = &steadyTask{step: "s", asked: asked, reasons: []string{"none"}}
	s := &session{c: Config{Clock: fixed(asked + 800*ms)}, watch: w}
	violations := 0
	for range 40 {
		d, told := s.judgeSteady("s", drill.After, event.Reading{})
		if told && d.Type == event.TypeSteadyEstablished {
			t.Fatalf("established by a window that begins %v after the question, after %d violations", time.Duration(w.steady.from-asked), violations)
		}
		if told {
			violations++
		}
	}
	if violations == 0 {
		t.Fatal("nothing is said though the time is up")
	}
}

// fixed is a clock that stands still.
type fixed int64

func (f fixed) Now() event.Reading { return event.Reading{Clock: "here", Mono: int64(f)} }

// records are n attempts from first on; every third failed with one of many texts.
func records(first int64, n int, d time.Duration) []probe.Record {
	out := make([]probe.Record, n)
	for i := range out {
		seq := first + int64(i)
		out[i] = probe.Record{Deadline: d, Attempt: verdict.Attempt{
			Seq: seq, Scheduled: seq * 1000, Started: seq*1000 + 1, Completed: seq*1000 + 500, Outcome: verdict.OK,
		}}
		if i%3 == 0 {
			out[i].Outcome, out[i].Err = verdict.Failed, fmt.Sprint("error ", i%30)
		}
	}
	return out
}

// What is published leaves the outbox only when it is seen in the history, each
// attempt exactly once, whatever part of it was stored.
func TestOutboxLosesAndDoublesNothing(t *testing.T) {
	var o outbox
	id := laneID{"w", "pooled"}
	meta := verdict.BatchMeta{Phase: "p", Probe: "w", Lane: "pooled", Kind: "write", Epoch: 1}
	o.add(id, meta, records(1, 1000, time.Second))
	o.add(id, meta, records(1001, 500, 2*time.Second)) // a raised deadline begins a new batch
	var all []event.ProbeBatch
	for range 20 {
		drafts, _ := o.batches(1, event.Reading{Clock: "a"})
		if len(drafts) == 0 {
			break
		}
		again, _ := o.batches(1, event.Reading{Clock: "a"}) // an append that failed is repeated
		b, c := drafts[0].Data.(event.ProbeBatch), again[0].Data.(event.ProbeBatch)
		if b.FirstSeq != c.FirstSeq || b.Outcomes != c.Outcomes {
			t.Fatal("a batch that was not stored changed")
		}
		if len(b.Outcomes) > maxBatch || len(b.Errors) > maxErrors+1 {
			t.Fatalf("a batch of %d attempts and %d error texts", len(b.Outcomes), len(b.Errors))
		}
		all = append(all, b)
		o.published("p", id, b.FirstSeq+int64(len(b.Outcomes))-1)
	}
	lanes, err := verdict.LanesFromBatches(all)
	if err != nil || len(lanes) != 1 || len(lanes[0].Attempts) != 1500 {
		t.Fatalf("%d lanes, error %v", len(lanes), err)
	}
	if len(o.lanes) != 0 {
		t.Fatal("published attempts are kept")
	}
}

func TestNoticesAreBounded(t *testing.T) {
	var o outbox
	for range 10 * maxNotices {
		o.notice(event.Draft{})
	}
	if len(o.notices) != maxNotices || o.dropped != 9*maxNotices {
		t.Fatalf("%d notices, %d dropped", len(o.notices), o.dropped)
	}
	o.notice(event.Draft{Type: event.TypeClockCompared})
	if len(o.notices) != maxNotices+1 || o.dropped != 9*maxNotices {
		t.Fatalf("%d notices, %d dropped: no report can recompute how two clocks compare", len(o.notices), o.dropped)
	}
}

// What is cleaned up before a drill: others at the same target.
func TestSameTarget(t *testing.T) {
	at := func(name, driver string) drill.Drill {
		return drill.Drill{Spec: drill.Spec{
			Targets: []drill.Target{{Name: name, Driver: driver}, {Name: "bystander", Driver: driver}},
			Phases:  []drill.Phase{{Name: "p", Probes: []drill.Probe{{Name: "w", Target: name}}}},
		}}
	}
	for name, c := range map[string]struct {
		other  drill.Drill
		target string
		same   bool
	}{
		"the same":          {at("db", "postgres"), "db", true},
		"elsewhere":         {at("cache", "postgres"), "db", false},
		"by another driver": {at("db", "redis"), "db", false},
		"there, not probed": {at("db", "postgres"), "bystander", false},
	} {
		if got := sameTarget(c.other, at("db", "postgres"), c.target); got != c.same {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, ok := definitionOf(bus.Stored{}); ok {
		t.Error("there is a definition of a drill that cannot be read")
	}
}

// TestOnTime: with as many threads as cores, and slices like any other's, attempts are
// late by the time slices of whatever else runs. What is not watched pays nothing for it.
func TestOnTime(t *testing.T) {
	if set := os.Getenv("GOMAXPROCS"); set != "" {
		t.Fatalf("GOMAXPROCS is set to %s: run the tests without", set)
	}
	before := runtime.GOMAXPROCS(0)
	var p punctual
	var wg sync.WaitGroup
	kept := make([]func(), 8)
	for i := range kept {
		wg.Go(func() { kept[i] = p.keep() })
	}
	wg.Wait()
	if n := runtime.GOMAXPROCS(0); n < minProcs {
		t.Errorf("%d threads may run Go code while drills are watched", n)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	got, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	asked := *got
	asked.Runtime = uint64(timeSlice)
	if err := unix.SchedSetAttr(0, &asked, 0); err != nil {
		t.Fatal(err)
	}
	want, err := unix.SchedGetAttr(0, 0) // a kernel may take no notice
	if err != nil {
		t.Fatal(err)
	}
	if got.Runtime != want.Runtime {
		t.Errorf("a thread asks for slices of %d ns, not %d", got.Runtime, want.Runtime)
	}
	for _, release := range kept[1:] {
		wg.Go(release)
		wg.Go(release) // counts once
	}
	wg.Wait()
	if n := runtime.GOMAXPROCS(0); n < minProcs {
		t.Errorf("%d threads may run Go code while one drill is still watched", n)
	}
	kept[0]()
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("%d threads may run Go code when nothing is watched any more, want %d", n, before)
	}
	p.keep()()
	if n := runtime.GOMAXPROCS(0); n != before || p.raised {
		t.Errorf("%d threads may run Go code after a second time, want %d", n, before)
	}
}

// TestAppendsShrinkOnConflict: what waits grows with each append that something
// overtook. One that took ever more would be overtaken for ever by a conductor that
// renews its lease meanwhile.
func TestAppendsShrinkOnConflict(t *testing.T) {
	s := &session{}
	for range 3 {
		s.outbox.add(laneID{probe: "p", lane: "pooled"}, verdict.BatchMeta{}, make([]probe.Record, 100*maxBatch))
	}
	ends := func(err error) int {
		drafts, _ := s.waiting(s.mayTake(), true, event.Reading{})
		s.writing = &writing{events: len(drafts)}
		s.endAppend(t.Context(), written{err: err})
		return len(drafts)
	}
	var took []int
	for range 11 {
		took = append(took, ends(&bus.ConflictError{}))
	}
	for range 3 {
		took = append(took, ends(nil))
	}
	if want := []int{300, 150, 75, 37, 18, 9, 4, 2, 1, 1, 1, 1, 2, 4}; !slices.Equal(took, want) {
		t.Errorf("events per append %v, want %v", took, want)
	}
}

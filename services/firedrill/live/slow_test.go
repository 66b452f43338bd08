package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// story plays a drill of one phase to a view.
type story struct {
	t     *testing.T
	out   strings.Builder
	view  *View
	now   time.Duration
	seq   int64
	index int32
}

const (
	every  = 100 * time.Millisecond
	window = 2 * time.Second
	quick  = 5 * time.Millisecond
	slow   = 90 * time.Millisecond
)

// begin plays a drill up to its fault, after five seconds of quick answers.
func begin(t *testing.T, fault drill.Fault) *story {
	s := &story{t: t}
	s.view = New(&s.out, false)
	fault.Name = "f"
	spec, err := json.Marshal(drill.Drill{Spec: drill.Spec{Phases: []drill.Phase{{
		Name: "p", Faults: []drill.Fault{fault}, Stable: drill.Stable{Window: event.Duration(window)},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	s.say(event.Injector, event.TypeDrillAccepted, event.DrillAccepted{Spec: spec})
	s.say(event.Observer, event.TypeObserverClaimed, event.ObserverClaimed{Instance: "o", Epoch: 1})
	s.say(event.Injector, event.TypePhaseStarted, event.PhaseStarted{Phase: "p"})
	s.attempts(5*time.Second, verdict.OK, quick)
	s.say(event.Observer, event.TypeSteadyEstablished, event.SteadyEstablished{Step: "p/steady/before"})
	s.say(event.Injector, event.TypeFaultIntended, event.FaultIntended{Effect: event.Effect{Step: "p/fault/f", Undo: json.RawMessage(`{}`)}})
	s.say(event.Injector, event.TypeFaultInjected, event.FaultInjected{Step: "p/fault/f", F0: s.reading(), F1: s.reading(), Proof: event.Proof{Proven: true}})
	return s
}

func (s *story) reading() event.Reading {
	return event.Reading{Clock: "c", Mono: int64(s.now), Wall: time.Unix(1000, 0).Add(s.now)}
}

func (s *story) say(service string, kind event.Type, data any) {
	s.t.Helper()
	s.index++
	e, err := event.Compose(event.Draft{Type: kind, Data: data}, event.Origin{
		ID: fmt.Sprint(s.index), Service: service, Instance: "x", Drill: "d-1", At: s.reading(), Index: s.index, PrevHash: event.NoHash,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := event.Decode(e)
	if err != nil {
		s.t.Fatal(err)
	}
	s.view.Event(bus.Stored{Seq: uint64(s.index), Event: e, Payload: p})
}

// attempts plays a time of attempts that all end alike, a second in a batch.
func (s *story) attempts(lasting time.Duration, outcome verdict.Outcome, took time.Duration) {
	s.t.Helper()
	for end := s.now + lasting; s.now < end; {
		var as []verdict.Attempt
		for len(as) < int(time.Second/every) {
			s.seq++
			at := int64(s.now)
			as = append(as, verdict.Attempt{Seq: s.seq, Scheduled: at, Started: at, Completed: at + int64(took), Outcome: outcome})
			s.now += every
		}
		s.say(event.Observer, event.TypeProbeBatch, verdict.NewBatch(verdict.BatchMeta{
			Phase: "p", Probe: "w", Target: "t", Kind: "write", Lane: "pooled", Epoch: 1, Clock: s.reading(), Deadline: int64(250 * time.Millisecond),
		}, as))
	}
}

// lines are what was printed since the fault, without times.
func (s *story) lines() []string {
	var out []string
	for line := range strings.Lines(s.out.String()) {
		_, text, _ := strings.Cut(strings.TrimSpace(line), "s  ")
		out = append(out, text)
	}
	i := slices.IndexFunc(out, func(l string) bool { return strings.HasPrefix(l, "fault took effect") })
	return out[i+1:]
}

func (s *story) want(prefixes ...string) {
	s.t.Helper()
	got := s.lines()
	if !slices.EqualFunc(got, prefixes, strings.HasPrefix) {
		s.t.Fatalf("lines since the fault:\n%s\nwant lines that begin:\n%s", strings.Join(got, "\n"), strings.Join(prefixes, "\n"))
	}
}

const saysSlow = "w/pooled answers, but is slow, so not stable yet: p95 over 2s is above "

func TestSlownessIsSaidOnceAndItsEnd(t *testing.T) {
	s := begin(t, drill.Fault{})
	s.attempts(time.Second, verdict.Failed, quick)
	s.want()
	s.attempts(6*time.Second, verdict.OK, slow)
	s.want(saysSlow)
	s.attempts(3*time.Second, verdict.OK, quick)
	s.say(event.Observer, event.TypeRecoveryStable, event.RecoveryStable{Step: "p/settle", At: s.reading()})
	s.want(saysSlow, "w/pooled is no longer slow, after ", "the system is stable")
}

// A slow stretch ends with the recovery at the latest, also where the batch that
// shows it is not there yet.
func TestRecoveryEndsSlowness(t *testing.T) {
	s := begin(t, drill.Fault{})
	s.attempts(6*time.Second, verdict.OK, slow)
	s.say(event.Observer, event.TypeRecoveryStable, event.RecoveryStable{Step: "p/settle", At: s.reading()})
	s.want(saysSlow, "w/pooled is no longer slow, after ", "the system is stable")
}

func TestSlownessThatEndsOtherwise(t *testing.T) {
	t.Run("the lane fails again", func(t *testing.T) {
		s := begin(t, drill.Fault{})
		s.attempts(4*time.Second, verdict.OK, slow)
		s.attempts(time.Second, verdict.Failed, quick)
		s.want(saysSlow)
		s.attempts(4*time.Second, verdict.OK, slow)
		s.want(saysSlow, saysSlow)
	})
	t.Run("no recovery in time", func(t *testing.T) {
		s := begin(t, drill.Fault{})
		s.attempts(4*time.Second, verdict.OK, slow)
		s.say(event.Observer, event.TypeRecoveryMissing, event.RecoveryMissing{Step: "p/settle", Reasons: []string{"slow"}})
		s.attempts(5*time.Second, verdict.OK, quick)
		s.want(saysSlow, "NO recovery within ")
	})
	t.Run("an abort", func(t *testing.T) {
		s := begin(t, drill.Fault{})
		s.attempts(4*time.Second, verdict.OK, slow)
		s.say(event.Injector, event.TypeAbortRequested, event.AbortRequested{By: "me"})
		s.attempts(5*time.Second, verdict.OK, quick)
		s.want(saysSlow, "ABORT by me")
	})
}

// While a fault that slows things down still lasts, slowness is what it is for.
func TestHeldFaultIsNoSlowness(t *testing.T) {
	s := begin(t, drill.Fault{Hold: event.Duration(time.Minute)})
	s.attempts(6*time.Second, verdict.OK, slow)
	s.want()
}

func TestSlowLaneIsDrawn(t *testing.T) {
	s := begin(t, drill.Fault{})
	s.view.fancy = true
	s.attempts(4*time.Second, verdict.OK, slow)
	if !strings.HasSuffix(s.out.String(), " up, slow\n") {
		t.Fatalf("the lane's last line is not marked as slow:\n%s", s.out.String())
	}
}

func TestUntrustedEventsChangeNothing(t *testing.T) {
	s := begin(t, drill.Fault{})
	before := s.out.Len()
	s.view.Event(bus.Stored{Event: event.Event{Type: event.TypeDrillFinished, ChainIndex: 99}, Trust: errors.New("signed by nobody")})
	if s.view.State().Index == 99 || s.out.Len() != before {
		t.Fatalf("an event that nobody signed was folded: %+v", s.view.State())
	}
}

func TestCheckOfFigures(t *testing.T) {
	judged := event.Property{Name: "lost", Result: event.ResultPass, Found: "0 of 10"}
	info := event.Property{Name: "wal", Result: event.ResultInfo, Found: "3 commits"}
	for want, props := range map[string][]event.Property{
		"check c: lost pass (0 of 10)": {info, judged},
		"check c: wal (3 commits)":     {info},
		"":                             nil,
	} {
		if got := Describe(drill.State{}, bus.Stored{Payload: &event.CheckCompleted{Check: "c", Properties: props}}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestLongErrorsAreCut to what they come down to: a line of a terminal has no room
// for how the driver wraps them.
func TestLongErrorsAreCut(t *testing.T) {
	const long = "service 127.0.0.1:1 as app: connect to 127.0.0.1:1, database app: failed to connect to `user=app database=app`: 127.0.0.1:1 (127.0.0.1): dial error: dial tcp 127.0.0.1:1: connect: connection refused"
	for want, error := range map[string]string{
		"outage on w/fresh: connection refused":                       long,
		"outage on w/fresh: too slow":                                 "too slow",
		"outage on w/fresh: " + strings.Repeat("words and ", 8) + "…": strings.Repeat("words and ", 90),
	} {
		if got := Describe(drill.State{}, bus.Stored{Payload: &event.OutageStarted{Probe: "w", Lane: "fresh", Error: error}}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestOneIsNotMany(t *testing.T) {
	for want, payload := range map[string]any{
		"planned: 1 step on targets, blast radius 1": &event.DrillPlanned{Steps: make([]event.PlannedStep, 1), BlastRadius: 1},
		"kept 1 file, 12 bytes (full verified)":      &event.MirrorCompleted{Files: 1, Bytes: 12, Verified: "full"},
	} {
		if got := Describe(drill.State{}, bus.Stored{Payload: payload}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestAHaltIsSaidOnce: its reason begins by saying that it is one.
func TestAHaltIsSaidOnce(t *testing.T) {
	for want, p := range map[string]event.AbortRequested{
		"ABORT: all drills are halted by ada: the disks are full": {By: "ada", Cause: drill.CauseHalt, Reason: "halted: the disks are full"},
		"ABORT by ada: halted: as she says":                       {By: "ada", Cause: drill.CauseOperator, Reason: "halted: as she says"},
	} {
		if got := Describe(drill.State{}, bus.Stored{Payload: &p}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestWhatWasLetGoIsNotSaidToBePutBack: the end of a settlement that undid nothing.
func TestWhatWasLetGoIsNotSaidToBePutBack(t *testing.T) {
	end := bus.Stored{Payload: &event.DrillFinished{Complete: true}}
	for want, st := range map[string]drill.State{
		"finished: everything is put back":                        {},
		"finished: let go on ada's word: NOT undone by firedrill": {Requester: "ada", Waives: "by hand"},
	} {
		if got := Describe(st, end); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

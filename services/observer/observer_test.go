package observer_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/verdict"
	"github.com/firedrill/firedrill/services/observer"
)

// TestDrill follows one drill from its first event to the clean-up.
func TestDrill(t *testing.T) {
	r := newRig(t)
	r.observe("o1")
	p := r.accept("d-1", aPhase())
	if c := await[event.ObserverClaimed](p, "claim", nil); c.Instance != "o1" || c.Epoch != 1 {
		t.Fatalf("claim %+v", c)
	}
	p.begin()
	p.hit(refuse)
	out := await[event.OutageStarted](p, "outage.started", nil)
	if out.Error != "connection refused" || out.Phase != phaseName {
		t.Fatalf("%+v", out)
	}
	p.mend()
	await[event.OutageEnded](p, "outage.ended", nil)
	stable := await[event.RecoveryStable](p, "recovery.stable", nil)
	if stable.NeverFailed || stable.Step != step(drill.StepSettle, "") {
		t.Fatalf("%+v", stable)
	}
	first := p.cut(drill.Recovered)
	checkCut(t, p, first)
	p.askSteady(drill.After)
	second := p.cut(drill.Restored)
	checkCut(t, p, second)
	for i := range first.Lanes {
		if second.Lanes[i].UpTo <= first.Lanes[i].UpTo {
			t.Fatalf("the second cut %+v is not after the first %+v", second.Lanes[i], first.Lanes[i])
		}
	}
	p.finish()
	// The last attempts follow the end of the phase; then the lanes are silent.
	eventually(t, "the last batches", func() bool { return complete(p.lanes(), r.fake) })
	p.publish()
	eventually(t, "the clean-up", func() bool {
		r.fake.mu.Lock()
		defer r.fake.mu.Unlock()
		return slices.Equal(r.fake.dropped, []string{"d-1", "d-1"}) && r.fake.opens == r.fake.closes
	})
	began := map[string]int{}
	for _, s := range p.history() {
		if o, ok := s.Payload.(*event.OutageStarted); ok {
			if began[o.Probe+"/"+o.Lane]++; began[o.Probe+"/"+o.Lane] > 1 {
				t.Errorf("the one outage of %s/%s is told again", o.Probe, o.Lane)
			}
		}
	}
	checkRates(t, p)
	for _, s := range p.history() {
		if s.Trust != nil {
			t.Fatalf("event %d: %v", s.Event.ChainIndex, s.Trust)
		}
	}
}

// checkCut checks that the cut names every write lane and nothing that was not
// published before it.
func checkCut(t *testing.T, p *play, cut *event.LedgerCut) {
	t.Helper()
	if len(cut.Lanes) != 2 {
		t.Fatalf("the cut has lanes %+v, want the pooled and the fresh lane of the write probe", cut.Lanes)
	}
	var batches []event.ProbeBatch
	for _, s := range p.history() {
		if b, ok := s.Payload.(*event.ProbeBatch); ok {
			batches = append(batches, *b)
		}
		if s.Payload == any(cut) {
			break
		}
	}
	for _, c := range cut.Lanes {
		last := int64(0)
		for _, b := range batches {
			if b.Probe == c.Probe && b.Lane == c.Lane && b.Epoch == c.Epoch {
				last = max(last, b.FirstSeq+int64(len(b.Outcomes))-1)
			}
		}
		if c.UpTo == 0 || last < c.UpTo {
			t.Fatalf("cut at %d of %s/%s, but only %d attempts were published before it", c.UpTo, c.Probe, c.Lane, last)
		}
	}
}

// complete reports whether all that the service acknowledged was published.
func complete(lanes map[string]verdict.Lane, f *fake) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range lanes {
		for _, a := range l.Attempts {
			name := target.ProbeSpec{Drill: "d-1", Name: l.Probe, Lane: l.Name, Epoch: l.Epoch}.Ledger()
			if held := f.ledgers[name][a.Seq]; (a.Outcome == verdict.OK) != (held == 1) {
				return false
			}
		}
	}
	held, acked := 0, 0
	for _, l := range f.ledgers {
		held += len(l)
	}
	for _, l := range lanes {
		for _, a := range l.Attempts {
			if a.Outcome == verdict.OK {
				acked++
			}
		}
	}
	return held == acked
}

// checkRates checks that the pooled lane went at both rates, each at its time.
func checkRates(t *testing.T, p *play) {
	t.Helper()
	var f0 int64
	for _, s := range p.history() {
		if f, ok := s.Payload.(*event.FaultInjected); ok {
			f0 = f.F0.Mono
		}
	}
	lane := p.lanes()["p/w/pooled/1"]
	var atFault, atEnd []int64
	for i := 1; i < len(lane.Attempts); i++ {
		gap := lane.Attempts[i].Scheduled - lane.Attempts[i-1].Scheduled
		if d := lane.Attempts[i].Scheduled - f0; d > -int64(100*time.Millisecond) && d < 0 {
			atFault = append(atFault, gap)
		}
		if i > len(lane.Attempts)-5 {
			atEnd = append(atEnd, gap)
		}
	}
	near := func(got []int64, want time.Duration) bool {
		return len(got) > 0 && !slices.ContainsFunc(got, func(g int64) bool { return g < int64(want)-2000 || g > int64(want)+2000 })
	}
	if !near(atFault, 10*time.Millisecond) || !near(atEnd, 40*time.Millisecond) {
		t.Fatalf("slots before the fault %v, at the end %v; want 10 ms and 40 ms", atFault, atEnd)
	}
}

// TestSteadyWaits: a service that is not steady at first is waited for.
func TestSteadyWaits(t *testing.T) {
	r := newRig(t)
	begun := time.Now()
	r.fake.set(func(_ context.Context, s target.ProbeSpec, seq int64) target.Outcome {
		if time.Since(begun) < 2*time.Second && seq%7 == 0 {
			return refuse(t.Context(), s, seq)
		}
		return target.Outcome{Result: target.OK}
	})
	r.observe("o1")
	p := r.accept("d-1", aPhase())
	p.begin()
	if took := time.Since(begun); took < 2*time.Second {
		t.Fatalf("steady after %v, while attempts failed", took)
	}
	est := await[event.SteadyEstablished](p, "steady.established", nil)
	for _, l := range est.Lanes {
		if l.OK != l.Scheduled || l.Scheduled == 0 {
			t.Fatalf("lane %+v counts as steady", l)
		}
	}
}

func TestSteadyViolated(t *testing.T) {
	cases := map[string]struct {
		sabotage func(*fake, *drill.Phase)
		want     string
	}{
		"service down": {func(f *fake, _ *drill.Phase) { f.set(refuse) }, "w/pooled: 0.000 %"},
		"service slow": {func(f *fake, p *drill.Phase) {
			p.SteadyState.MaxP95 = event.Duration(time.Microsecond)
		}, "p95"},
		"lane does not open": {func(f *fake, _ *drill.Phase) {
			f.openErr = func() error { return errors.New("permission denied for table canary") }
		}, "permission denied for table canary"},
		"lane panics": {func(f *fake, _ *drill.Phase) { f.openErr = func() error { panic("boom") } }, "panicked: boom"},
		"attempt panics": {func(f *fake, _ *drill.Phase) {
			f.set(func(context.Context, target.ProbeSpec, int64) target.Outcome { panic("boom") })
		}, "0.000 %"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r, ph := newRig(t), aPhase()
			ph.SteadyState.Timeout = event.Duration(700 * time.Millisecond)
			c.sabotage(r.fake, &ph)
			r.observe("o1")
			p := r.accept("d-1", ph)
			p.say(event.TypePhaseStarted, event.PhaseStarted{Phase: phaseName})
			p.say(event.TypeSteadyRequested, event.SteadyRequested{Step: step(drill.StepSteady, drill.Before)})
			v := await[event.SteadyViolated](p, "steady.violated", nil)
			if !strings.Contains(strings.Join(v.Reasons, "\n"), c.want) {
				t.Fatalf("reasons %q, want %q", v.Reasons, c.want)
			}
			p.say(event.TypeAbortRequested, event.AbortRequested{By: "i1", Reason: "x", Cause: "steady-state"})
			p.finish()
			// The service lives on and takes the next drill.
			r.fake.mu.Lock()
			r.fake.openErr, r.fake.attempt = nil, nil
			r.fake.mu.Unlock()
			r.accept("d-2", aPhase()).begin()
		})
	}
}

// TestHangs: attempts that hang past their deadline, whatever their context
// says, are unknown; the observer answers and goes on.
func TestHangs(t *testing.T) {
	r := newRig(t)
	r.observe("o1")
	ph := aPhase()
	p := r.accept("d-1", ph)
	p.begin()
	hung := make(chan struct{})
	p.hit(func(context.Context, target.ProbeSpec, int64) target.Outcome {
		select {
		case <-hung:
		case <-r.fake.released:
		}
		return target.Outcome{Result: target.Failed, Err: errors.New("it hung")}
	})
	await(p, "outage.started", func(o *event.OutageStarted) bool { return strings.Contains(o.Error, "did not return") })
	close(hung) // for good they would fill a lane, if this took long enough
	p.mend()
	await[event.RecoveryStable](p, "recovery.stable", nil)
	cut := p.cut(drill.Recovered)
	checkCut(t, p, cut)
	unknown := 0
	for _, l := range p.lanes() {
		for _, a := range l.Attempts {
			if a.Outcome == verdict.Unknown {
				unknown++
			}
		}
	}
	if unknown == 0 {
		t.Fatal("no attempt is unknown")
	}
}

func TestRecoveryMissing(t *testing.T) {
	r := newRig(t)
	r.observe("o1")
	ph := aPhase()
	ph.Stable.Timeout = event.Duration(900 * time.Millisecond)
	p := r.accept("d-1", ph)
	p.begin()
	var n atomic.Int64
	p.hit(func(_ context.Context, s target.ProbeSpec, seq int64) target.Outcome { // flaps all the time
		if n.Add(1)%10 < 5 {
			return refuse(t.Context(), s, seq)
		}
		return target.Outcome{Result: target.OK}
	})
	now := clock.System().Now()
	p.say(event.TypeActionDone, event.ActionDone{Step: step(drill.StepRecovery, "mend"), Began: now, Ended: now})
	miss := await[event.RecoveryMissing](p, "recovery.missing", nil)
	if miss.Waited.D() < 900*time.Millisecond || len(miss.Reasons) == 0 {
		t.Fatalf("%+v", miss)
	}
	<-time.After(300 * time.Millisecond) // several ticks, in which nothing may be said again
	if n := count[event.RecoveryMissing](p, nil) + count[event.RecoveryStable](p, nil); n != 1 {
		t.Fatalf("settling was answered %d times", n)
	}
}

func TestNeverFailed(t *testing.T) {
	r := newRig(t)
	r.observe("o1")
	p := r.accept("d-1", aPhase())
	p.begin()
	p.hit(nil)
	p.mend()
	if s := await[event.RecoveryStable](p, "recovery.stable", nil); !s.NeverFailed {
		t.Fatalf("%+v", s)
	}
}

// TestHeldFault: settling waits until a fault with a hold was undone.
func TestHeldFault(t *testing.T) {
	r, ph := newRig(t), aPhase()
	ph.Faults[0].Hold = event.Duration(time.Second)
	ph.Recovery = nil
	r.observe("o1")
	p := r.accept("d-1", ph)
	p.begin()
	id := step(drill.StepFault, "break")
	p.say(event.TypeFaultIntended, event.FaultIntended{Effect: event.Effect{Step: id, Target: "t", Operation: "break", Undo: json.RawMessage(`{}`)}})
	now := clock.System().Now()
	p.say(event.TypeFaultInjected, event.FaultInjected{Step: id, F0: now, F1: now, Proof: event.Proof{Proven: true}})
	<-time.After(1500 * time.Millisecond) // longer than the stable window
	if n := count[event.RecoveryStable](p, nil); n > 0 {
		t.Fatal("stable while the fault still lasts")
	}
	p.say(event.TypeUndoIntended, event.UndoIntended{Step: id, Try: 1})
	p.say(event.TypeUndoDone, event.UndoDone{Step: id})
	await[event.RecoveryStable](p, "recovery.stable", nil)
}

// TestRestart: an observer that comes back under its name takes up the drill at
// once, with lanes of a new epoch, and answers what is still asked.
func TestRestart(t *testing.T) {
	r := newRig(t)
	stop := r.observe("o1")
	p := r.accept("d-1", aPhase())
	p.begin()
	p.hit(refuse)
	await[event.OutageStarted](p, "outage.started", nil)
	stop()
	r.observe("o1")
	await(p, "second claim", func(c *event.ObserverClaimed) bool { return c.Instance == "o1" && c.Epoch == 2 })
	p.mend()
	await[event.RecoveryStable](p, "recovery.stable", nil)
	cut := p.cut(drill.Recovered)
	epochs := map[int64]int{}
	for _, l := range cut.Lanes {
		epochs[l.Epoch]++
	}
	if epochs[1] != 2 || epochs[2] != 2 {
		t.Fatalf("the cut has lanes %+v, want those of both claims", cut.Lanes)
	}
	lanes := p.lanes()
	if len(lanes["p/w/pooled/1"].Attempts) == 0 || lanes["p/w/pooled/2"].Attempts[0].Seq != 1 {
		t.Fatal("the second claim's lane does not start over")
	}
}

// TestTakeover: a second instance waits while the first one lives, and takes
// over when it falls silent. The one that was replaced writes nothing more.
func TestTakeover(t *testing.T) {
	quick := func(c *observer.Config) { c.Silence = 1500 * time.Millisecond }
	r := newRig(t)
	stop := r.observe("o1", quick)
	p := r.accept("d-1", aPhase())
	await[event.ObserverClaimed](p, "claim", nil)
	r.observe("o2", quick)
	p.begin()
	<-time.After(2500 * time.Millisecond) // longer than the silence that is allowed for
	if n := count[event.ObserverClaimed](p, nil); n != 1 {
		t.Fatal("the second observer took over from a living one")
	}
	stop()
	await(p, "takeover", func(c *event.ObserverClaimed) bool { return c.Instance == "o2" && c.Epoch == 2 })
	p.hit(refuse)
	await[event.OutageStarted](p, "outage.started", nil)
	claimed := false
	for _, s := range p.history() {
		if c, ok := s.Payload.(*event.ObserverClaimed); ok && c.Epoch == 2 {
			claimed = true
		}
		if claimed && s.Event.Service() == event.Observer && s.Event.Instance() != "o2" {
			t.Fatalf("%s by %s after the takeover", s.Event.Type, s.Event.Instance())
		}
	}
}

func TestStopCondition(t *testing.T) {
	r, ph := newRig(t), aPhase()
	ph.Stop = []drill.StopCondition{{Probe: "w", DownFor: event.Duration(400 * time.Millisecond)}}
	r.observe("o1")
	p := r.accept("d-1", ph)
	p.begin()
	var got struct{ By, Reason, Cause string }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p.hit(refuse)
	err := r.inject.FollowCommands(ctx, "d-1", func(verb string, data []byte) error {
		if verb != "abort" {
			t.Errorf("command %s", verb)
		}
		if err := json.Unmarshal(data, &got); err != nil {
			return err
		}
		return bus.Stop
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Cause != "stop-condition" || got.By != "observer/o1" || !strings.Contains(got.Reason, "probe w") {
		t.Fatalf("%+v", got)
	}
}

// shifted is the clock of another machine.
type shifted struct{ by time.Duration }

func (s shifted) Now() event.Reading {
	r := clock.System().Now()
	return event.Reading{Clock: "elsewhere", Mono: r.Mono + int64(s.by), Wall: r.Wall}
}

// TestOtherClock: the fault comes from a machine with another clock; it is
// compared, and the fault's time is carried over.
func TestOtherClock(t *testing.T) {
	r := newRig(t)
	far := shifted{by: 12345 * time.Second}
	r.inject = r.connect(event.Injector, "far", far)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = r.inject.Serve(ctx, "clock", map[string]bus.Endpoint{ // ends with the test
			"clock.far": func(context.Context, []byte) ([]byte, error) { return json.Marshal(far.Now()) },
		})
	})
	defer wg.Wait()
	defer cancel()
	r.observe("o1")
	p := r.accept("d-1", aPhase())
	p.begin()
	c := await[event.ClockCompared](p, "clock.compared", nil)
	if d := time.Duration(c.Offset) - far.by; c.Other != "elsewhere" || d.Abs() > time.Duration(c.Error) || time.Duration(c.Error) > time.Second {
		t.Fatalf("%+v: off by %v", c, d)
	}
	id := step(drill.StepFault, "break")
	p.say(event.TypeFaultIntended, event.FaultIntended{Effect: event.Effect{Step: id, Target: "t", Operation: "break"}})
	f0 := far.Now()
	r.fake.set(refuse)
	p.say(event.TypeFaultInjected, event.FaultInjected{Step: id, F0: f0, F1: far.Now(), Proof: event.Proof{Proven: true}})
	await[event.OutageStarted](p, "outage.started", nil)
	p.mend()
	at := clock.System().Now().Mono
	s := await[event.RecoveryStable](p, "recovery.stable", nil)
	if d := time.Duration(s.At.Mono - at); s.At.Clock == "elsewhere" || d.Abs() > 5*time.Second {
		t.Fatalf("stable at %+v, %v from the mending", s.At, d)
	}
}

// TestTwoPhases: sequence numbers go on, so that the canaries of two phases
// cannot be taken for each other.
func TestTwoPhases(t *testing.T) {
	r := newRig(t)
	r.observe("o1")
	second := aPhase()
	second.Name = "q"
	p := r.accept("d-1", aPhase(), second)
	p.begin()
	p.say(event.TypePhaseFinished, event.PhaseFinished{Phase: phaseName, Complete: true})
	p.say(event.TypePhaseStarted, event.PhaseStarted{Phase: "q"})
	await(p, "a batch of the second phase", func(b *event.ProbeBatch) bool { return b.Phase == "q" && b.Probe == "w" && b.Lane == target.LanePooled })
	lanes := p.lanes()
	a, b := lanes["p/w/pooled/1"].Attempts, lanes["q/w/pooled/1"].Attempts
	if b[0].Seq != a[len(a)-1].Seq+1 {
		t.Fatalf("the first phase ends with attempt %d, the second begins with %d", a[len(a)-1].Seq, b[0].Seq)
	}
}

// TestRunEndsWithItsConnection: without the bus Run says so, instead of waiting
// for sessions that nobody ends.
func TestRunEndsWithItsConnection(t *testing.T) {
	r := newRig(t)
	b := r.connect(event.Observer, "o1", clock.System())
	ended := make(chan error, 1)
	go func() {
		ended <- observer.Run(t.Context(), observer.Config{
			Bus: b, Registry: target.NewRegistry(r.fake), Log: slog.New(slog.DiscardHandler), Clock: clock.System(),
		})
	}()
	p := r.accept("d-1", aPhase())
	await[event.ObserverClaimed](p, "claim", nil)
	b.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Fatal("Run ended without an error although its context had not")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Run did not end within 30 s")
	}
}

package observer_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/observer"
)

// slowly is a service that answers far later than before the fault, yet in time.
func slowly(ctx context.Context, _ target.ProbeSpec, _ int64) target.Outcome {
	select {
	case <-time.After(time.Second):
		return target.Outcome{Result: target.OK}
	case <-ctx.Done():
		return target.Outcome{Result: target.Unknown, Err: ctx.Err()}
	}
}

// TestTakeoverKnowsTheBaseline: an observer that takes over after the fault compares
// the latency with what its predecessor measured before the fault. Where the attempts
// of the predecessor are of another machine's clock there is nothing to compare with.
func TestTakeoverKnowsTheBaseline(t *testing.T) {
	for name, c := range map[string]struct {
		first func(*observer.Config)
		want  event.Type
	}{
		"same boot":    {func(*observer.Config) {}, event.TypeRecoveryMissing},
		"another boot": {func(c *observer.Config) { c.Clock = shifted{by: time.Hour} }, event.TypeRecoveryStable},
	} {
		t.Run(name, func(t *testing.T) {
			r, ph := newRig(t), aPhase()
			ph.Stable.Timeout = event.Duration(6 * time.Second)
			for i := range ph.Probes {
				ph.Probes[i].Deadline = event.Duration(3 * time.Second) // slow is no failure, however busy the machine is
			}
			stop := r.observe("o1", c.first)
			p := r.accept("d-1", ph)
			p.begin()
			p.hit(refuse)
			await[event.OutageStarted](p, "outage.started", nil)
			stop()
			r.observe("o1")
			await(p, "second claim", func(c *event.ObserverClaimed) bool { return c.Epoch == 2 })
			r.fake.set(slowly)
			id := step(drill.StepRecovery, "mend")
			p.say(event.TypeActionIntended, event.ActionIntended{Effect: event.Effect{Step: id, Target: "t", Operation: "mend"}})
			p.say(event.TypeActionDone, event.ActionDone{Step: id})
			switch got := p.await("answer about stability", func(payload any) bool {
				switch payload.(type) {
				case *event.RecoveryStable, *event.RecoveryMissing:
					return true
				}
				return false
			}); x := got.Payload.(type) {
			case *event.RecoveryMissing:
				if c.want != got.Event.Type || !strings.Contains(strings.Join(x.Reasons, "\n"), "w/pooled: slow: p95") {
					t.Fatalf("%s: %q", got.Event.Type, x.Reasons)
				}
			case *event.RecoveryStable:
				if c.want != got.Event.Type || x.NeverFailed {
					t.Fatalf("%s: %+v", got.Event.Type, x)
				}
			}
		})
	}
}

// TestTakeoverKnowsTheOutage: the one that takes over while a lane is down goes on
// with the outage, and tells its end with the length that it had since its beginning.
func TestTakeoverKnowsTheOutage(t *testing.T) {
	r, ph := newRig(t), aPhase()
	ph.Stop = []drill.StopCondition{{Probe: "w", DownFor: event.Duration(time.Minute)}}
	stop := r.observe("o1")
	p := r.accept("d-1", ph)
	p.begin()
	p.hit(refuse)
	began := await(p, "outage.started", func(o *event.OutageStarted) bool { return o.Probe == "w" && o.Lane == target.LanePooled })
	stop()
	r.observe("o1")
	claimed := p.await("second claim", func(payload any) bool {
		c, ok := payload.(*event.ObserverClaimed)
		return ok && c.Epoch == 2
	})
	await(p, "attempt of the second claim", func(b *event.ProbeBatch) bool { return b.Epoch == 2 && b.Probe == "w" && b.Lane == target.LanePooled })
	p.mend()
	end := await(p, "outage.ended", func(o *event.OutageEnded) bool { return o.Probe == "w" && o.Lane == target.LanePooled })
	if whole := end.At.Mono - began.At.Mono; int64(end.Lasted.Hi) < whole {
		t.Errorf("the outage is told to have lasted at most %v, it did at least %v", time.Duration(end.Lasted.Hi), time.Duration(whole))
	}
	for _, s := range p.history() {
		if o, ok := s.Payload.(*event.OutageStarted); ok && s.Seq > claimed.Seq && o.Probe == "w" && o.Lane == target.LanePooled {
			t.Error("the same outage began twice")
		}
	}
	if s := await[event.RecoveryStable](p, "recovery.stable", nil); s.NeverFailed {
		t.Error("the drill is told never to have failed")
	}
}

// TestTakeoverWatchesAWholeWindow: nobody watched between the two claims, so no stable
// window reaches across, and nothing is said not to have failed.
func TestTakeoverWatchesAWholeWindow(t *testing.T) {
	r := newRig(t)
	stop := r.observe("o1")
	p := r.accept("d-1", aPhase())
	p.begin()
	p.hit(nil)
	eventually(t, "attempts of every lane after the fault", func() bool {
		lanes, hit := map[string]bool{}, false
		for _, s := range p.history() {
			switch x := s.Payload.(type) {
			case *event.FaultInjected:
				hit = true
			case *event.ProbeBatch:
				lanes[x.Probe+"/"+x.Lane] = lanes[x.Probe+"/"+x.Lane] || hit
			}
		}
		return len(lanes) == 4 && lanes["w/pooled"] && lanes["w/fresh"] && lanes["r/pooled"] && lanes["r/fresh"]
	})
	stop()
	r.observe("o1")
	claimed := p.await("second claim", func(payload any) bool {
		c, ok := payload.(*event.ObserverClaimed)
		return ok && c.Epoch == 2
	})
	p.mend()
	s := await[event.RecoveryStable](p, "recovery.stable", nil)
	if s.NeverFailed || s.At.Mono < int64(claimed.Event.Mono) {
		t.Errorf("stable %v after the second claim, never failed: %v", time.Duration(s.At.Mono-int64(claimed.Event.Mono)), s.NeverFailed)
	}
}

// TestTakeoverDoesNotAbortOnHearsay: a stop condition is not met by what an earlier
// claim saw: the service may be up again.
func TestTakeoverDoesNotAbortOnHearsay(t *testing.T) {
	r, ph := newRig(t), aPhase()
	ph.Stop = []drill.StopCondition{{Probe: "w", DownFor: event.Duration(time.Second)}}
	stop := r.observe("o1")
	p := r.accept("d-1", ph)
	p.begin()
	p.hit(refuse)
	await[event.OutageStarted](p, "outage.started", nil)
	stop() // long before the service is down for a second, and stays away for longer
	<-time.After(1200 * time.Millisecond)
	p.mend()
	stop = r.observe("o1")
	await[event.RecoveryStable](p, "recovery.stable", nil)
	stop() // it has sent what it was to send
	if err := r.inject.Command(t.Context(), "d-1", "last", nil); err != nil {
		t.Fatal(err)
	}
	err := r.inject.FollowCommands(t.Context(), "d-1", func(verb string, data []byte) error {
		if verb == "last" {
			return bus.Stop
		}
		return fmt.Errorf("a service that is up again is asked to %s: %s", verb, data)
	})
	if err != nil {
		t.Fatal(err)
	}
}

package observer_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/observer"
)

// TestCleanUpAtTheStart: a drill that ended while its observer was away is cleaned
// up by any that comes.
func TestCleanUpAtTheStart(t *testing.T) {
	r := newRig(t)
	stop := r.observe("o1")
	p := r.accept("d-1", aPhase())
	p.begin()
	stop()
	p.finish()
	p.publish()
	r.observe("o2")
	eventually(t, "the clean-up", func() bool { return r.fake.cleaned("d-1") == 2 })
}

// TestCleanUpByAnother: every observer of a drill cleans up, for the one that
// claimed it last may be gone.
func TestCleanUpByAnother(t *testing.T) {
	r := newRig(t)
	r.observe("o1")
	p := r.accept("d-1", aPhase())
	p.begin()
	p.sayAs(r.connect(event.Observer, "o2", clock.System()), event.TypeObserverClaimed, event.ObserverClaimed{Instance: "o2", Epoch: 2})
	p.finish()
	p.publish()
	eventually(t, "the clean-up", func() bool { return r.fake.cleaned("d-1") == 2 })
}

// TestCleanUpOutlivesTheStop: `firedrill run` stops the observer as soon as the
// report is out, which is when the cleaning begins.
func TestCleanUpOutlivesTheStop(t *testing.T) {
	r := newRig(t)
	cancel, wait := r.run("o1")
	p := r.accept("d-1", aPhase())
	p.begin()
	entered, release := make(chan struct{}), make(chan struct{})
	r.fake.dropping(func(ctx context.Context, _ string) error {
		close(entered)
		<-release
		if _, bounded := ctx.Deadline(); !bounded {
			return errors.New("the cleaning could hold up the end for ever")
		}
		return ctx.Err()
	})
	p.finish()
	p.publish()
	<-entered
	cancel()
	close(release)
	wait()
	if n := r.fake.cleaned("d-1"); n != 2 {
		t.Fatalf("the ledgers were dropped %d times by the end, want once before and once after the drill", n)
	}
}

// TestNothingToCleanUp: a drill that never came to its first phase has made no canaries,
// and its targets, which may be the reason, are left alone.
func TestNothingToCleanUp(t *testing.T) {
	r := newRig(t)
	cancel, wait := r.run("o1")
	p := r.accept("d-1", aPhase())
	p.finish()
	p.publish()
	cancel()
	wait()
	if n := r.fake.cleaned("d-1"); n != 0 {
		t.Fatalf("the ledgers were dropped %d times", n)
	}
}

// stuck is a log handler that holds up whoever logs the message.
type stuck struct {
	slog.Handler
	message          string
	entered, release chan struct{}
	once             *sync.Once
}

func (s stuck) Enabled(context.Context, slog.Level) bool { return true }
func (s stuck) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s stuck) Handle(_ context.Context, r slog.Record) error {
	if r.Message == s.message {
		s.once.Do(func() { close(s.entered); <-s.release })
	}
	return nil
}

// TestCleanUpOfAReportNotHeardOf: a session that lags behind its drill when the
// process stops cleans up all the same.
func TestCleanUpOfAReportNotHeardOf(t *testing.T) {
	r := newRig(t)
	h := stuck{message: "observing the drill", entered: make(chan struct{}), release: make(chan struct{}), once: new(sync.Once)}
	cancel, wait := r.run("o1", func(c *observer.Config) { c.Log = slog.New(h) })
	p := r.accept("d-1", aPhase())
	<-h.entered
	p.say(event.TypePhaseStarted, event.PhaseStarted{Phase: phaseName}) // there may be canaries
	p.say(event.TypePhaseFinished, event.PhaseFinished{Phase: phaseName, Complete: true})
	for range 300 { // more than a session has room for
		p.say(event.TypeLeaseRenewed, event.LeaseRenewed{Holder: "i1", Epoch: 1})
	}
	p.say(event.TypeDrillFinished, event.DrillFinished{Complete: true})
	p.publish()
	cancel()
	close(h.release)
	wait()
	if r.fake.cleaned("d-1") != 1 {
		t.Fatal("the observer stopped without cleaning up")
	}
}

// TestNextDrillCleansUp: what could not be removed after a drill is removed before
// the next one at the same target.
func TestNextDrillCleansUp(t *testing.T) {
	r := newRig(t)
	r.observe("o1")
	p := r.accept("d-1", aPhase())
	p.begin()
	failed := make(chan struct{})
	r.fake.dropping(func(context.Context, string) error {
		close(failed)
		return errors.New("the database is down")
	})
	p.finish()
	p.publish()
	<-failed
	r.fake.dropping(nil)
	r.accept("d-2", aPhase()).begin()
	eventually(t, "the clean-up", func() bool { return r.fake.cleaned("d-1") == 2 })
}

// TestCleaningIsOverBeforeTheFirstLane: two targets may be one system, so that what
// is removed from one are canaries that the other's lanes wrote.
func TestCleaningIsOverBeforeTheFirstLane(t *testing.T) {
	r := newRig(t)
	r.observe("o1")
	later := aPhase()
	later.Name = "later"
	later.Probes = later.Probes[:1]
	later.Probes[0].Target = "u"
	p := r.accept("d-1", aPhase(), later)
	p.begin()
	r.fake.mu.Lock()
	before := r.fake.before
	r.fake.mu.Unlock()
	if !slices.Equal(before, []string{"d-1", "d-1"}) {
		t.Fatalf("before the first lane the ledgers of %v were dropped, want those of the drill in both targets", before)
	}
	p.say(event.TypePhaseFinished, event.PhaseFinished{Phase: phaseName})
	p.say(event.TypePhaseStarted, event.PhaseStarted{Phase: later.Name})
	await(p, "attempts of the second phase", func(b *event.ProbeBatch) bool { return b.Phase == later.Name })
	if n := r.fake.cleaned("d-1"); n != 2 {
		t.Fatalf("the drill's own canaries were dropped %d times while it ran", n-2)
	}
}

// TestIDThatWasGivenBefore: canaries under the drill's own id are there before its
// first lane when a store was lost; they must not be taken for its own, and its
// own must not be taken for those.
func TestIDThatWasGivenBefore(t *testing.T) {
	r := newRig(t)
	stop := r.observe("o1")
	p := r.accept("d-1", aPhase())
	p.begin()
	r.fake.mu.Lock()
	before := r.fake.before
	r.fake.mu.Unlock()
	if !slices.Equal(before, []string{"d-1"}) {
		t.Fatalf("the ledgers of %v were dropped before the first lane opened, want those of the drill's id", before)
	}
	stop()
	p.say(event.TypePhaseFinished, event.PhaseFinished{Phase: phaseName})
	r.observe("o1")
	await(p, "second claim", func(c *event.ObserverClaimed) bool { return c.Epoch == 2 })
	p.say(event.TypePhaseStarted, event.PhaseStarted{Phase: phaseName})
	await(p, "attempts of the second claim", func(b *event.ProbeBatch) bool { return b.Epoch == 2 })
	if n := r.fake.cleaned("d-1"); n != 1 {
		t.Fatalf("the drill's own canaries were dropped %d times while it ran", n-1)
	}
}

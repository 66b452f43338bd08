package observer_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/observer"
)

// relay is a way to the server on which nothing may move for a while.
type relay struct {
	listener net.Listener
	// gate is held for writing while nothing moves.
	gate sync.RWMutex
	wg   sync.WaitGroup
	mu   sync.Mutex
	open []net.Conn
}

// newRelay relays to the rig's server; the url is the relay's.
func newRelay(r *rig) (way *relay, url string) {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	way = &relay{listener: l}
	to := strings.TrimPrefix(r.server.URL(), "nats://")
	way.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			way.mu.Lock()
			way.open = append(way.open, client, server)
			way.mu.Unlock()
			way.wg.Go(func() { way.pump(server, client) })
			way.wg.Go(func() { way.pump(client, server) })
		}
	})
	r.t.Cleanup(func() {
		_ = l.Close()
		way.mu.Lock()
		for _, c := range way.open {
			_ = c.Close()
		}
		way.mu.Unlock()
		way.wg.Wait()
	})
	return way, "nats://" + l.Addr().String()
}

func (w *relay) pump(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.gate.RLock()
		_, bad := to.Write(buf[:n])
		w.gate.RUnlock()
		if err != nil || bad != nil {
			return
		}
	}
}

// freeze stops everything until thaw, or the end of the test.
func (w *relay) freeze(t *testing.T) (thaw func()) {
	w.gate.Lock()
	thaw = sync.OnceFunc(w.gate.Unlock)
	t.Cleanup(thaw)
	return thaw
}

// by has an observer reach the server by way of url.
func (r *rig) by(url, instance string) func(*observer.Config) {
	return func(c *observer.Config) { c.Bus = r.connectTo(url, event.Observer, instance, clock.System()) }
}

// TestSlowServer: while the server takes nothing, attempts are judged all the same:
// the burst before the fault begins in time. All of them are published later.
func TestSlowServer(t *testing.T) {
	r := newRig(t)
	way, url := newRelay(r)
	var mu sync.Mutex
	var made []time.Time // attempts on the pooled lane of writes
	r.fake.set(func(_ context.Context, s target.ProbeSpec, _ int64) target.Outcome {
		if s.Name == "w" && s.Lane == target.LanePooled {
			mu.Lock()
			made = append(made, time.Now())
			mu.Unlock()
		}
		return target.Outcome{Result: target.OK}
	})
	ph := aPhase()
	ph.SteadyState.Window = event.Duration(6 * time.Second) // the burst begins 3 s into it
	r.observe("o1", r.by(url, "o1"))
	p := r.accept("d-1", ph)
	p.say(event.TypePhaseStarted, event.PhaseStarted{Phase: phaseName})
	id := step(drill.StepSteady, drill.Before)
	asked := p.say(event.TypeSteadyRequested, event.SteadyRequested{Step: id})
	// What is stored behind the question was written by one who knew it.
	eventually(t, "attempts behind the question", func() bool {
		return slices.ContainsFunc(p.history(), func(s bus.Stored) bool { return s.Seq > asked.Seq && s.Event.Type == event.TypeProbeBatch })
	})
	thaw := way.freeze(t)
	frozen := time.Now()
	eventually(t, "the burst while the server takes nothing", func() bool {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for _, at := range made {
			if at.After(frozen) && time.Since(at) < time.Second {
				n++
			}
		}
		return n > 50 // 25 a second before the burst, 100 in it
	})
	if late := time.Since(frozen); late > 8*time.Second {
		t.Errorf("the burst began %v after the server had stopped, when the append under way was given up", late)
	}
	if n := count[event.SteadyEstablished](p, nil); n > 0 {
		t.Fatal("the server took an answer while nothing moved")
	}
	thaw()
	await(p, "steady.established", func(e *event.SteadyEstablished) bool { return e.Step == id })
	p.say(event.TypeAbortRequested, event.AbortRequested{By: "i1", Reason: "x", Cause: "operator"})
	p.finish()
	eventually(t, "all attempts", func() bool { return complete(p.lanes(), r.fake) })
}

// TestTooMuchWaits: an observer that has more to publish than it may hold makes no
// more attempts, publishes those that it made when it can, and claims the drill anew.
func TestTooMuchWaits(t *testing.T) {
	r := newRig(t)
	way, url := newRelay(r)
	r.observe("o1", r.by(url, "o1"), func(c *observer.Config) { observer.Hold(c, 200) })
	p := r.accept("d-1", aPhase())
	p.begin()
	thaw := way.freeze(t)
	eventually(t, "the end of the attempts", func() bool {
		r.fake.mu.Lock()
		defer r.fake.mu.Unlock()
		return r.fake.opens == r.fake.closes
	})
	thaw()
	await(p, "new claim", func(c *event.ObserverClaimed) bool { return c.Instance == "o1" && c.Epoch == 2 })
	lanes := p.lanes()
	held := 0
	for _, name := range []string{"p/w/pooled/1", "p/w/fresh/1", "p/r/pooled/1", "p/r/fresh/1"} {
		held += len(lanes[name].Attempts)
	}
	if held < 200 {
		t.Fatalf("%d attempts of the first claim are published, want 200 at least", held)
	}
	await(p, "attempt of the new claim", func(b *event.ProbeBatch) bool { return b.Epoch == 2 })
	p.hit(refuse)
	await[event.OutageStarted](p, "outage.started", nil)
	p.mend()
	await[event.RecoveryStable](p, "recovery.stable", nil)
	p.finish()
	eventually(t, "all attempts of both claims", func() bool { return complete(p.lanes(), r.fake) })
}

// TestTooMuchWaitsForAnother: what an observer held when another took the drill over is
// given up, also when it had stopped to make attempts by then. When it claims the drill
// again it publishes what it measures, and nothing of before, let alone twice.
func TestTooMuchWaitsForAnother(t *testing.T) {
	r := newRig(t)
	way, url := newRelay(r)
	hasty := func(c *observer.Config) { c.Silence = time.Second }
	r.observe("o1", r.by(url, "o1"), hasty, func(c *observer.Config) { observer.Hold(c, 200) })
	p := r.accept("d-1", aPhase())
	p.begin()
	thaw := way.freeze(t)
	eventually(t, "the end of the attempts", func() bool {
		r.fake.mu.Lock()
		defer r.fake.mu.Unlock()
		return r.fake.opens == r.fake.closes
	})
	stop := r.observe("o2", hasty)
	await(p, "attempt of the second claim", func(b *event.ProbeBatch) bool { return b.Epoch == 2 })
	thaw()
	stop()
	await(p, "third claim", func(c *event.ObserverClaimed) bool { return c.Instance == "o1" && c.Epoch == 3 })
	for _, probe := range []string{"w", "r"} {
		for n := range 3 { // a batch a second: what waits would go first, and again
			seen := 0
			await(p, "attempts of the third claim", func(b *event.ProbeBatch) bool {
				if b.Epoch == 3 && b.Probe == probe && b.Lane == target.LanePooled {
					seen++
				}
				return seen > n
			})
		}
	}
	for _, s := range p.history() {
		if c, ok := s.Payload.(*event.ObserverClaimed); ok && c.Epoch == 3 {
			for _, later := range p.history() {
				if b, ok := later.Payload.(*event.ProbeBatch); ok && later.Seq > s.Seq && b.Epoch == 1 {
					t.Fatalf("attempts %d and on of lane %s/%s, which waited when the drill was lost, are published by the third claim", b.FirstSeq, b.Probe, b.Lane)
				}
			}
		}
	}
	p.lanes()
}

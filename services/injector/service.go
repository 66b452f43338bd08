// Package injector accepts drill requests, conducts drills, injects faults,
// takes recovery actions and undoes both. It decides the next step from the
// drill's own events and never judges.
package injector

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/pkg/target"
)

// DefaultLeaseTTL is how long a silent injector keeps a drill before another
// one takes over.
const DefaultLeaseTTL = 15 * time.Second

// Config is what the service needs. Every field but LeaseTTL, Inventory and Only is
// required.
type Config struct {
	Bus      *bus.Bus
	Registry target.Registry
	// Inventory is what requests may drill; the zero value lets nothing.
	Inventory drill.Inventory
	Clock     target.Clock
	Log       *slog.Logger
	// LeaseTTL is how long a silent injector keeps a drill; 0 means DefaultLeaseTTL.
	LeaseTTL time.Duration
	// Only says which requests are taken, nil all of them; the rest are rejected. An
	// injector that runs one drill for its operator, with targets that the request
	// itself describes, must not take what anybody has left in the store.
	Only func(subject string, data []byte, msgID string) bool
	// Locks is a directory of this machine that all firedrills on it share, and where all
	// of its users may make files: a system is drilled by one of them at a time, whatever
	// their event stores; "" shares nothing.
	Locks machine.Locks
	// Room says why the event store could not take a drill's history; nil where that is
	// others' to know. Nothing is broken that could not be put back for want of it.
	Room func() error
}

// Run serves until the context ends: it accepts requests, follows every
// unfinished drill and conducts those whose lease it holds. It returns nil on a
// clean end, with every goroutine joined and every running effect cancelled
// (what was intended stays on record for the next injector).
func Run(ctx context.Context, c Config) error {
	if c.LeaseTTL == 0 {
		c.LeaseTTL = DefaultLeaseTTL
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &service{Config: c, drills: map[string]running{}}
	tasks := []func(context.Context) error{s.serveRequests, s.watchDrills, s.serveAPI, s.serveClock, s.followExternal}
	errs := make(chan error, len(tasks))
	for _, task := range tasks {
		go func() { errs <- task(ctx) }()
	}
	var first error
	for range tasks {
		err := <-errs
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) && first == nil {
			first = err
		}
	}
	s.conductors.Wait()
	return first
}

type service struct {
	Config
	conductors sync.WaitGroup

	mu     sync.Mutex
	drills map[string]running // those that are not finished, as far as is known
}

// watchDrills gives every unfinished drill a conductor. One that does not hold
// the drill's lease only watches it.
func (s *service) watchDrills(ctx context.Context) error {
	return s.Bus.WatchDrills(ctx, func(accepted bus.Stored) {
		id := accepted.Event.Subject
		if !s.note(id, accepted.Payload) {
			return
		}
		s.conductors.Add(1)
		go func() {
			defer s.conductors.Done()
			s.conduct(ctx, id)
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.drills, id)
		}()
	})
}

// running is an unfinished drill.
type running struct {
	targets []drill.Target
	// conducted is true once it has a conductor in this process.
	conducted bool
}

// targetsOf are the targets of the drill that an event begins; none if it cannot be
// read.
func targetsOf(first event.DrillAccepted) []drill.Target {
	var d drill.Drill
	if json.Unmarshal(first.Spec, &d) != nil {
		return nil
	}
	return d.Spec.Targets
}

// expect remembers a drill that is about to be stored.
func (s *service) expect(id string, targets []drill.Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.drills[id]; !known {
		s.drills[id] = running{targets: targets}
	}
}

// forget takes expect back, unless the drill was stored all the same.
func (s *service) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.drills[id].conducted {
		delete(s.drills, id)
	}
}

// note remembers a drill by its first event, and reports whether it needs a
// conductor.
func (s *service) note(id string, first any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, expected := s.drills[id]
	if p, ok := first.(*event.DrillAccepted); ok && !expected {
		r.targets = targetsOf(*p)
	}
	needs := !r.conducted
	r.conducted = true
	s.drills[id] = r
	return needs
}

// conducts reports whether a drill has a conductor in this process, which it has
// until it is finished.
func (s *service) conducts(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drills[id].conducted
}

// conductPause is the wait before a drill whose conductor failed is taken up again.
const conductPause = time.Second

// stayAway is how long an injector leaves a drill alone on which its conductor has
// panicked this many times. It is longer than the lease, so that another injector
// sees the holder silent and takes over, and grows, so that a drill on which every
// injector panics gets few events; the limit is for a fault that waits for its undo.
func stayAway(ttl time.Duration, panics int) time.Duration {
	return ttl << min(panics, 6)
}

// conductorAfter makes a drill's next conductor. After a panic it may not resume
// its predecessor's lease, but waits for it like every other injector.
func (s *service) conductorAfter(panics int, id string, log *slog.Logger) *conductor {
	c := newConductor(s.Config, id, log)
	c.restarted = panics == 0
	return c
}

// conduct keeps a conductor on a drill until it is finished. One that fails,
// because NATS could not be reached for a while, is replaced by one that folds
// the history anew: a drill is never left alone. Nor do the others suffer from one
// that panics; as it may do so each time, it goes last: it takes the lease again
// only if nobody else has, and not as the one who left it.
func (s *service) conduct(ctx context.Context, id string) {
	log := s.Log.With("drill", id)
	for panics := 0; ctx.Err() == nil; {
		c := s.conductorAfter(panics, id, log)
		err := safely(log, "the conductor", func() error { return c.run(ctx) })
		if err == nil || ctx.Err() != nil {
			return
		}
		away := conductPause
		if p := (*panicked)(nil); errors.As(err, &p) {
			panics++
			away = stayAway(s.LeaseTTL, panics)
			log.Error("the drill's conductor panicked; this injector leaves the drill to another one for a while", "error", err, "panics", panics, "away", away)
		} else {
			log.Error("the drill's conductor failed; it is taken up again", "error", err)
		}
		select {
		case <-time.After(away):
		case <-ctx.Done():
		}
	}
}

// Package mirror is the mirror service: it makes the copies of evidence that drills
// ask for, and runs the inventory's mirrors. It copies when it is asked or when it is
// time, and decides nothing.
package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/machine"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/services/mirror/fleet"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/tree"
)

// Config is what a mirror worker needs. Bus, Log and Clock are required.
type Config struct {
	Bus   *bus.Bus
	Log   *slog.Logger
	Clock target.Clock
	// Jobs is how many copies this process makes at once; 0 means 2.
	Jobs int
	// Engine copies directories; its zero value will do.
	Engine tree.Engine
	// Inventory has the mirrors, and StateDir is where they are remembered; without
	// both this process makes drills' copies only.
	Inventory drill.Inventory
	StateDir  string
	// Single has this process run mirrors for drills by itself, and for nobody else: it
	// takes no requests for runs and leaves the schedule alone. One that ends with a drill
	// must not begin what others have left in the store.
	Single bool
	// Locks is a directory of this machine by which its mirrors know of each other's places:
	// who writes to one has it alone; "" leaves them without turns.
	Locks machine.Locks
	// Signer vouches for the mirrors' manifests; nil leaves them unsigned.
	Signer event.Signer
	// Items is how many pieces of mirrors' work are under way at once; 0 lets the
	// mirror choose.
	Items int
}

// DefaultJobs is how many copies a process makes at once.
const DefaultJobs = 2

// durableJobs is the queue that all mirror workers share.
const durableJobs = "mirror-jobs"

// Run works off copies until ctx ends, and returns nil then. It may run in any
// number of processes that see the same file systems: they share the work.
func Run(ctx context.Context, c Config) error {
	if c.Jobs == 0 {
		c.Jobs = DefaultJobs
	}
	s := &service{Config: c, mirror: c.ask}
	if c.Single {
		s.mirror = c.itself()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var copies, mirrors error
	wg.Go(func() {
		defer cancel()
		copies = c.Bus.Work(ctx, durableJobs, bus.WorkOptions{Concurrency: c.Jobs}, s.onRequest)
		if ctx.Err() != nil {
			copies = nil
		}
	})
	if c.StateDir != "" && !c.Single {
		wg.Go(func() {
			defer cancel()
			mirrors = fleet.Run(ctx, c.fleet())
		})
	}
	wg.Wait()
	if copies != nil {
		copies = fmt.Errorf("mirror: work on %s: %w", durableJobs, copies)
	}
	return errors.Join(copies, mirrors)
}

// service is a worker.
type service struct {
	Config
	// mirror runs a mirror of the inventory; asked is the id of the event that asks for it.
	mirror func(ctx context.Context, name, asked string) (*fleet.Result, error)
}

// listing has a run look at the whole copy.
var listing = fleet.Request{Check: "listing"}

// ask has the fleet run a mirror.
func (c Config) ask(ctx context.Context, name, asked string) (*fleet.Result, error) {
	return fleet.Ask(ctx, c.Bus, bus.MirrorRequest{Who: fleet.ByDrill, Mirror: name}, asked, listing)
}

// itself has this process run mirrors.
func (c Config) itself() func(ctx context.Context, name, asked string) (*fleet.Result, error) {
	single := fleet.NewSingle(c.fleet())
	return func(ctx context.Context, name, _ string) (*fleet.Result, error) {
		return single.Do(ctx, bus.MirrorRequest{Who: fleet.ByDrill, Mirror: name}, listing)
	}
}

func (c Config) fleet() fleet.Config {
	now := func() time.Time { return c.Clock.Now().Wall }
	f := fleet.Config{
		Bus: c.Bus, Log: c.Log, Inventory: c.Inventory, Items: c.Items,
		Env: job.Env{StateDir: c.StateDir, Now: now, Pace: job.NewPace(now), Locks: c.Locks},
	}
	if c.Signer != nil {
		f.Env.Signer = func() (proof.Signer, error) { return c.Signer, nil }
	}
	return f
}

// onRequest makes one copy and answers. A request that has an answer already, or
// whose drill has moved on, is done.
func (s *service) onRequest(ctx context.Context, m bus.Message) error {
	st, err := m.Event()
	if err != nil {
		return bus.Poison(err)
	}
	req, ok := st.Payload.(*event.MirrorRequested)
	if !ok {
		return bus.Poison(fmt.Errorf("%s is not a request for a copy", st.Event.Type))
	}
	id := st.Event.Subject
	now, err := s.look(ctx, id, req.Step)
	if err != nil || !now.wanted {
		return err
	}
	answer := s.carryOut(ctx, id, cmp.Or(now.asked, st.Event.ID), req)
	if ctx.Err() != nil {
		return ctx.Err() // the process stops; another worker starts over
	}
	return s.answer(ctx, id, req.Step, answer)
}

// carryOut makes what is asked for; what goes wrong is an answer too.
func (s *service) carryOut(ctx context.Context, id, asked string, req *event.MirrorRequested) event.Draft {
	if req.Mirror == "" {
		return s.copy(ctx, copyName(id, req.Step, asked), req)
	}
	began := s.Clock.Now()
	got, err := s.run(ctx, id, asked, req)
	if err != nil {
		return event.Draft{Type: event.TypeMirrorFailed, Data: event.MirrorFailed{Step: req.Step, Reason: err.Error()}}
	}
	return event.Draft{Type: event.TypeMirrorCompleted, Data: event.MirrorCompleted{
		Step: req.Step, Began: began, Ended: s.Clock.Now(), Files: got.Done[plan.Put.String()], Bytes: got.Bytes, Root: got.Root,
	}}
}

// runLimit is how long a run is waited for: as long as a drill waits for such a step.
const runLimit = 2 * time.Hour

var (
	// ErrUnwanted is the cause of an answer that nobody waits for any more.
	ErrUnwanted = errors.New("the drill does not wait for it any more")
	// ErrTooLong says that a mirror's run did not end in time.
	ErrTooLong = errors.New("the run has not ended in time: see firedrill mirror status")
	// ErrBelieved says that a run did not look at all of the copy.
	ErrBelieved = errors.New("not all of the copy was looked at")
)

// run has a mirror run and the whole copy looked at, for as long as the drill waits for
// it.
func (s *service) run(ctx context.Context, id, asked string, req *event.MirrorRequested) (*fleet.Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, runLimit, ErrTooLong)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end(nil)
	wg.Go(func() { s.whileWanted(ctx, id, req.Step, end) })
	got, err := s.mirror(ctx, req.Mirror, asked)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("mirror %s: %w", req.Mirror, context.Cause(ctx))
	case err == nil && got.Believed > 0:
		err = fmt.Errorf("mirror %s: %w: %d entries were believed to be as they were left", req.Mirror, ErrBelieved, got.Believed)
	}
	return got, err
}

// whileWanted calls end when the drill waits for the step no more.
func (c Config) whileWanted(ctx context.Context, id, step string, end context.CancelCauseFunc) {
	now := standing{wanted: true}
	err := c.Bus.Follow(ctx, id, func(st bus.Stored) error {
		if now.take(st, step); now.wanted {
			return nil
		}
		end(ErrUnwanted)
		return bus.Stop
	})
	if err != nil && ctx.Err() == nil {
		c.Log.Warn("a run is waited for although its drill cannot be followed", "drill", id, "step", step, "error", err)
	}
}

// copyName names a copy: what its interrupted try left is gone on with. Drill and step
// are for people, who find it beside the copy. They do not suffice: a drill's id is
// given again after the store was lost, and the new drill must not write into the
// old one's evidence. So the event that asked for it first, whose id is its own, is
// part of the name; the event that asked again for the same step is not.
func copyName(id, step, asked string) string { return id + "/" + step + " " + asked }

// copy makes the copy; what goes wrong is an answer too.
func (c Config) copy(ctx context.Context, job string, req *event.MirrorRequested) (d event.Draft) {
	failed := func(err error) event.Draft {
		return event.Draft{Type: event.TypeMirrorFailed, Data: event.MirrorFailed{Step: req.Step, Reason: err.Error()}}
	}
	from, err := ParseLocation(req.From)
	to, terr := ParseLocation(req.To)
	if err := errors.Join(err, terr); err != nil {
		return failed(err)
	}
	defer func() {
		if r := recover(); r != nil {
			d = failed(fmt.Errorf("copy %s to %s panicked: %v", from, to, r))
		}
	}()
	began := c.Clock.Now()
	// A request that is handed out again, to whatever worker, is the same job.
	got, err := c.Engine.Copy(ctx, job, from.Path, to.Path)
	if errors.Is(err, tree.ErrNotEmpty) {
		err = fmt.Errorf("%w; {drill} in its path gives each drill its own", err)
	}
	if err != nil {
		return failed(err)
	}
	return event.Draft{Type: event.TypeMirrorCompleted, Data: event.MirrorCompleted{
		Step: req.Step, Began: began, Ended: c.Clock.Now(),
		Files: got.Files, Bytes: got.Bytes, Root: got.Root, Manifest: got.Manifest, Verified: got.Verified,
	}}
}

// answer stores the answer unless there is one, or nobody waits for it any more.
func (c Config) answer(ctx context.Context, id, step string, d event.Draft) error {
	for {
		now, err := c.look(ctx, id, step)
		if err != nil || !now.wanted {
			return err
		}
		_, err = c.Bus.AppendAt(ctx, id, now.tail, d)
		if !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
}

// standing is how a step stands in its drill's history.
type standing struct {
	// tail is where the history ends.
	tail bus.Tail
	// wanted says that the step still waits for its copy.
	wanted bool
	// asked is the id of the event that asked for the copy first.
	asked string
}

// look reads how a step stands.
func (c Config) look(ctx context.Context, id, step string) (standing, error) {
	past, err := c.Bus.History(ctx, id)
	if err != nil {
		return standing{}, err
	}
	now := standing{wanted: true}
	for _, st := range past {
		now.take(st, step)
	}
	return now, nil
}

// take adds the next event of the drill's history.
func (now *standing) take(st bus.Stored, step string) {
	now.tail = st.Tail()
	switch p := st.Payload.(type) { // nil for what is not trusted
	case *event.MirrorRequested:
		if now.asked == "" && p.Step == step {
			now.asked = st.Event.ID
		}
	case *event.MirrorCompleted:
		now.wanted = now.wanted && p.Step != step
	case *event.MirrorFailed:
		now.wanted = now.wanted && p.Step != step
	case *event.DrillFinished:
		now.wanted = false
	}
}

package observer

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// tick is how often the lanes are emptied and looked at.
const tick = 100 * time.Millisecond

// session follows one drill. Everything in it belongs to the goroutine of run;
// what other goroutines find out reaches it by the channels.
//
// It is level-triggered: after each event and each tick it compares what the
// history asks for with what it answered. Every append is a compare-and-set on
// the last event it folded, so an answer that something overtook is not stored
// but made again, and an observer that was replaced can write nothing any more.
// Appends run beside the session: a slow server holds up no judgement.
type session struct {
	c     Config
	id    string
	clock string
	log   *slog.Logger

	state  drill.State
	tail   bus.Tail
	clocks *verdict.ClockMap
	claim  claim
	// cut are the steps whose ledger.cut is in the history.
	cut map[string]bool
	// published are the last numbers of every lane and epoch, by phase.
	published map[string]map[verdict.LaneKey]int64
	// faults are the open phase's injected faults.
	faults []event.FaultInjected
	// failback is true from the first restore action or undo after settling.
	failback bool

	watch  *watch
	outbox outbox
	// giveWay is true while a claim that held too much publishes it and ends.
	giveWay bool
	// cleaned is true once a watch has cleaned up before the drill.
	cleaned bool
	// next are the sequence numbers that lanes go on with, over phases.
	next map[laneID]int64
	// blocked is the tail at which an append met a conflict: nothing is appended
	// until the event that came between was folded.
	blocked *bus.Tail

	// pause is when appending is tried again after an error.
	pause int64
	// room is how many events the next append may have, see mayTake.
	room int

	// writing is the append under way, nil without one; wrote gets what came of it.
	writing *writing
	wrote   chan written

	events  chan bus.Stored
	compare comparing
	calls   sync.WaitGroup
}

func runSession(ctx context.Context, c Config, id string) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &session{
		c: c, id: id, clock: c.Clock.Now().Clock,
		log:   c.Log.With("drill", id),
		claim: claim{me: c.Bus.Identity().Instance},
		cut:   map[string]bool{}, published: map[string]map[verdict.LaneKey]int64{}, next: map[laneID]int64{},
		events: make(chan bus.Stored, 256), wrote: make(chan written, 1),
	}
	s.outbox.limit = c.hold
	s.clocks = verdict.NewClockMap(s.clock)
	s.compare = comparing{done: make(chan event.ClockCompared, 4), at: map[string]time.Time{}}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("session of drill %s panicked: %v\n%s", id, r, debug.Stack())
		}
		cancel()
		s.dropWatch(ctx)
		if s.writing != nil {
			s.writing.cancel()
		}
		s.calls.Wait()
	}()
	return s.run(ctx)
}

func (s *session) run(ctx context.Context) error {
	past, err := s.c.Bus.History(ctx, s.id)
	if err != nil {
		return fmt.Errorf("read the drill's history: %w", err)
	}
	for _, st := range past {
		s.fold(st)
	}
	s.claim.atStart()
	s.calls.Go(func() { s.follow(ctx) })
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.leave(ctx)
		case st := <-s.events:
			s.fold(st)
			s.foldMore()
		case r := <-s.wrote:
			s.endAppend(ctx, r)
		case c := <-s.compare.done:
			s.tell(event.Draft{Type: event.TypeClockCompared, Data: c})
		case <-ticker.C:
		}
		if s.step(ctx) {
			return nil
		}
	}
}

// follow passes on the drill's events. When the server is away it comes back to
// them; what was passed on before is folded once only.
func (s *session) follow(ctx context.Context) {
	for {
		err := s.c.Bus.Follow(ctx, s.id, func(st bus.Stored) error {
			select {
			case s.events <- st:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if ctx.Err() != nil {
			return
		}
		s.log.WarnContext(ctx, "following the drill was interrupted and goes on", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

// retryPause is the wait before something is asked of the server again.
const retryPause = 500 * time.Millisecond

// foldMore folds what has arrived, so that the session acts on the newest state.
func (s *session) foldMore() {
	for {
		select {
		case st := <-s.events:
			s.fold(st)
		default:
			return
		}
	}
}

// step brings what is done in line with what the history asks for. It reports
// true when there is nothing left to do for the drill.
func (s *session) step(ctx context.Context) (done bool) {
	if s.state.Published {
		s.dropWatch(ctx)
		s.cleanUp(ctx)
		return true
	}
	s.stepClaim(ctx)
	if !s.claim.mine() {
		s.yield(ctx)
		return false
	}
	if !s.overfull(ctx) {
		s.stepWatch(ctx)
	}
	s.flush(ctx)
	return false
}

// yield ends what is left of a claim that another observer took: attempts that wait
// would follow its own in the history, where a claim to come would never forget them.
func (s *session) yield(ctx context.Context) {
	if s.watch == nil && !s.claim.lost() {
		return
	}
	if s.watch != nil || !s.outbox.empty() {
		s.log.WarnContext(ctx, "another observer has taken over; this one stops", "holder", s.claim.holder, "epoch", s.claim.epoch, "attempts given up", s.outbox.held)
	}
	s.dropWatch(ctx)
	s.outbox, s.giveWay = outbox{limit: s.c.hold}, false
}

// stepWatch opens, serves and closes the watch of the open phase.
func (s *session) stepWatch(ctx context.Context) {
	if s.watch != nil && s.watch.phase.Name != s.state.Phase {
		s.dropWatch(ctx)
	}
	if s.watch == nil && s.state.Phase != "" {
		if p, ok := s.phase(s.state.Phase); ok {
			s.watch = s.openWatch(ctx, p)
		}
	}
	if s.watch == nil {
		return
	}
	s.admitLanes(ctx)
	s.drain()
	s.setRate()
	s.startComparison(ctx)
	s.stopConditions(ctx)
	if s.state.Abort == nil {
		s.serve(ctx)
	}
	s.serveCuts(ctx)
}

// dropWatch stops the lanes at once and keeps their last attempts for the
// outbox. It takes as long as the longest deadline at most.
func (s *session) dropWatch(ctx context.Context) {
	if s.watch == nil {
		return
	}
	if err := s.watch.stop(ctx); err != nil {
		s.log.WarnContext(ctx, "a lane did not stop cleanly", "error", err)
	}
	s.drain()
	for _, l := range s.watch.lanes {
		s.next[l.id] = l.lane.LastSeq() + 1
	}
	s.watch = nil
}

// overfull ends the claim when more attempts wait for the server than may be held:
// no more are made, those that were are published, and then the drill is claimed
// anew. The history shows the hole between the two claims, as after a restart.
func (s *session) overfull(ctx context.Context) bool {
	switch {
	case s.outbox.full() && s.watch != nil:
		s.log.ErrorContext(ctx, "the server takes no events; no attempts are made until it has taken those that wait, and then the drill is claimed anew",
			"waiting", s.outbox.held)
		s.dropWatch(ctx)
		s.giveWay = true
	case s.giveWay && s.outbox.empty():
		s.giveWay = false
		s.claim.renew()
		s.stepClaim(ctx)
	}
	return s.giveWay || !s.claim.mine()
}

// laneEndTime is how long a stopping observer waits for the attempts under way, and
// leaveTime how long it then takes to publish what it has and to read what it has not
// heard of: each has its own, so that a service that hangs leaves time for the latter.
// With cleanTime they are below the 20 s after which a process ends anyway.
const (
	laneEndTime = 2 * time.Second
	leaveTime   = 2 * time.Second
)

// leave publishes the last attempts when the process stops, and cleans up if the
// drill is over. Another instance, or this one's next start, goes on with a new
// epoch.
func (s *session) leave(ctx context.Context) error {
	s.foldMore()
	lanes, cancel := context.WithTimeout(context.WithoutCancel(ctx), laneEndTime)
	defer cancel()
	s.dropWatch(lanes)
	brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	s.flushAll(brief)
	if s.state.Phase == "" {
		s.catchUp(brief)
	}
	if s.state.Published {
		s.cleanUp(ctx)
	}
	return nil
}

// catchUp folds what was not passed on yet. A process that runs one drill stops
// on its report, which this session may not have heard of.
func (s *session) catchUp(ctx context.Context) {
	if s.state.Published {
		return
	}
	more, err := s.c.Bus.HistoryAfter(ctx, s.id, s.tail)
	if err != nil {
		s.log.WarnContext(ctx, "how the drill went on is not known; canaries may stay until the next start", "error", err)
		return
	}
	for _, st := range more {
		s.fold(st)
	}
}

// fold takes one event into account; events that were folded before change nothing.
func (s *session) fold(st bus.Stored) {
	if st.Seq <= s.tail.Seq {
		return
	}
	s.tail, s.blocked = st.Tail(), nil
	e := st.Event
	if st.Trust != nil {
		s.log.Error("a message in the drill's history is not trusted and not acted on", "seq", st.Seq, "error", st.Trust)
		return
	}
	s.state = drill.Apply(s.state, e)
	if isNotice(e.Type) && s.claim.mine() {
		s.outbox.noticed() // only the claim's holder writes them, in the outbox's order
	}
	s.claim.hear(e, s.c.Clock.Now().Mono)
	switch p := st.Payload.(type) {
	case *event.ObserverClaimed:
		s.claim.set(p)
	case *event.PhaseStarted:
		s.faults, s.failback = nil, false
		s.claim.phaseStarted(s.c.Clock.Now().Mono)
	case *event.FaultInjected:
		s.faults = append(s.faults, *p)
	case *event.ActionIntended:
		s.noteFailback()
	case *event.UndoIntended:
		s.noteFailback()
	case *event.LedgerCut:
		s.cut[p.Step] = true
	case *event.ProbeBatch:
		s.noteBatch(p)
	case *event.ClockCompared:
		if p.Observer == s.clock {
			if err := s.clocks.Add(*p, int64(e.Mono)); err != nil {
				s.log.Warn("a clock comparison is not used", "error", err)
			}
		}
	}
	s.wantComparison(e)
}

// noteFailback sees whether effects are being put back, as opposed to recovery.
func (s *session) noteFailback() {
	settle := s.state.Step(drill.StepID(s.state.Phase, drill.StepSettle, "")).Status
	if settle == drill.Done || settle == drill.Failed || s.state.Abort != nil {
		s.failback = true
	}
}

func (s *session) noteBatch(b *event.ProbeBatch) {
	m := s.published[b.Phase]
	if m == nil {
		m = map[verdict.LaneKey]int64{}
		s.published[b.Phase] = m
	}
	k := verdict.LaneKey{Probe: b.Probe, Kind: b.Kind, Name: b.Lane, Epoch: b.Epoch}
	m[k] = max(m[k], b.FirstSeq+int64(len(b.Outcomes))-1)
	if b.Epoch == s.claim.epoch {
		s.claim.heardBatch = true
	}
	if b.Epoch == s.claim.own {
		s.outbox.published(b.Phase, laneID{b.Probe, b.Lane}, m[k])
	}
}

func (s *session) phase(name string) (drill.Phase, bool) {
	for _, p := range drill.WithDefaults(s.state.Drill).Spec.Phases {
		if p.Name == name {
			return p, true
		}
	}
	return drill.Phase{}, false
}

// reading turns a moment of the observer's clock into a full reading.
func (s *session) reading(mono int64) event.Reading {
	now := s.c.Clock.Now()
	return event.Reading{Clock: now.Clock, Mono: mono, Wall: now.Wall.Add(time.Duration(mono - now.Mono))}
}

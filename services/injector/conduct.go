package injector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/telemetry"
)

// conductor follows one drill and, while it holds the lease, does what
// drill.Next says. One goroutine owns all its fields.
type conductor struct {
	Config
	id     string
	holder string
	log    *slog.Logger

	state drill.State
	tail  bus.Tail
	// epoch is the lease this process holds; 0 while it holds none. A process
	// never resumes the lease of another, not even under its own name.
	epoch int64
	// heard is when the lease's holder last gave a sign of life, by this
	// process's clock.
	heard time.Time
	// held is when this process last set out to store what it then did store: the
	// lease was its own at least until then. The effect under way reads it too.
	held atomic.Pointer[time.Time]
	// restarted is true until this conductor has held the lease or waited for it:
	// a lease under its own name is then one that its predecessor left.
	restarted bool
	// halted is the kill switch; nil until it was read once, and until then the
	// lease is not taken.
	halted *bus.Halt
	// pending are commands not yet in the history. Every injector hears every
	// command and keeps it, so that none is lost with the lease's holder.
	pending []drill.Command
	effects *effects
	// prepared is the step that was last resolved ahead of its time.
	prepared string
	// surveyed tells that this conductor has looked for what undoing will need.
	surveyed bool
	// waitsFor is what was last logged of another firedrill that has one of the systems.
	waitsFor string

	events   chan bus.Stored
	commands chan drill.Command
	results  chan drill.Command
	halts    chan bus.Halt
	// feeds tells when one of the three feeds has ended.
	feeds chan error
	// running cancels the effect under way; nil while there is none. undoing
	// tells that it is an undo, which an abort does not cancel.
	running context.CancelFunc
	undoing bool
}

func newConductor(c Config, id string, log *slog.Logger) *conductor {
	return &conductor{
		Config: c, id: id, holder: c.Bus.Identity().Instance, log: log,
		effects:  newEffects(c, id, log),
		events:   make(chan bus.Stored),
		commands: make(chan drill.Command),
		results:  make(chan drill.Command, 1),
		halts:    make(chan bus.Halt),
		feeds:    make(chan error, 3), restarted: true,
	}
}

// run returns when the drill is finished, the context ends, or the history
// cannot be followed.
func (c *conductor) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(telemetry.DrillContext(ctx, c.id))
	c.feed(ctx)
	defer func() {
		cancel()
		for range cap(c.feeds) {
			<-c.feeds
		}
		if c.running != nil {
			<-c.results // an effect never outlives its conductor
		}
		c.effects.close(ctx)
	}()
	c.heard = time.Now()
	for {
		wait, err := c.step(ctx)
		if err != nil || c.state.Finished != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case err := <-c.feeds:
			timer.Stop()
			return c.feedEnded(err)
		case ev := <-c.events:
			c.apply(ev)
		case cmd := <-c.commands:
			c.pending = append(c.pending, cmd)
		case h := <-c.halts:
			c.halted = &h
		case res := <-c.results:
			c.running = nil
			err = c.command(ctx, res)
		case <-timer.C:
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

// feed starts the goroutines that hand events, commands and halts to the loop.
func (c *conductor) feed(ctx context.Context) {
	go func() {
		c.feeds <- c.Bus.Follow(ctx, c.id, func(ev bus.Stored) error { return send(ctx, c.events, ev) })
	}()
	go func() {
		c.feeds <- c.Bus.FollowCommands(ctx, c.id, func(verb string, data []byte) error {
			cmd, err := readCommand(verb, data)
			if err != nil {
				c.log.Warn("command ignored", "verb", verb, "error", err)
				return nil
			}
			return send(ctx, c.commands, cmd)
		})
	}()
	go func() {
		c.feeds <- c.Bus.WatchHalt(ctx, func(h bus.Halt) { _ = send(ctx, c.halts, h) })
	}()
}

// feedEnded turns the end of a feed into run's error, and keeps the count for
// the join.
func (c *conductor) feedEnded(err error) error {
	c.feeds <- err
	if err == nil {
		err = errors.New("it ended")
	}
	return fmt.Errorf("drill %s: following it: %w", c.id, err)
}

func send[T any](ctx context.Context, ch chan<- T, v T) error {
	select {
	case ch <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// apply folds an event. Own events arrive twice, from the append and from the
// stream; the chain index tells.
func (c *conductor) apply(ev bus.Stored) {
	if ev.Seq <= c.tail.Seq {
		return
	}
	c.tail = ev.Tail()
	if ev.Trust != nil {
		c.log.Error("event not trusted, not folded", "sequence", ev.Seq, "error", ev.Trust)
		return
	}
	c.state = drill.Apply(c.state, ev.Event)
	if ev.Event.Service() == event.Injector && ev.Event.Instance() == c.state.Lease.Holder {
		c.heard = time.Now()
	}
	if c.epoch != 0 && c.state.Lease.Epoch != c.epoch {
		c.log.Warn("fenced: another injector took the drill over", "holder", c.state.Lease.Holder)
		c.epoch = 0
		c.stopEffect()
	}
}

// step does what is due and says how long nothing else will be.
func (c *conductor) step(ctx context.Context) (time.Duration, error) {
	if c.state.Program == nil {
		return time.Minute, nil // not caught up yet
	}
	if c.epoch == 0 {
		return c.awaitLease(ctx)
	}
	for c.state.Finished == nil && c.epoch != 0 {
		if err := c.interrupt(ctx); err != nil {
			return 0, err
		}
		renew := c.LeaseTTL/3 - time.Since(*c.held.Load())
		if renew <= 0 {
			if err := c.command(ctx, drill.RenewLease{Holder: c.holder}); err != nil {
				return 0, err
			}
			return 0, nil
		}
		if c.running != nil {
			if c.state.Abort != nil && !c.undoing {
				c.stopEffect()
			}
			if left := drill.TimeLeft(c.state, c.Clock.Now()); c.state.Abort == nil {
				return min(renew, max(left, time.Millisecond)), nil
			}
			return renew, nil
		}
		m := drill.Next(c.state, c.Clock.Now())
		if !c.surveyed && (m.Kind == drill.MoveWait || m.Kind == drill.MoveResolve) && drill.SurveyDue(c.state) {
			c.surveyed = true
			m = drill.Move{Kind: drill.MoveSurvey}
		}
		switch m.Kind {
		case drill.MoveWait:
			wait := renew
			if m.Wait > 0 {
				wait = min(wait, m.Wait)
			}
			return c.prepare(ctx, wait), nil
		case drill.MoveAppend:
			moved, err := c.append(ctx, c.onward(m.Drafts))
			if err != nil {
				return 0, err
			}
			if !moved {
				return time.Minute, nil // the event that was in the way is on its way
			}
		case drill.MoveEnd:
			return 0, nil
		default:
			c.start(ctx, m)
		}
	}
	return time.Minute, nil
}

// prepare resolves the fault that comes next when its time has come, and says how
// long there is nothing else to do.
func (c *conductor) prepare(ctx context.Context, wait time.Duration) time.Duration {
	st, due, ok := drill.Ahead(c.state, c.Clock.Now())
	switch {
	case !ok || c.prepared == st.ID:
		return wait
	case due > 0:
		return min(wait, due)
	}
	c.prepared = st.ID
	c.start(ctx, drill.Move{Kind: drill.MovePrepare, Step: st})
	return wait
}

// awaitLease takes the lease if it is free, if it was left by a predecessor of
// this very instance, or if its holder has been silent for longer than its TTL.
func (c *conductor) awaitLease(ctx context.Context) (time.Duration, error) {
	if c.halted == nil || c.running != nil {
		return time.Minute, nil // woken by the switch's state, or by the effect's end
	}
	if err := c.effects.holds.release(); err != nil { // of a lease that was lost
		return 0, err
	}
	l := c.state.Lease
	take := drill.TakeLease{Holder: c.holder, TTL: c.LeaseTTL}
	switch {
	case l.Epoch == 0:
	case l.Holder == c.holder && c.restarted:
		take.Reason = "the injector was restarted"
	default:
		c.restarted = false
		if left := c.LeaseTTL - time.Since(c.heard); left > 0 {
			return left, nil
		}
		take.Reason = fmt.Sprintf("%s was silent for %s", l.Holder, c.LeaseTTL)
	}
	drafts, err := drill.Decide(c.state, take)
	if err != nil {
		return time.Minute, nil // finished meanwhile
	}
	if !c.holdAgain() {
		return holdPause, nil
	}
	epoch := l.Epoch + 1
	moved, err := c.append(ctx, drafts)
	if err != nil || !moved {
		return time.Minute, errors.Join(err, c.effects.holds.release())
	}
	c.epoch, c.restarted, c.surveyed = epoch, false, false
	c.log.Info("conducting", "epoch", epoch, "reason", take.Reason)
	return 0, nil
}

// holdAgain locks the drill's systems for who is to take it up, for a predecessor's locks
// went with it. While another firedrill has one, the drill stays as it is: what this one
// would break, or put back, would be in the midst of the other's.
func (c *conductor) holdAgain() bool {
	if c.state.Lease.Epoch == 0 || c.state.Waives != "" {
		return true // planning locks them, or nothing is touched
	}
	err := c.effects.holds.take(c.Locks, c.state, c.state.Systems, c.log)
	if err == nil {
		c.waitsFor = ""
		return true
	}
	if c.waitsFor != err.Error() {
		c.waitsFor = err.Error()
		c.log.Warn("the drill is taken up later", "error", err)
	}
	return false
}

// command lets something from outside into the history, if this process holds
// the lease: another holder hears the same commands.
func (c *conductor) command(ctx context.Context, cmd drill.Command) error {
	for c.epoch != 0 && c.state.Finished == nil {
		drafts, err := drill.Decide(c.state, cmd)
		if errors.Is(err, drill.ErrOver) || (err == nil && len(drafts) == 0) {
			return nil
		}
		if err != nil {
			return err
		}
		moved, err := c.append(ctx, c.onward(drafts))
		if moved || err != nil {
			return err
		}
		if err := c.catchUp(ctx); err != nil {
			return err
		}
	}
	return nil
}

// onward adds to drafts what is due right after them. While an effect is under way
// nothing is: its outcome has to be in the history first.
func (c *conductor) onward(drafts []event.Draft) []event.Draft {
	if c.running != nil {
		return drafts
	}
	return drill.Onward(c.state, drafts, c.Clock.Now())
}

// append stores drafts at the tail that was folded. It reports false when the
// history has moved on: the caller decides anew.
func (c *conductor) append(ctx context.Context, drafts []event.Draft) (bool, error) {
	began := time.Now()
	stored, err := c.Bus.AppendAt(ctx, c.id, c.tail, drafts...)
	if errors.Is(err, bus.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("drill %s: storing %s: %w", c.id, drafts[0].Type, err)
	}
	c.held.Store(&began)
	for _, s := range stored {
		c.apply(s)
		c.log.Info(string(s.Event.Type), "index", s.Event.ChainIndex)
	}
	return true, nil
}

// catchUp waits for the next event of the history.
func (c *conductor) catchUp(ctx context.Context) error {
	select {
	case ev := <-c.events:
		c.apply(ev)
		return nil
	case err := <-c.feeds:
		return c.feedEnded(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// interrupt lets in what cuts into a drill's course, also while an effect is
// under way: the kill switch, commands, the deadline.
func (c *conductor) interrupt(ctx context.Context) error {
	// Halting stops what breaks things; a settlement puts them back.
	if h := c.halted; h.Halted && c.state.Abort == nil && c.state.Settles == "" {
		if err := c.command(ctx, drill.Abort{By: h.By, Reason: "halted: " + h.Reason, Cause: drill.CauseHalt}); err != nil {
			return err
		}
	}
	for len(c.pending) > 0 && c.epoch != 0 {
		if err := c.command(ctx, c.pending[0]); err != nil {
			return err
		}
		if c.epoch == 0 {
			return nil // lost before it was stored: it is kept for when the lease comes back
		}
		c.pending = c.pending[1:]
	}
	if c.running != nil && c.epoch != 0 && c.state.Abort == nil && drill.TimeLeft(c.state, c.Clock.Now()) <= 0 {
		return c.command(ctx, drill.PastDeadline(c.state))
	}
	return nil
}

// start runs a move's effect beside the loop, which stays free to renew the
// lease, to hear an abort, and to be fenced.
func (c *conductor) start(ctx context.Context, m drill.Move) {
	ctx, cancel := context.WithCancel(ctx)
	c.running, c.undoing = cancel, m.Kind == drill.MoveUndo
	st := c.state
	go func() {
		defer cancel()
		c.results <- c.effects.run(ctx, st, m, c.Clock.Now(), c.fenced)
	}()
}

// fenced says whether too much time has passed since the lease was last known to
// be held: a process that was suspended between the stored intent and the effect
// must not wake up and act on a drill that has another conductor. A target that is
// merely slow to answer is no such thing: the lease is renewed meanwhile.
func (c *conductor) fenced() error {
	if silent := time.Since(*c.held.Load()); silent > c.LeaseTTL/2 {
		return fmt.Errorf("not done: this process stood still for %s and may have lost the drill", silent.Round(time.Millisecond))
	}
	return nil
}

func (c *conductor) stopEffect() {
	if c.running != nil {
		c.running()
	}
}

package observer

import (
	"context"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// openingPatience is how long the claimed observer may take to open its lanes,
// during which it has nothing to say.
const openingPatience = 30 * time.Second

// claim is who observes the drill, as the history says.
type claim struct {
	// me is this process's instance name.
	me     string
	holder string
	epoch  int64
	// own is the epoch that this session claimed; 0 when it did not.
	own int64
	// asked is the epoch that this session claimed last, heard or not whether it got it.
	asked int64
	// restarted is true when the holder at the session's start had this
	// instance's name, an earlier life of it, and nobody else has claimed since.
	restarted bool
	// heard and started are when, on this process's clock, the holder's last
	// event and the phase's start arrived.
	heard, started int64
	// heardBatch is true once the holder published attempts in the open phase.
	heardBatch bool
}

func (c *claim) mine() bool { return c.own != 0 && c.own == c.epoch }

// lost reports whether another claim followed this session's.
func (c *claim) lost() bool { return c.own != 0 && c.own != c.epoch }

// unanswered reports whether the history has this session's claim, and the session
// does not watch by it, since the answer to it was lost.
func (c *claim) unanswered() bool {
	return c.asked != 0 && c.asked == c.epoch && c.holder == c.me && !c.mine()
}

func (c *claim) set(p *event.ObserverClaimed) {
	if p.Epoch > c.epoch {
		c.holder, c.epoch = p.Instance, p.Epoch
		c.heardBatch = false
		c.restarted = c.restarted && c.holder == c.me // another one is well, and keeps it
	}
}

func (c *claim) atStart() { c.restarted = c.holder == c.me }

// renew gives the claim up, for another one by the same session.
func (c *claim) renew() { c.own, c.restarted = 0, true }

func (c *claim) hear(e event.Event, now int64) {
	if e.Service() == event.Observer {
		c.heard = now
	}
}

func (c *claim) phaseStarted(now int64) { c.started, c.heardBatch = now, false }

// wants says whether this session should claim the drill now. A second process
// that runs under the same instance name is treated like any other instance.
func (c *claim) wants(phaseOpen bool, now int64, silence, opening time.Duration) bool {
	switch {
	case c.mine():
		return false
	case c.epoch == 0, c.restarted && c.own == 0, c.unanswered():
		return true
	case !phaseOpen:
		return false
	}
	patience := silence
	if !c.heardBatch {
		patience = max(silence, opening)
	}
	return now-max(c.heard, c.started) > int64(patience)
}

// stepClaim claims the drill when nobody observes it, or nobody does any more.
func (s *session) stepClaim(ctx context.Context) {
	if s.state.Lease.Epoch == 0 || s.state.Finished != nil {
		return // whoever will conduct the drill is about to take it: not in its way
	}
	silence := s.c.Silence
	if p, ok := s.phase(s.state.Phase); ok {
		silence += quiet(p)
	}
	if !s.claim.wants(s.state.Phase != "", s.c.Clock.Now().Mono, silence, openingPatience) {
		return
	}
	if !s.mayAppend() {
		return
	}
	epoch := s.claim.epoch + 1
	s.claim.asked = epoch
	s.append(ctx, func() {
		s.claim.own = epoch
		s.log.InfoContext(ctx, "observing the drill", "epoch", epoch)
	}, event.Draft{Type: event.TypeObserverClaimed, Data: event.ObserverClaimed{Instance: s.claim.me, Epoch: epoch}})
}

// quiet is how long a healthy observer of the phase may have nothing to publish:
// its attempts may all last until their deadline, and be far apart.
func quiet(p drill.Phase) time.Duration {
	var d, interval time.Duration
	for i, pr := range p.Probes {
		d = max(d, pr.Deadline.D())
		if i == 0 || pr.Interval.D() < interval {
			interval = pr.Interval.D()
		}
	}
	return 2*d + interval
}

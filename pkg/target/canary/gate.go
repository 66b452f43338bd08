package canary

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrHeldBack is the error of attempts that sent nothing, because the service owed their
// lane answers for all of their time. It says nothing of the service.
var ErrHeldBack = errors.New("nothing was sent")

// noDeadline stands in for the deadline of an attempt that has none.
const noDeadline = 5 * time.Second

// Gate holds a lane's attempts back while the service owes it too many answers. A service
// that hangs goes on with all that it was asked, long after nobody waits for it any more:
// attempts that each asked anew would keep it from coming back.
//
// Attempts wait for one of the answers that are owed. Each quarter of a deadline one goes
// through all the same, and looks whether there is a service that answers by now: one that
// comes then, and has all of its time for that, or, half that time later, one that waits.
// It is safe for concurrent use.
type Gate struct {
	full func() bool
	mu   sync.Mutex
	// looked is when an attempt last went through to look.
	looked time.Time
	// changed is closed when those who wait are to see whether they may go on.
	changed chan struct{}
}

// NewGate makes a gate that is shut while full says so, which must be safe for concurrent
// use. Whoever changes what it says calls Tell.
func NewGate(full func() bool) *Gate { return &Gate{full: full, changed: make(chan struct{})} }

// Pass waits until an attempt may go on. looks says that it goes through a gate that is
// shut. The error is an ErrHeldBack: its time is over.
func (g *Gate) Pass(ctx context.Context) (looks bool, err error) {
	every := noDeadline / 4
	if end, ok := ctx.Deadline(); ok {
		every = time.Until(end) / 4
	}
	for looksAfter := every; ; looksAfter = every * 3 / 2 {
		looks, changed, next := g.turn(looksAfter)
		if next <= 0 {
			return looks, nil
		}
		again := time.NewTimer(next)
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", ErrHeldBack, context.Cause(ctx))
		}
		if again.Stop(); err != nil {
			return false, err
		}
	}
}

// turn says how long an attempt has to wait unless something changes. One that has not, at
// a gate that is shut, so long after the last look, is taken to look.
func (g *Gate) turn(after time.Duration) (looks bool, changed <-chan struct{}, next time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.full() {
		return false, nil, 0
	}
	now := time.Now()
	if next = after - now.Sub(g.looked); next <= 0 {
		g.looked = now
	}
	return true, g.changed, next
}

// Tell has those who wait see whether they may go on.
func (g *Gate) Tell() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.changed)
	g.changed = make(chan struct{})
}

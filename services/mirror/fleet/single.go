package fleet

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/bus"
)

// Single runs mirrors for the process that has it and for nobody else. It takes nothing
// from the queues that processes share, puts nothing there, and leaves the schedule
// alone: what others have asked for waits for a process that takes part. Their leases
// and their events it shares with all. It may be used by several goroutines at once.
type Single struct{ runner *runner }

// NewSingle needs of a Config what Run does.
func NewSingle(c Config) *Single {
	r := newRunner(c.complete())
	r.single = true
	return &Single{r}
}

// Do runs a mirror, and returns when the run has ended, as Ask does. A run whose ctx ends
// is called off: nobody goes on with it.
func (s *Single) Do(ctx context.Context, m bus.MirrorRequest, r Request) (*Result, error) {
	t, err := r.task()
	if err != nil {
		return nil, fmt.Errorf("mirror %s: %w", m.Mirror, err)
	}
	mirror, known := s.runner.Inventory.FindMirror(m.Mirror)
	if !known {
		return nil, fmt.Errorf("mirror %s: %w", m.Mirror, ErrUnknown)
	}
	// No stored request has a number that begins with a letter.
	e := Event{Mirror: m.Mirror, Run: "s" + strings.ToLower(rand.Text()[:10]), Do: t.do, By: m.Who}
	before, _, err := s.runner.Bus.LastMirror(ctx, m.Mirror)
	if err != nil {
		return nil, err
	}
	run, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer context.AfterFunc(ctx, func() { end(fmt.Errorf("%w: %w", ErrCancelled, context.Cause(ctx))) })()
	once := bus.Message{Seq: before.Seq, Delivered: 1}
	if err := s.runner.attempt(run, &request{message: once, mirror: mirror, task: t, event: e}); err != nil {
		return nil, fmt.Errorf("mirror %s: %w", m.Mirror, err)
	}
	// Its end is stored by now.
	w := WatchRun(m.Mirror, e.Run, before.Seq)
	return w.came(w.Follow(ctx, s.runner.Bus))
}

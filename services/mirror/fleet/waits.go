package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// waitsTold is how long a run waits before it is told that it does, and waitsEvery how
	// often it is told again: who is silent is taken for dead.
	waitsTold  = time.Second
	waitsEvery = 20 * time.Second
)

// waits tells that a run waits. Its methods are called by one goroutine at a time.
type waits struct {
	runner *runner
	event  Event
	// since is when it began to wait for what it waits for, next when that is told.
	since, next time.Time
	stop        func()
}

// begin tells, from a moment later until over is called or ctx ends, that the run waits. why
// is "" where others are to be asked for the reason.
func (w *waits) begin(ctx context.Context, why string) {
	w.over()
	if w.since.IsZero() {
		now := w.runner.Env.Now()
		w.since, w.next = now.UTC(), now.Add(waitsTold)
	}
	ctx, cancel := context.WithCancel(ctx)
	var told sync.WaitGroup
	told.Go(func() {
		for {
			next := time.NewTimer(w.next.Sub(w.runner.Env.Now()))
			select {
			case <-ctx.Done():
				next.Stop()
				return
			case <-next.C:
			}
			e := w.event
			if e.Since, e.Reason = &w.since, why; why == "" {
				e.Reason = w.reason(ctx)
			}
			if err := w.runner.tell(ctx, KindWaiting, e); err != nil && ctx.Err() == nil {
				w.runner.Log.Warn("tell that a run waits", "mirror", e.Mirror, "run", e.Run, "error", err)
			}
			w.next = w.runner.Env.Now().Add(waitsEvery)
		}
	})
	w.stop = func() { cancel(); told.Wait() }
}

// over says that the run waits no more; nothing is told of that once it returns.
func (w *waits) over() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// reason says what a run waits for that has not begun.
func (w *waits) reason(ctx context.Context) string {
	l, err := w.runner.Bus.MirrorLease(ctx, w.event.Mirror)
	if err == nil && l.Run != "" && l.Run != w.event.Run {
		return fmt.Sprintf("run %s has the mirror, planned by %s", l.Run, l.Instance)
	}
	return "other runs come first: one has a location in common with it, or the process that took it up has as many under way as it may"
}

// Package observer watches the targets of every drill from before the first
// fault to after the restore: it makes attempts, publishes what became of them,
// and answers when the injector asks whether things are steady. It acts on a
// target only by its canaries, and it judges nothing.
package observer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/target"
)

// Config is what an observer needs. All fields but Silence are required.
type Config struct {
	Bus      *bus.Bus
	Registry target.Registry
	Log      *slog.Logger
	// Clock is the process's system clock; all attempts are stamped with it.
	Clock target.Clock
	// Silence is how long a claimed observer may be silent in an open phase
	// before another instance takes over; 0 means 5 s.
	Silence time.Duration

	// hold is how many attempts may wait for the server; 0 means maxHeld.
	hold int
}

// Run watches every unfinished drill until ctx ends, and returns nil then, after
// at most 20 s in which it publishes the last attempts and removes the canaries of
// drills whose report is out. A drill whose session breaks is taken up again after
// a pause; it never takes the others with it.
//
// While a phase is watched it raises the process's GOMAXPROCS to 16, unless the
// environment sets it, and has the kernel run its threads in short slices.
func Run(ctx context.Context, c Config) error {
	if c.Silence == 0 {
		c.Silence = DefaultSilence
	}
	w := &watcher{c: c, known: map[string]bool{}}
	defer w.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the sessions end with the watching, however that ends
	if err := w.takeOld(ctx); err != nil && ctx.Err() == nil {
		c.Log.WarnContext(ctx, "drills that ended without an observer are not looked for", "error", err)
	}
	err := c.Bus.WatchDrills(ctx, func(accepted bus.Stored) { w.take(ctx, accepted.Event.Subject) })
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("observer: watch for drills: %w", err)
}

// DefaultSilence is how long an observer may be silent before another takes over.
const DefaultSilence = 5 * time.Second

// watcher keeps one session a drill.
type watcher struct {
	c  Config
	wg sync.WaitGroup

	mu    sync.Mutex
	known map[string]bool
}

func (w *watcher) take(ctx context.Context, drill string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known[drill] {
		return
	}
	w.known[drill] = true
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		w.keep(ctx, drill)
	}()
}

// keep runs a drill's session until it ends well.
func (w *watcher) keep(ctx context.Context, drill string) {
	pause := 200 * time.Millisecond
	for ctx.Err() == nil {
		err := runSession(ctx, w.c, drill)
		if err == nil || ctx.Err() != nil {
			return
		}
		w.c.Log.ErrorContext(ctx, "the drill's session broke and is started again", "drill", drill, "error", err, "pause", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, 10*time.Second)
	}
}

// Package heavy keeps the heavy work of a machine apart: what keeps its disks busy for long
// must not run over each other. What is done within moments asks for nothing.
package heavy

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
)

// DefaultLong is after how long work is heavy.
const DefaultLong = time.Minute

// queue is what the machine's heavy work queues for. Its name is the same in all releases.
const queue = "heavy"

// look is how often who waits looks whether it is the first one.
const look = 500 * time.Millisecond

// defaultBlind is how long who waits goes on waiting without being able to look.
const defaultBlind = time.Minute

// Options say what work is, and where.
type Options struct {
	// Locks are those of the machine; "" lets all go on beside each other.
	Locks machine.Locks
	// By names the work to people.
	By string
	// Long is after how long it is heavy; 0 means DefaultLong, less than 0 from the beginning.
	Long time.Duration
	// Waits, if not nil, is told for whom the work waits, again when that is another one, and
	// nil once it waits no more. It is called by one goroutine at a time, until End.
	Waits func(first *machine.Head)
	// Unlocked, if not nil, is told why the work goes on beside others that may be heavy:
	// there can be no queue, or who is first cannot be told for a minute. It is called as
	// Waits is, at most once.
	Unlocked func(why error)

	// blind is in place of defaultBlind.
	blind time.Duration
}

// Work is a job that is heavy once it has lasted. From then on it has the machine, which no
// other one has, until its end, or waits for that in the order in which others came to be
// heavy. nil is work that never is. Its methods may be used concurrently.
//
// Whoever may wait here already has all else that it waits for: places, its mirror, its
// state. So who has the machine waits for nobody who waits for that.
type Work struct {
	options Options
	// gate is what nothing goes on before, until it is closed; nil while all may.
	gate atomic.Pointer[chan struct{}]
	stop context.CancelFunc
	over sync.WaitGroup
}

// Begin begins work; ctx ends its waiting. The caller calls End.
func Begin(ctx context.Context, o Options) *Work {
	w := &Work{options: o}
	ctx, w.stop = context.WithCancel(ctx)
	switch {
	case o.Long == 0:
		w.options.Long = DefaultLong
	case o.Long < 0:
		w.shut()
	}
	w.over.Go(func() { w.mind(ctx) })
	return w
}

// OfMirror is Begin for a job of a mirror: one that says that it is heavy is so from the
// beginning. The work is nil for one that says that it is not, or, if it says nothing, is
// held back to so many bytes a second: that is gentle.
func OfMirror(ctx context.Context, m drill.Mirror, o Options) *Work {
	switch {
	case m.Heavy != nil && !*m.Heavy, m.Heavy == nil && m.BytesPerSecond > 0:
		return nil
	case m.Heavy != nil:
		o.Long = -1
	}
	return Begin(ctx, o)
}

// Pass returns once the work may go on: at once, as long as it is not heavy or has the
// machine. It costs nothing then. The error is that of ctx.
func (w *Work) Pass(ctx context.Context) error {
	if w == nil {
		return nil
	}
	gate := w.gate.Load()
	if gate == nil {
		return nil
	}
	select {
	case <-*gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// End ends the work; the next one has the machine then.
func (w *Work) End() {
	if w == nil {
		return
	}
	w.stop()
	w.over.Wait()
	w.open()
}

func (w *Work) shut() {
	gate := make(chan struct{})
	w.gate.Store(&gate)
}

// open lets all go on that wait, and all that come.
func (w *Work) open() {
	if gate := w.gate.Swap(nil); gate != nil {
		close(*gate)
	}
}

// mind sees to it that the work has the machine once it is heavy, until ctx ends.
func (w *Work) mind(ctx context.Context) {
	if w.options.Long > 0 {
		light := time.NewTimer(w.options.Long)
		defer light.Stop()
		select {
		case <-light.C:
		case <-ctx.Done():
			return
		}
	}
	q, err := w.options.Locks.Queue(ctx, queue, w.options.By)
	if err == nil {
		// It stays in the queue even if it cannot wait: others wait for it.
		defer func() { _ = q.Leave() }() // what is left there is nobody's
		err = w.wait(ctx, q)
	}
	if ctx.Err() != nil {
		return // who waits is told by its own
	}
	if err != nil && w.options.Unlocked != nil {
		w.options.Unlocked(err)
	}
	// Where nothing can be locked all go on beside each other.
	w.open()
	<-ctx.Done()
}

// wait returns when the work is the first one of its queue. Until it is known who that is,
// it waits for the one that was; the error is why that was not known for too long.
func (w *Work) wait(ctx context.Context, q *machine.Queued) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var told machine.Head
	tell := func(first *machine.Head) {
		if w.options.Waits != nil {
			w.options.Waits(first)
		}
	}
	blind := cmp.Or(w.options.blind, defaultBlind)
	for known := time.Now(); ; {
		first, err := q.Head(ctx)
		switch now := time.Now(); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && first == nil, err != nil && now.Sub(known) >= blind:
			if told.PID != 0 {
				tell(nil)
			}
			return err
		case err == nil:
			known = now
			if w.gate.Load() == nil {
				w.shut()
			}
			if told.By != first.By || told.PID != first.PID {
				told = *first
				tell(first)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Reason says in words for whom work waits.
func Reason(first machine.Head) string {
	who := first.By
	if who == "" {
		who = "somebody"
	}
	return fmt.Sprintf("%s has been at heavy work on this machine since %s (process %d)", who, first.Since.UTC().Format(time.RFC3339), first.PID)
}

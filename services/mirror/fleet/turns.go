package fleet

import (
	"context"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/job"
)

// turns lets this process's jobs that need the same place take turns, in the order in
// which they came. For its places on this machine see job.Env.Begin.
type turns struct {
	mu    sync.Mutex
	queue []*turn
}

type turn struct {
	mirror string
	needs  job.Turn
	begun  bool
	moved  chan struct{}
}

func newTurns() *turns { return &turns{} }

// take waits until no earlier job of the mirror, nor of another one that is against it, is
// under way or waits. The caller calls done when its job has ended.
func (t *turns) take(ctx context.Context, mirror string, needs job.Turn) (done func(), err error) {
	me := &turn{mirror: mirror, needs: needs, moved: make(chan struct{}, 1)}
	t.mu.Lock()
	t.queue = append(t.queue, me)
	me.begun = t.free(me)
	begun := me.begun
	t.mu.Unlock()
	done = func() { t.end(me) }
	for !begun {
		select {
		case <-ctx.Done():
			done()
			return nil, ctx.Err()
		case <-me.moved:
		}
		t.mu.Lock()
		begun = me.begun
		t.mu.Unlock()
	}
	return done, nil
}

// free reports whether nobody before is against it.
func (t *turns) free(me *turn) bool {
	for _, one := range t.queue {
		if one == me {
			return true
		}
		if _, against := me.needs.Against(one.needs); against || one.mirror == me.mirror {
			return false
		}
	}
	return true
}

func (t *turns) end(me *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kept := t.queue[:0]
	for _, one := range t.queue {
		if one != me {
			kept = append(kept, one)
		}
	}
	clear(t.queue[len(kept):])
	t.queue = kept
	for _, one := range t.queue {
		if !one.begun && t.free(one) {
			one.begun = true
			one.moved <- struct{}{}
		}
	}
}

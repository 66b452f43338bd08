package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
)

// DefaultLease is how long a process that plans a run may be silent before another
// one takes its mirror over.
const DefaultLease = 6 * time.Second

const (
	// leaseLook is how often who waits for a mirror looks whether it is free.
	leaseLook = 300 * time.Millisecond
	// blind is how long who waits goes on without being able to look.
	blind = 30 * time.Second
)

// ErrTaken is the cause of a run that ended because its mirror has another one now.
var ErrTaken = errors.New("another process has taken the mirror over, because this one was silent for too long")

// held is a mirror that this process has.
type held struct {
	runner *runner
	// slot is that of the run, until it takes long.
	slot *slot

	mu sync.Mutex
	is bus.MirrorLease
}

// slot is one of the runs that this process begins, or none.
type slot struct {
	of chan struct{}

	mu  sync.Mutex
	has bool
}

// acquire waits for a slot.
func (s *slot) acquire(ctx context.Context) error {
	select {
	case s.of <- struct{}{}:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.has = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slot) held() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has
}

// release gives the slot back, if there is one.
func (s *slot) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.has {
		s.has = false
		<-s.of
	}
}

// alone does what must be done by one process at a time, over all machines: it waits
// until no other run has the mirror and this process has a slot, keeps both while fn
// runs, and ends fn's context with ErrTaken should the mirror be lost.
func (r *runner) alone(ctx context.Context, mirror, run string, fn func(context.Context, *held) error) error {
	slot := &slot{of: r.slots}
	defer slot.release()
	l, err := r.take(ctx, mirror, run, slot)
	if err != nil {
		return err
	}
	h := &held{runner: r, slot: slot, is: l}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	over := make(chan struct{})
	// Whoever takes long makes room: short runs must not wait for those that take days.
	defer time.AfterFunc(r.Long, slot.release).Stop()
	// A process that is told to stop has the mirror until its run has really ended.
	wg.Go(func() { h.keep(context.WithoutCancel(ctx), over, cancel) })
	// What an interrupted planner has left in the queue is planned anew.
	err = errors.Join(r.Bus.DropMirrorWork(ctx, mirror, bus.AnyRun), r.Bus.DropMirrorDone(ctx, mirror, bus.AnyRun))
	if err == nil {
		err = fn(ctx, h)
	}
	close(over)
	wg.Wait()
	if errors.Is(context.Cause(ctx), ErrTaken) {
		return context.Cause(ctx)
	}
	h.giveBack(ctx)
	return err
}

// take waits for a mirror and for a slot. Who waits for the mirror keeps no slot from
// others, and who waits for a slot keeps the mirror from nobody. Whoever has the mirror
// is gone when nothing was heard of it for as long as a lease lasts, by this process's
// clock.
func (r *runner) take(ctx context.Context, mirror, run string, slot *slot) (bus.MirrorLease, error) {
	tick := time.NewTicker(leaseLook)
	defer tick.Stop()
	var seen bus.MirrorLease
	heard, looked, told := time.Now(), time.Now(), false
	for {
		l, err := r.Bus.MirrorLease(ctx, mirror)
		now := time.Now()
		switch {
		case err != nil && now.Sub(looked) > blind:
			return l, err
		case err != nil:
			heard = now // As long as nothing can be heard, nobody is silent.
		case l.Run == run:
			return l, nil // an answer was lost
		case l.Run == "" || l.Seq == seen.Seq && now.Sub(heard) > r.Lease:
			if !slot.held() {
				if err := slot.acquire(ctx); err != nil {
					return l, err
				}
				looked = time.Now()
				continue // Somebody may have taken the mirror meanwhile.
			}
			got, err := r.Bus.TakeMirrorLease(ctx, l, run)
			if !errors.Is(err, bus.ErrConflict) {
				return got, err
			}
		case l.Seq != seen.Seq:
			seen, heard = l, now
			slot.release()
		default:
			slot.release()
		}
		if err == nil {
			looked = now
		}
		if err == nil && l.Run != "" && !told {
			told = true
			r.Log.Info("a run waits: another process plans this mirror", "mirror", mirror, "run", run, "other", l.Run, "instance", l.Instance)
		}
		select {
		case <-ctx.Done():
			return l, ctx.Err()
		case <-tick.C:
		}
	}
}

// keep renews the lease until over is closed. While the server cannot be reached
// nobody else can take the mirror either; and should somebody have, the workers carry
// out nothing of this run any more.
func (h *held) keep(ctx context.Context, over <-chan struct{}, lost context.CancelCauseFunc) {
	tick := time.NewTicker(h.runner.Lease / 4)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		err := h.renew(ctx)
		if errors.Is(err, ErrTaken) {
			lost(err)
			return
		}
		if err != nil {
			h.runner.Log.Warn("a run cannot tell that it is alive", "mirror", h.is.Mirror, "run", h.is.Run, "error", err)
		}
	}
}

// renew stores the lease as it is.
func (h *held) renew(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		next, err := h.runner.Bus.TakeMirrorLease(ctx, h.is, h.is.Run)
		if err == nil {
			h.is = next
		}
		if !errors.Is(err, bus.ErrConflict) {
			return err
		}
		now, err := h.runner.Bus.MirrorLease(ctx, h.is.Mirror)
		if err != nil {
			return err
		}
		if now.Run != h.is.Run {
			return fmt.Errorf("mirror %s: %w: run %s of %s has it", h.is.Mirror, ErrTaken, now.Run, now.Instance)
		}
		h.is.Seq = now.Seq // An earlier try was stored whose answer was lost.
	}
}

// last is what the mirror's last run remembered.
func (h *held) last() bus.MirrorMemory {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.is.Memory
}

// remember has everybody know whose memory is the newest, from the next renewal on.
func (h *held) remember(m bus.MirrorMemory) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.is.Memory = m
}

// giveBack lets the next one have the mirror at once.
func (h *held) giveBack(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.runner.Bus.TakeMirrorLease(context.WithoutCancel(ctx), h.is, "")
	// On a conflict it was taken over in this very moment.
	if err != nil && !errors.Is(err, bus.ErrConflict) {
		h.runner.Log.Warn("a mirror is not given back: the next run waits until nothing was heard of this one", "mirror", h.is.Mirror, "error", err)
	}
}

// fenced reports whether an item is not to be carried out: its run does not have the
// mirror any more, and another one has planned the same work, or has other plans.
func (w *worker) fenced(ctx context.Context, at bus.MirrorItem) (bool, error) {
	l, err := w.Bus.MirrorLease(ctx, at.Mirror)
	return l.Run != at.Run, err
}

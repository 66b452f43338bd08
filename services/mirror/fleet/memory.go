package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/job"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/state"
)

// A mirror moves between machines, and what is remembered of it stays on a disk. A
// planner whose memory is not that of the mirror's last run must not believe it.

// ErrMemory is what every [*MemoryError] is.
var ErrMemory = errors.New("what this process remembers of the mirror is not what its last run left")

// MemoryError says that a two-way mirror cannot be run with what a process remembers
// of it: another process has run it since, and what was deleted then would look like
// what is new.
type MemoryError struct {
	Mirror string
	// Dir is what this process remembers of the mirror.
	Dir string
	// Own is that memory, Last the one of the mirror's last run.
	Own, Last bus.MirrorMemory
}

// Error names the directory, the process that ran the mirror last, and what to do.
func (e *MemoryError) Error() string {
	return fmt.Sprintf("mirror %s: %v: %s ran it last with a memory of its own, and by %s this process would decide wrongly what to delete: give all mirror processes the same --mirror-state-dir, or move that directory away to begin with a comparison that deletes nothing",
		e.Mirror, ErrMemory, e.Last.Instance, e.Dir)
}

// Unwrap returns ErrMemory.
func (*MemoryError) Unwrap() error { return ErrMemory }

// memoryName is the document, in a mirror's state, whose random id tells that state
// from others of the same mirror.
const memoryName = "memory"

// memory is what an open job remembers; begun is false before its first run.
func memory(j *job.Job, instance string) (m bus.MirrorMemory, mode plan.Mode, begun bool, err error) {
	facts, begun, err := j.Facts()
	if err != nil {
		return m, mode, false, err
	}
	known, err := state.LoadFrom(j.Dir(), memoryName, &m.ID)
	if err == nil && (!known || m.ID == "") {
		m.ID = rand.Text()
		err = state.SaveIn(j.Dir(), memoryName, m.ID)
	}
	if err != nil {
		return m, mode, false, fmt.Errorf("mirror %s: tell what it remembers from what others do: %w", j.Name(), err)
	}
	m.Generation, m.Instance = facts.Generation, instance
	return m, facts.Mode, begun, nil
}

// recall decides how far a run may believe what its process remembers, and has
// everybody know, before anything is written, that this memory is now the newest.
// Where another one was, the destination is listed. On an error the job is closed.
func (r *runner) recall(ctx context.Context, h *held, j *job.Job, o *job.SyncOptions) (own bus.MirrorMemory, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, j.Close(ctx))
		}
	}()
	own, mode, begun, err := memory(j, r.Bus.Identity().Instance)
	if err != nil {
		return own, err
	}
	last := h.last()
	// Before its first run it has nothing to believe.
	if begun && (own.ID != last.ID || own.Generation < last.Generation) {
		if mode == plan.TwoWay && last.ID != "" {
			return own, &MemoryError{Mirror: j.Name(), Dir: j.Dir(), Own: own, Last: last}
		}
		if o.Check != engine.CheckAudit {
			o.Check = engine.CheckListing
		}
		r.Log.Info("the destination is listed, as another process ran this mirror last", "mirror", j.Name(), "last", last.Instance)
	}
	if o.DryRun {
		return own, nil
	}
	h.remember(own)
	if err := h.renew(ctx); err != nil {
		return own, fmt.Errorf("mirror %s: say whose memory of it is the newest: %w", j.Name(), err)
	}
	return own, nil
}

// left has everybody know, once the mirror is given back, what a run has left.
func (r *runner) left(h *held, j *job.Job, own bus.MirrorMemory) {
	facts, _, err := j.Facts()
	if err != nil {
		r.Log.Warn("a run's memory is not told from an older one", "mirror", j.Name(), "error", err)
		return
	}
	own.Generation = facts.Generation
	h.remember(own)
}

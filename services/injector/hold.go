package injector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/machine"
)

// holds are the locks that a conductor has on the systems of its drill, against the
// conductors of other event stores on this machine: a claim in a store is not known to
// them, and two drills on one cluster would take down both of its servers. A lock goes
// with its process at the latest. It is not safe for concurrent use.
type holds struct{ has map[string]*machine.Held }

const (
	// holdWait is how long a lock is waited for that another one has: it gives it back a
	// moment after its drill's end.
	holdWait = 2 * time.Second
	// holdPause is the time between two tries, also of who waits to take a drill up.
	holdPause = 100 * time.Millisecond
)

// heldError says that another firedrill of this machine has a system.
type heldError struct{ path, holder string }

func (e *heldError) Error() string {
	return fmt.Sprintf("another firedrill on this machine drills it (%s): wait until that is over, or abort it there; it has locked %s", cmp.Or(e.holder, "it does not say which"), e.path)
}

// wait is take for as long as holdWait, or until ctx ends.
func (h *holds) wait(ctx context.Context, locks machine.Locks, s drill.State, systems map[string]string, log *slog.Logger) error {
	tick := time.NewTicker(holdPause)
	defer tick.Stop()
	for give := time.Now().Add(holdWait); ; {
		err := h.take(locks, s, systems, log)
		if err == nil || time.Now().After(give) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// take takes a drill's systems, each a file of dir, which all users of the machine share.
// The error is a *heldError: another firedrill has one. Where nothing can be locked, that
// is logged, and no reason to keep from a drill.
func (h *holds) take(locks machine.Locks, s drill.State, systems map[string]string, log *slog.Logger) error {
	for _, name := range slices.Sorted(maps.Keys(systems)) {
		err := h.takeOne(locks, s, systems[name])
		if errors.As(err, new(*heldError)) {
			return fmt.Errorf("target %s is %s: %w", name, systems[name], err)
		}
		if err != nil {
			log.Warn("another firedrill on this machine would not know of this drill", "target", name, "error", err)
		}
	}
	return nil
}

func (h *holds) takeOne(locks machine.Locks, s drill.State, system string) error {
	if _, has := h.has[system]; has {
		return nil // taken before, or by another target that is the same system
	}
	lock, err := locks.Take(system, fmt.Sprintf("drill %s of %s", s.ID, cmp.Or(s.Requester, "nobody named")))
	if held, ok := errors.AsType[*machine.HeldError](err); ok {
		return &heldError{held.Path, held.By}
	}
	if err != nil {
		return err
	}
	if h.has == nil {
		h.has = map[string]*machine.Held{}
	}
	h.has[system] = lock
	return nil
}

// release gives back what was taken.
func (h *holds) release() error {
	var errs []error
	for _, lock := range h.has {
		errs = append(errs, lock.Release())
	}
	h.has = nil
	return errors.Join(errs...)
}

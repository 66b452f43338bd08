package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/bus"
)

// ErrNotWhole says that a run came to its end and left something undone.
var ErrNotWhole = errors.New("something was left undone")

// Ask has the fleet run a mirror, and waits until the run has ended. The caller bounds
// the wait by ctx: nobody answers where no process runs mirrors, nor a request that was
// cut off in all its tries and once more while it waited to be answered. Of requests with the
// same id, within the bus's window for duplicates, one is carried out. The error says
// why there was no run, what ended it, or wraps ErrNotWhole.
func Ask(ctx context.Context, b *bus.Bus, m bus.MirrorRequest, id string, r Request) (*Result, error) {
	subject, err := m.Subject()
	if err != nil {
		return nil, fmt.Errorf("mirror %s: %w", m.Mirror, err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("mirror %s: %w", m.Mirror, err)
	}
	ack, err := b.Publish(ctx, subject, body, id)
	if err != nil {
		return nil, fmt.Errorf("ask for mirror %s: %w", m.Mirror, err)
	}
	w := NewWatch(m.Mirror, ack.Seq, func(string, Event) {})
	return w.came(w.Follow(ctx, b))
}

// came is what a run came to; err is why that is not known.
func (w *Watch) came(err error) (*Result, error) {
	result := w.last.Result
	switch {
	case err != nil:
		return nil, fmt.Errorf("follow mirror %s: %w", w.mirror, err)
	case w.kind == KindCancelled:
		return nil, fmt.Errorf("mirror %s: %w", w.mirror, ErrCancelled)
	case w.kind != KindFinished || result == nil:
		return nil, fmt.Errorf("mirror %s: %s: %s", w.mirror, w.kind, w.last.Reason)
	case !result.Whole:
		return result, fmt.Errorf("mirror %s: %w: %s", w.mirror, ErrNotWhole, result.undone())
	}
	return result, nil
}

// undone says what was left undone.
func (r *Result) undone() string {
	s := fmt.Sprintf("%d failed, %d held back", r.Failed, r.HeldBack)
	if len(r.Problems) > 0 {
		s += "; " + strings.Join(r.Problems, "; ")
	}
	return s
}

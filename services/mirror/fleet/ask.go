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
	kind, last, err := Follow(ctx, b, m.Mirror, ack.Seq, func(string, Event) {})
	return came(m.Mirror, kind, last, err)
}

// came is what a run came to, by the last event of it; err is why that is not known.
func came(mirror, kind string, last Event, err error) (*Result, error) {
	switch {
	case err != nil:
		return nil, fmt.Errorf("follow mirror %s: %w", mirror, err)
	case kind == KindCancelled:
		return nil, fmt.Errorf("mirror %s: %w", mirror, ErrCancelled)
	case kind != KindFinished || last.Result == nil:
		return nil, fmt.Errorf("mirror %s: %s: %s", mirror, kind, last.Reason)
	case !last.Result.Whole:
		return last.Result, fmt.Errorf("mirror %s: %w: %s", mirror, ErrNotWhole, last.Result.undone())
	}
	return last.Result, nil
}

// undone says what was left undone.
func (r *Result) undone() string {
	s := fmt.Sprintf("%d failed, %d held back", r.Failed, r.HeldBack)
	if len(r.Problems) > 0 {
		s += "; " + strings.Join(r.Problems, "; ")
	}
	return s
}

// Follow tells what is published of the run that the request of a sequence asked for,
// and returns the last of it, with its kind.
func Follow(ctx context.Context, b *bus.Bus, mirror string, seq uint64, tell func(kind string, e Event)) (kind string, last Event, err error) {
	return followRun(ctx, b, mirror, seq, runOf(seq), tell)
}

// followRun is Follow for the runs whose names begin so, behind a sequence.
func followRun(ctx context.Context, b *bus.Bus, mirror string, after uint64, run string, tell func(kind string, e Event)) (kind string, last Event, err error) {
	err = b.FollowMirror(ctx, mirror, after, func(r bus.Record) error {
		var e Event
		if err := json.Unmarshal(r.Data, &e); err != nil || !strings.HasPrefix(e.Run, run) {
			return nil // another run's, or another version's
		}
		kind, last = r.Kind, e
		switch kind {
		case KindStarted, KindProgress, KindStalled:
			tell(kind, e)
			return nil
		}
		return bus.Stop
	})
	if errors.Is(err, bus.Stop) {
		err = nil
	}
	return kind, last, err
}

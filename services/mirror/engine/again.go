package engine

import (
	"context"
	"errors"
	"time"

	"github.com/firedrill/firedrill/services/mirror/place"
)

// againPause is how long is waited before something is tried once more, and twice as long
// each time after that.
const againPause = 250 * time.Millisecond

func (w *Worker) tries() int {
	if w.Tries > 0 {
		return w.Tries
	}
	return DefaultTries
}

// again does something until it is done, the tries are used up, or its error is none that
// may pass.
func (w *Worker) again(ctx context.Context, passes func(error) bool, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil || try >= w.tries() || ctx.Err() != nil || !passes(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(againPause << (try - 1)):
		}
	}
}

// damaged says of a whole content that it may be sent again: what else may pass, the place
// has tried again itself.
func damaged(err error) bool { return errors.Is(err, place.ErrDamaged) }

// partPasses says the same of a part. Nobody below can send it again, as it is read as it
// goes; and one lost connection must not cost all the other parts.
func partPasses(err error) bool {
	return !errors.Is(err, place.ErrChanged) && !errors.Is(err, place.ErrNoUpload) && !Refused(err)
}

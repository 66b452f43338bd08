package fleet

import (
	"errors"
	"fmt"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// ErrPlace is what every [*PlaceError] is.
var ErrPlace = errors.New("it is not the place that the run was planned with")

// PlaceError says that a process finds another place under a location's name than
// the process that planned the run: something else, or nothing, is mounted there.
type PlaceError struct {
	// Instance is the process that finds it.
	Instance string
	Side     plan.Side
	// Place is the location; Want and Got are the identities of the place that the
	// run was planned with, and of the one that was found.
	Place, Want, Got string
}

// Error names the process, the place and what to do.
func (e *PlaceError) Error() string {
	return fmt.Sprintf("%s finds another %s at %s than the run was planned with (%q, and not %q): nothing was done; mount the right one there, or run no worker on that machine",
		e.Instance, e.Side, e.Place, e.Got, e.Want)
}

// Unwrap returns ErrPlace.
func (e *PlaceError) Unwrap() error { return ErrPlace }

// identities are what tells a worker's places from others of the same names.
func identities(w *engine.Worker) (ids [2]string) {
	for side, p := range w.Places {
		ids[side] = p.Traits().Identity
	}
	return ids
}

// right fails unless a worker's places are those that an item is meant for. Where
// nothing tells a place from others, its name has to do.
func (o *opened) right(instance string, want [2]string) error {
	for side, got := range identities(o.worker) {
		if got != want[side] {
			return &PlaceError{instance, plan.Side(side), o.worker.Places[side].String(), want[side], got}
		}
	}
	return nil
}

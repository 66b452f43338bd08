package target

import (
	"errors"
	"fmt"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/joined"
)

// Survey is what a look at a whole target found.
type Survey struct {
	// Parts are all that the target's operations can hit, whichever of them a drill
	// asks for, as a plan would name them now. What only an operation's parameters or
	// the moment say ends with event.AnyEnd.
	Parts []event.Part
}

// InTarget puts a target's name before each of the errors that were joined to one, so that
// people find the configuration that its field is in.
func InTarget(name string, err error) error {
	var out []error
	for e := range joined.Leaves(err) {
		out = append(out, fmt.Errorf("target %s: %w", name, e))
	}
	return errors.Join(out...)
}

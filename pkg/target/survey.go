package target

import (
	"errors"
	"fmt"

	"github.com/firedrill/firedrill/pkg/event"
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
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, InTarget(name, e))
		}
		return errors.Join(out...)
	}
	return fmt.Errorf("target %s: %w", name, err)
}

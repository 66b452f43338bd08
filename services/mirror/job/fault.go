package job

import (
	"errors"

	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/plan/filter"
)

// Fault says what kept a mirror from being run, or compared.
type Fault string

const (
	// FaultFailed: firedrill, or what it needs, failed.
	FaultFailed Fault = ""
	// FaultRefused: something is not as it should be, and nothing failed. A guard refuses the
	// place, nothing that is asked for is known yet, or what is there may not be written to,
	// or is too damaged to be repaired.
	FaultRefused Fault = "refused"
	// FaultDescription: the mirror cannot be run as it is described.
	FaultDescription Fault = "description"
)

// FaultOf is the fault that an error tells of.
func FaultOf(err error) Fault {
	if refused, ok := errors.AsType[*engine.JobError](err); ok && refused.Field == "Places" {
		return FaultRefused
	}
	if _, ok := errors.AsType[*engine.GaveUpError](err); ok {
		return FaultRefused
	}
	for _, known := range []error{ErrUnwritable, ErrNothingKnown, ErrNothingDeleted, ErrTooMuch} {
		if errors.Is(err, known) {
			return FaultRefused
		}
	}
	for _, known := range []error{ErrSpec, ErrNoRuns, location.ErrLocation, filter.ErrRule, engine.ErrJob} {
		if errors.Is(err, known) {
			return FaultDescription
		}
	}
	return FaultFailed
}

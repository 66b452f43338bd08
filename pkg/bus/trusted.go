package bus

import (
	"iter"

	"github.com/firedrill/firedrill/pkg/event"
)

// Trusted goes through the events of a history that may be folded, and passes
// over the others.
func Trusted(history []Stored) iter.Seq[event.Event] {
	return func(yield func(event.Event) bool) {
		for _, s := range history {
			if s.Trust == nil && !yield(s.Event) {
				return
			}
		}
	}
}

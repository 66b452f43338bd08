package bus_test

import (
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

// TestTrustedPassesOverWhatNobodySigned: a forged event never gets into a fold.
func TestTrustedPassesOverWhatNobodySigned(t *testing.T) {
	history := []bus.Stored{{Event: event.Event{ID: "1"}}, {Event: event.Event{ID: "forged"}, Trust: bus.ErrUntrusted}, {Event: event.Event{ID: "2"}}, {Event: event.Event{ID: "3"}}}
	var got string
	for e := range bus.Trusted(history) {
		if e.ID == "3" {
			break // a reader may stop early
		}
		got += e.ID
	}
	if got != "12" {
		t.Errorf("the events %q are trusted, want 1 and 2", got)
	}
}

package state_test

import (
	"errors"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/state"
)

func TestARemovedDocumentIsGone(t *testing.T) {
	s, err := state.Open(t.TempDir())
	must(t, err)
	must(t, s.Save("one", 1))
	for range 2 { // also once it is gone
		must(t, s.Remove("one"))
		var v int
		if known, err := s.Load("one", &v); known || err != nil {
			t.Errorf("it is there: %t, %v", known, err)
		}
	}
	for _, own := range []string{"past", "journal", "lock", "", ".x", "a/b"} {
		if err := s.Remove(own); !errors.Is(err, state.ErrName) {
			t.Errorf("%q: %v", own, err)
		}
	}
	must(t, s.Close())
	if err := s.Remove("one"); !errors.Is(err, state.ErrClosed) {
		t.Errorf("of a closed state: %v", err)
	}
}

package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firedrill/firedrill/services/mirror/state"
)

// TestLookingDoesNotOpen: who looks at a state that is open reads its documents,
// learns who has it, and keeps nobody from opening it.
func TestLookingDoesNotOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	if h, err := state.Holder(dir); h != nil || err != nil {
		t.Errorf("of no state: %v, %v", h, err)
	}
	before := time.Now().Add(-time.Second)
	s, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save("doc", 7); err != nil {
		t.Fatal(err)
	}
	h, err := state.Holder(dir)
	if err != nil || h == nil || h.PID != os.Getpid() || h.Since.Before(before) {
		t.Errorf("while it is open: %+v, %v", h, err)
	}
	var n int
	if known, err := state.LoadFrom(dir, "doc", &n); !known || err != nil || n != 7 {
		t.Errorf("read %d, %v, %v", n, known, err)
	}
	if err := state.SaveIn(dir, "doc", 8); err != nil {
		t.Fatal(err)
	}
	if known, err := s.Load("doc", &n); !known || err != nil || n != 8 {
		t.Errorf("read %d, %v, %v", n, known, err)
	}
	if known, err := state.LoadFrom(dir, "none", &n); known || err != nil {
		t.Errorf("of no document: %v, %v", known, err)
	}
	if err := errors.Join(state.SaveIn(dir, "past", 1), state.SaveIn(dir, "../x", 1)); !errors.Is(err, state.ErrName) {
		t.Errorf("of a name that is the state's own: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if h, err := state.Holder(dir); h != nil || err != nil {
		t.Errorf("when it is closed: %v, %v", h, err)
	}
}

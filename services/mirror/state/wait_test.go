package state_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/state"
)

func TestWaitUntilNobodyHasIt(t *testing.T) {
	dir := t.TempDir()
	first, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var second *state.Store
	told, tries := 0, 0
	err = state.Wait(t.Context(), func() (err error) {
		if tries++; tries == 3 {
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
		}
		second, err = state.Open(dir)
		return err
	}, func(e *state.LockedError) error {
		if told++; e.PID != os.Getpid() || e.Dir != dir {
			t.Errorf("told that %+v has it", e)
		}
		return nil
	})
	if err != nil || told != 1 || tries != 3 {
		t.Fatalf("%v after %d tries, told %d times", err, tries, told)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestWaitEnds(t *testing.T) {
	locked := &state.LockedError{Dir: "d"}
	other := errors.New("another fault")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	quiet := func(*state.LockedError) error { return nil }
	for name, c := range map[string]struct {
		ctx  context.Context
		open error
		busy func(*state.LockedError) error
		want error
	}{
		"with what else went wrong":     {t.Context(), other, quiet, other},
		"when it is not wanted":         {t.Context(), locked, func(*state.LockedError) error { return other }, other},
		"with its context":              {ended, locked, quiet, context.Canceled},
		"open, although the context is": {ended, nil, quiet, nil},
	} {
		if err := state.Wait(c.ctx, func() error { return c.open }, c.busy); !errors.Is(err, c.want) {
			t.Errorf("it ends %s: %v", name, err)
		}
	}
}

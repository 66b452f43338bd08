package control

import (
	"errors"
	"testing"
)

// TestWhatCannotGetBetterIsPermanent: what a shell cannot find, here or there, and
// a way to the machine that is not there.
func TestWhatCannotGetBetterIsPermanent(t *testing.T) {
	for script, want := range map[string]bool{"/nowhere/program": true, "exit 126": false, "exit 1": false, "exit 255": false, "kill -9 $$": false} {
		for where, h := range hosts(t) {
			_, err := h.Run(t.Context(), Command{Script: script})
			if e, ok := errors.AsType[*CommandError](err); !ok || e.Permanent() != want {
				t.Errorf("%s, %s: %v", script, where, err)
			}
		}
	}
	away, err := New(Config{Kind: KindExec, Argv: []string{"/nowhere/ssh"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := away.Run(t.Context(), Command{Script: "true"}); err == nil || !err.(*CommandError).Permanent() {
		t.Errorf("no way there: %v", err)
	}
}

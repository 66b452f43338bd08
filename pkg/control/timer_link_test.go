package control

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTimerFollowsNoLinks: the tokens' directory belongs to the server's user, who may
// do less than firedrill. On this machine firedrill itself writes there.
func TestTimerFollowsNoLinks(t *testing.T) {
	for _, name := range []string{"token", "timers.lock"} {
		dir, shadow := t.TempDir(), filepath.Join(t.TempDir(), "shadow")
		if err := os.WriteFile(shadow, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(shadow, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		tm := Timer{Token: filepath.Join(dir, "token"), After: time.Hour, Script: ":"}
		if err := (&Host{}).Arm(t.Context(), tm); err == nil {
			t.Errorf("%s is a link, and the timer is armed", name)
		}
		if b, err := os.ReadFile(shadow); err != nil || string(b) != "precious" {
			t.Errorf("%s: what the link leads to is %q, %v", name, b, err)
		}
	}
}

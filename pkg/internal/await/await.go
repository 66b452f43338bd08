// Package await is for tests that wait for something which tells nobody that it
// has happened, such as another process's state.
package await

import (
	"testing"
	"time"
)

// pause is the time between two looks.
const pause = 5 * time.Millisecond

// Until looks again and again until the condition holds. When it does not within
// the time, the test fails and says what was waited for.
func Until(t testing.TB, within time.Duration, what string, holds func() bool) {
	t.Helper()
	limit, tick := time.NewTimer(within), time.NewTicker(pause)
	defer limit.Stop()
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited %v for %s", within, what)
		}
	}
}

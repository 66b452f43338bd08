package pace

import (
	"testing"
	"testing/synctest"
	"time"
)

// Whatever is paid for, and after however long a rest, the average over a second keeps
// the limit but for a tenth.
func TestTheLimitHoldsOverASecond(t *testing.T) {
	for _, perSecond := range []int64{1, 7, 1_000, 300_000, 10 << 20, 5 << 30} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLimit(perSecond)
			most := float64(perSecond)*(1+1./atOnce) + 1
			for _, rest := range []time.Duration{0, 50 * time.Millisecond, time.Hour} {
				time.Sleep(rest)
				began, passed := time.Now(), 0
				for {
					if err := l.WaitN(t.Context(), l.Burst()); err != nil {
						t.Fatal(err)
					}
					if time.Since(began) > time.Second {
						break
					}
					passed += l.Burst()
				}
				if float64(passed) > most {
					t.Errorf("%d bytes per second: %d in the first one after %v", perSecond, passed, rest)
				}
				if least := float64(perSecond)*(1-1./atOnce) - 1; float64(passed) < least {
					t.Errorf("%d bytes per second: only %d in the first one after %v", perSecond, passed, rest)
				}
			}
		})
	}
}

// The first bytes are no gift: what is less than passes at once takes its time, too.
func TestTheLimitHoldsFromTheFirstByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began := NewLimit(1_000), time.Now()
		for range 3 {
			if err := l.WaitN(t.Context(), 10); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 30*time.Millisecond {
			t.Errorf("30 bytes at 1,000 per second took %v", took)
		}
	})
	if NewLimit(0) != nil || NewLimit(-1) != nil {
		t.Error("no limit limits")
	}
}

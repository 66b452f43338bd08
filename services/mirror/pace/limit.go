package pace

import (
	"time"

	"golang.org/x/time/rate"
)

// atOnce is the share of a second whose bytes a limit lets through at once, so that
// short reads are not each waited for.
const atOnce = 10

// NewLimit bounds bytes per second; 0 or less is no limit, which is nil. A tenth of a
// second's worth passes at once, but not at its beginning: what is shorter takes its time,
// too. Whoever has more to pay for pays in pieces of its Burst.
func NewLimit(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	l := rate.NewLimiter(rate.Limit(bytesPerSecond), int(max(1, bytesPerSecond/atOnce)))
	l.AllowN(time.Now(), l.Burst())
	return l
}

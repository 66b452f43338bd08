package heavy

import "time"

// Blind has work wait for so long without being able to look.
func (o Options) Blind(d time.Duration) Options {
	o.blind = d
	return o
}

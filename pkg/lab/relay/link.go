package relay

import (
	"fmt"
	"sync"
	"time"
)

// Link is how a relay's network behaves, in each direction alike.
type Link struct {
	// DelayMS is the one-way delay in milliseconds. Bytes travel in a pipeline:
	// a delay costs latency, not throughput.
	DelayMS float64 `json:"delay_ms"`
	// BytesPerSecond is the rate of the link, shared by all connections; 0 is
	// unlimited.
	BytesPerSecond int64 `json:"bytes_per_s"`
	// DropInFlight loses what is under way from the upstream when the upstream
	// goes: the site is lost with its network, not only the process.
	DropInFlight bool `json:"drop_in_flight,omitempty"`
}

// maxDelay bounds the memory that a delayed link holds.
const maxDelay = time.Minute

func (l Link) delay() time.Duration { return time.Duration(l.DelayMS * float64(time.Millisecond)) }

func (l Link) check() error {
	if l.DelayMS < 0 || l.delay() > maxDelay {
		return fmt.Errorf("delay_ms %v: use 0 to %d", l.DelayMS, maxDelay.Milliseconds())
	}
	if l.BytesPerSecond < 0 {
		return fmt.Errorf("bytes_per_s %d: use 0 for unlimited, or more", l.BytesPerSecond)
	}
	return nil
}

type direction int

const (
	up   direction = iota // client to upstream
	down                  // upstream to client
)

// link schedules bytes: each direction is a wire that sends one chunk after the
// other at the rate, and delivers it the delay later.
type link struct {
	mu   sync.Mutex
	now  Link
	free [2]time.Time // when each wire has sent all it was given
}

func newLink(l Link) *link { return &link{now: l} }

func (l *link) get() Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *link) set(n Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = n
	// A wire that was booked far ahead at a low rate must not stay so.
	l.free = [2]time.Time{}
}

// chunk is the most that may be read at once: about 20 ms at the rate, so that
// the rate is smooth and a change takes effect soon.
func (l *link) chunk(limit int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now.BytesPerSecond == 0 {
		return limit
	}
	return int(max(1, min(int64(limit), l.now.BytesPerSecond/50)))
}

// book takes n bytes that have arrived and says when the wire has sent them and
// when they are delivered.
func (l *link) book(d direction, n int, arrived time.Time) (sent, delivered time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent = arrived
	if rate := l.now.BytesPerSecond; rate > 0 {
		if l.free[d].After(sent) {
			sent = l.free[d]
		}
		sent = sent.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
		l.free[d] = sent
	}
	return sent, sent.Add(l.now.delay())
}

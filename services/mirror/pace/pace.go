// Package pace holds a mirror back where the server that it writes to or the disks of
// its own machine suffer: what is mirrored is in use, and a mirror can wait.
//
// How much is under way at once falls to half when a server asks to slow down or
// answers much more slowly than it does at its best, or when this machine's tasks
// stand still for its disks; it rises by one when nothing of it is so. That is the
// additive increase and multiplicative decrease by which TCP shares a line (RFC 5681).
package pace

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// window is how often the pace is looked at; fewer answers than fewAnswers say
	// little.
	window     = time.Second
	fewAnswers = 8
	// slow and slower: a server is under pressure when its 95th percentile exceeds
	// both slow and slower times the lowest that was seen.
	slow   = time.Second
	slower = 4
	// forget lets the lowest rise, so that one lucky second does not bind for ever.
	forget = 1.02
	// Shares of the time, in percent over ten seconds, in which all tasks of this
	// machine that have something to do stand still for its disks.
	disksSuffer = 20
	disksIdle   = 5
	// keep bounds the memory of a window.
	keep = 4096
)

// Pace bounds how much is under way at once. It may be used concurrently.
type Pace struct {
	most  int
	now   func() time.Time
	disks func() (percent float64, known bool)

	mu       sync.Mutex
	allowed  int
	underway int
	// wait are those that wait for their turn, the first one first.
	wait []chan struct{}
	// The window: when it began, what was answered in it, whether somebody asked to
	// slow down, and whether as much was under way as was allowed.
	began     time.Time
	answers   []time.Duration
	throttled bool
	full      bool
	best      time.Duration
}

// New makes a pace that never lets more than most be under way, and begins with that.
// now is the clock; disks tells the share of the last ten seconds in which all tasks
// stood still for this machine's disks, see [Disks].
func New(most int, now func() time.Time, disks func() (percent float64, known bool)) *Pace {
	most = max(1, most)
	return &Pace{most: most, allowed: most, now: now, disks: disks, began: now()}
}

// Answered notes an answer of a server: how long it took, and whether it asked to slow
// down.
func (p *Pace) Answered(latency time.Duration, throttled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.answers) < keep {
		p.answers = append(p.answers, latency)
	}
	p.throttled = p.throttled || throttled
	p.look()
}

// Acquire waits until one more may be under way. Whoever got it releases it. The error
// is that of ctx.
func (p *Pace) Acquire(ctx context.Context) error {
	p.mu.Lock()
	p.look()
	if p.underway < p.allowed && len(p.wait) == 0 {
		p.underway++
		p.full = p.full || p.underway == p.allowed
		p.mu.Unlock()
		return nil
	}
	p.full = true
	turn := make(chan struct{})
	p.wait = append(p.wait, turn)
	p.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.wait, turn); i >= 0 {
		p.wait = slices.Delete(p.wait, i, i+1)
	} else {
		p.underway-- // The turn came at the same moment.
		p.next()
	}
	return ctx.Err()
}

// Release gives back what Acquire got.
func (p *Pace) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.underway--
	p.look()
	p.next()
}

// next lets in those who wait, as far as there is room.
func (p *Pace) next() {
	for len(p.wait) > 0 && p.underway < p.allowed {
		close(p.wait[0])
		p.wait = p.wait[1:]
		p.underway++
	}
}

// look ends the window if it is time, and decides by it.
func (p *Pace) look() {
	now := p.now()
	if now.Sub(p.began) < window {
		return
	}
	suffers, idle := p.server()
	if percent, known := p.disks(); known {
		suffers = suffers || percent > disksSuffer
		idle = idle && percent < disksIdle
	}
	switch {
	case suffers:
		p.allowed = max(1, p.allowed/2)
	case idle && p.full && p.allowed < p.most:
		p.allowed++
		p.next()
	}
	if p.throttled || len(p.answers) >= fewAnswers {
		p.answers = p.answers[:0]
	}
	p.began, p.throttled = now, false
	p.full = p.underway >= p.allowed
}

// server says whether the server suffers, and whether it does not at all.
func (p *Pace) server() (suffers, idle bool) {
	if p.throttled {
		return true, false
	}
	if len(p.answers) < fewAnswers {
		// They may be few because each takes so long: they are added to the next window's.
		return false, len(p.answers) == 0
	}
	slices.Sort(p.answers)
	p95 := p.answers[len(p.answers)*95/100]
	if p.best = time.Duration(float64(p.best) * forget); p.best == 0 || p95 < p.best {
		p.best = p95
	}
	suffers = p95 > slow && p95 > slower*p.best
	return suffers, !suffers
}

// Disks reads the pressure on this machine's disks, as Linux tells it since 4.20
// (Documentation/accounting/psi.rst: full, avg10). It is not known elsewhere.
func Disks() (percent float64, known bool) {
	text, err := os.ReadFile("/proc/pressure/io")
	if err != nil {
		return 0, false
	}
	return fullAvg10(string(text))
}

func fullAvg10(text string) (percent float64, known bool) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "full avg10=")
		if !ok {
			continue
		}
		value, _, _ := strings.Cut(rest, " ")
		percent, err := strconv.ParseFloat(value, 64)
		return percent, err == nil
	}
	return 0, false
}

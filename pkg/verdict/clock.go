package verdict

import (
	"errors"
	"fmt"
	"math"

	"github.com/firedrill/firedrill/pkg/event"
)

// ErrNoComparison is wrapped when a reading's clock was never compared with the
// observer's.
var ErrNoComparison = errors.New("the clock was not compared with the observer's")

// ErrClocksContradict is wrapped when no offset fits all comparisons.
var ErrClocksContradict = errors.New("the comparisons of the clocks contradict each other")

// MaxDriftPPM is how fast two monotonic clocks may drift apart, in millionths:
// the most by which NTP slews a clock.
const MaxDriftPPM = 500

// ClockMap carries readings of other processes' clocks over to the observer's.
// It is not safe for concurrent use.
type ClockMap struct {
	observer string
	others   map[string][]comparison
}

type comparison struct{ offset, err, at int64 }

// NewClockMap returns a map onto the observer's clock, without comparisons.
func NewClockMap(observerClock string) *ClockMap {
	return &ClockMap{observer: observerClock, others: map[string][]comparison{}}
}

// Add takes a comparison made at the moment at of the observer's clock (the
// clock.compared event's Mono will do: drift over the time between is far below
// the error). It refuses one that is of another observer's clock or impossible.
func (m *ClockMap) Add(c event.ClockCompared, at int64) error {
	switch {
	case c.Observer != m.observer:
		return fmt.Errorf("comparison of clock %q: it is with clock %q, not with the observer's %q", c.Other, c.Observer, m.observer)
	case c.Other == "":
		return errors.New("comparison of clocks: the other clock has no name")
	case c.Error < 0 || int64(c.Error) > maxMono || int64(c.Offset) > maxMono || int64(c.Offset) < -maxMono:
		return fmt.Errorf("comparison of clock %q: offset %d ± %d is out of range", c.Other, c.Offset, c.Error)
	}
	m.others[c.Other] = append(m.others[c.Other], comparison{offset: int64(c.Offset), err: int64(c.Error), at: at})
	return nil
}

// Map returns the interval of the observer's clock in which the reading was
// taken: exact for the observer's own clock; otherwise what all comparisons
// agree on, each widened by the drift that is possible since it was made. It
// wraps ErrNoComparison or ErrClocksContradict.
func (m *ClockMap) Map(r event.Reading) (event.Interval, error) {
	if r.Clock == m.observer && r.Clock != "" {
		return event.Interval{Lo: r.Mono, Hi: r.Mono}, nil
	}
	cs := m.others[r.Clock]
	if len(cs) == 0 {
		return event.Interval{}, fmt.Errorf("reading of clock %q: %w", r.Clock, ErrNoComparison)
	}
	out := event.Interval{Lo: math.MinInt64, Hi: math.MaxInt64}
	for _, c := range cs {
		at := sub(r.Mono, c.offset)
		away := sub(at, c.at)
		if away < 0 {
			away = sub(0, away)
		}
		err := sub(c.err, -drift(away))
		// How far away it was is itself known only within the error.
		err = sub(err, -2*drift(err))
		out.Lo = max(out.Lo, sub(at, err))
		out.Hi = min(out.Hi, sub(at, -err))
	}
	if out.Lo > out.Hi {
		return event.Interval{}, fmt.Errorf("reading of clock %q, %d comparisons: %w", r.Clock, len(cs), ErrClocksContradict)
	}
	return out, nil
}

// drift is the most that two clocks can part in a time, rounded up.
func drift(ns int64) int64 { return ns/1e6*MaxDriftPPM + MaxDriftPPM }

// sub is x-y, held at the ends of the range instead of wrapping around.
func sub(x, y int64) int64 {
	d := x - y
	switch {
	case x >= 0 && y < 0 && d < 0:
		return math.MaxInt64
	case x < 0 && y > 0 && d > 0:
		return math.MinInt64
	}
	return d
}

// Fault puts an injected fault on the observer's clock, widened by the error of
// the comparison.
func (m *ClockMap) Fault(f event.FaultInjected) (FaultTime, error) {
	f0, err := m.Map(f.F0)
	if err != nil {
		return FaultTime{}, fmt.Errorf("begin of fault %s: %w", f.Step, err)
	}
	f1, err := m.Map(f.F1)
	if err != nil {
		return FaultTime{}, fmt.Errorf("end of fault %s: %w", f.Step, err)
	}
	return FaultTime{Step: f.Step, F0: f0.Lo, F1: f1.Hi, Proven: f.Proof.Proven, How: f.Proof.How}, nil
}

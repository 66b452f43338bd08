package fold

import (
	"math"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// axis places readings of any process on the observer's clock. Figures only use
// what the clock map can bound; where a mark merely has to be drawn, the wall
// clock may stand in.
type axis struct {
	clock string
	clks  *verdict.ClockMap
	// anchor is any reading of the observer's clock: it ties mono to wall.
	anchor event.Reading
	// zero is the timeline's zero on the observer's clock.
	zero int64
}

// exact is the interval of the observer's clock in which r was taken.
func (a *axis) exact(r event.Reading) (event.Interval, bool) {
	if r.Clock == a.clock {
		return event.Interval{Lo: r.Mono, Hi: r.Mono}, true
	}
	i, err := a.clks.Map(r)
	return i, err == nil
}

// moment is the best guess of r on the observer's clock, for drawing.
func (a *axis) moment(r event.Reading) int64 {
	if i, ok := a.exact(r); ok {
		return i.Mid()
	}
	if a.anchor.Clock == "" {
		return r.Mono
	}
	return add(a.anchor.Mono, int64(r.Wall.Sub(a.anchor.Wall)))
}

// place is moment as a distance from the zero.
func (a *axis) place(r event.Reading) int64 { return sub(a.moment(r), a.zero) }

// wall is the wall time of a moment of the observer's clock.
func (a *axis) wall(mono int64) time.Time {
	if a.anchor.Clock == "" {
		return time.Time{}
	}
	t := a.anchor.Wall.Add(time.Duration(sub(mono, a.anchor.Mono))).UTC()
	if t.Year() < 1970 || t.Year() > 9999 {
		return time.Time{} // a broken reading; JSON could not even carry it
	}
	return t
}

// from shifts an interval of the observer's clock to the zero.
func (a *axis) from(i event.Interval) event.Interval {
	return event.Interval{Lo: sub(i.Lo, a.zero), Hi: sub(i.Hi, a.zero), Open: i.Open}
}

// distance is later minus earlier, both intervals, never below zero.
func distance(later, earlier event.Interval) event.Interval {
	d := event.Interval{Lo: max(0, sub(later.Lo, earlier.Hi)), Hi: max(0, sub(later.Hi, earlier.Lo)), Open: later.Open}
	if d.Open {
		d.Hi = d.Lo
	}
	return d
}

// add and sub saturate: a history may hold any numbers, and a wrapped one would
// read as a short time.
func add(x, y int64) int64 {
	s := x + y
	switch {
	case x > 0 && y > 0 && s < 0:
		return math.MaxInt64
	case x < 0 && y < 0 && s >= 0:
		return math.MinInt64
	}
	return s
}

func sub(x, y int64) int64 {
	if y == math.MinInt64 {
		if x < 0 {
			return x - y
		}
		return math.MaxInt64
	}
	return add(x, -y)
}

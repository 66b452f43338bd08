package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // windows name IANA zones, which minimal images lack
)

// Weekdays as windows name them, from Sunday as time.Weekday counts.
func weekdays() []string { return []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} }

// windowOpen reports whether a fault may start at t, and if not, how long to
// wait for the next window (looked for over eight days).
func windowOpen(ws []Window, t time.Time) (bool, time.Duration) {
	if len(ws) == 0 {
		return true, 0
	}
	best := 8 * 24 * time.Hour
	for _, w := range ws {
		open, wait := w.at(t)
		if open {
			return true, 0
		}
		best = min(best, wait)
	}
	return false, best
}

func (w Window) at(t time.Time) (bool, time.Duration) {
	from, to, loc, err := w.Parse()
	if err != nil {
		return false, 8 * 24 * time.Hour
	}
	t = t.In(loc)
	best := 8 * 24 * time.Hour
	for day := -1; day <= 7; day++ {
		// time.Date, not midnight plus a duration: some days have 23 or 25 hours.
		at := func(plus int, clock time.Duration) time.Time {
			return time.Date(t.Year(), t.Month(), t.Day()+day+plus, 0, int(clock.Minutes()), 0, 0, loc)
		}
		start, end := at(0, from), at(0, to)
		if len(w.Days) > 0 && !slices.Contains(w.Days, weekdays()[start.Weekday()]) {
			continue
		}
		if to <= from {
			end = at(1, to)
		}
		switch {
		case !t.Before(start) && t.Before(end):
			return true, 0
		case t.Before(start):
			best = min(best, start.Sub(t))
		}
	}
	return false, best
}

// Parse reads a window's times and zone, and says what is wrong with them.
func (w Window) Parse() (from, to time.Duration, loc *time.Location, err error) {
	if from, err = clockTime(w.From); err != nil {
		return 0, 0, nil, fmt.Errorf("from: %w", err)
	}
	if to, err = clockTime(w.To); err != nil {
		return 0, 0, nil, fmt.Errorf("to: %w", err)
	}
	for _, d := range w.Days {
		if !slices.Contains(weekdays(), d) {
			return 0, 0, nil, fmt.Errorf("days: %q: use %s", d, strings.Join(weekdays(), ", "))
		}
	}
	zone := w.Zone
	if zone == "" {
		zone = "UTC"
	}
	if loc, err = time.LoadLocation(zone); err != nil {
		return 0, 0, nil, fmt.Errorf("zone: %q: use an IANA name such as Europe/Dublin", w.Zone)
	}
	return from, to, loc, nil
}

func clockTime(s string) (time.Duration, error) {
	t, err := time.Parse("15:04", s)
	if err != nil {
		return 0, fmt.Errorf("%q: use HH:MM, such as 22:30", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

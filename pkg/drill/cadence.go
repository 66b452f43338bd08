package drill

import (
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// Cadence is when something is done by itself: every so often, or once a day at a time of
// day. The zero value is never.
type Cadence struct {
	Every event.Duration
	Daily string
	// Zone is the IANA name of the zone that Daily is in; UTC if "".
	Zone string
}

// Cadence is when the mirror does something by itself: MirrorSync or MirrorVerify.
func (m Mirror) Cadence(what string) Cadence {
	switch {
	case what == MirrorSync:
		return Cadence{m.Every, m.Daily, m.Zone}
	case what == MirrorVerify && m.Verify != nil:
		return Cadence{m.Verify.Every, m.Verify.Daily, m.Verify.Zone}
	}
	return Cadence{}
}

// Next is when something is due next that was done, or set, at a time: that much later, or
// at the next such time of day, which each day of the zone has once. Where clocks are put
// forward over it, it comes as much later as they were put forward; where they are put back
// over it, it is the first of both. It is the zero time if that is never.
func (c Cadence) Next(after time.Time) time.Time {
	if c.Every > 0 {
		return after.Add(c.Every.D())
	}
	clock, err := clockTime(c.Daily)
	if err != nil {
		return time.Time{}
	}
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return time.Time{} // no inventory with that is read
	}
	// Clocks were never put by so much that the day after the next is too far.
	for day := -1; ; day++ {
		y, m, d := after.In(zone).AddDate(0, 0, day).Date()
		if at := onDay(y, m, d, clock, zone); at.After(after) {
			return at
		}
	}
}

// onDay is when clocks show a time of day; see Cadence.Next. Which one time.Date gives of
// both, where there are two, it leaves open.
func onDay(y int, m time.Month, d int, clock time.Duration, zone *time.Location) time.Time {
	as := time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Add(clock)
	with := func(at time.Time) time.Time {
		_, offset := at.In(zone).Zone()
		return as.Add(-time.Duration(offset) * time.Second)
	}
	before, behind := with(as.Add(-24*time.Hour)), with(as.Add(24*time.Hour))
	shows := func(at time.Time) bool {
		at = at.In(zone)
		return at.Day() == d && at.Hour() == as.Hour() && at.Minute() == as.Minute()
	}
	if !shows(before) && shows(behind) {
		return behind
	}
	return before
}

// checkCadence checks when something is done by itself; never is fine.
func (c *checker) checkCadence(at string, when Cadence) {
	c.between(at+".every", when.Every, time.Second, 365*24*time.Hour)
	if when.Daily != "" && !clockPattern().MatchString(when.Daily) {
		c.add(at+".daily", when.Daily, "this is a time of day, such as 02:30")
	}
	if when.Every != 0 && when.Daily != "" {
		c.add(at+".daily", when.Daily, "there is every already: use one of them")
	}
	c.checkZone(at+".zone", when)
}

func (c *checker) checkZone(at string, when Cadence) {
	if when.Zone == "" {
		return
	}
	// "Local" would be another one on each machine.
	if _, err := time.LoadLocation(when.Zone); err != nil || when.Zone == "Local" {
		c.add(at, when.Zone, "this is an IANA name such as Europe/Berlin, or left out for UTC")
	}
	if when.Daily == "" {
		c.add(at, when.Zone, "this is the zone of daily, and there is none: leave it out")
	}
}

// String says when that is, for people; "" if it is never.
func (c Cadence) String() string {
	switch {
	case c.Every > 0:
		return "every " + c.Every.String()
	case c.Daily != "" && c.Zone != "":
		return fmt.Sprintf("daily at %s %s", c.Daily, c.Zone)
	case c.Daily != "":
		return "daily at " + c.Daily + " UTC"
	}
	return ""
}

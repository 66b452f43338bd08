package cli

import (
	"cmp"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/runlog"
)

// judge finds what of a mirror calls for somebody, and gives it its state.
func (st *mirrorStatus) judge(m drill.Mirror, inv drill.Inventory, now time.Time) {
	past := st.past()
	st.State = st.state(past)
	add := func(format string, args ...any) { st.Problems = append(st.Problems, fmt.Sprintf(format, args...)) }
	switch past {
	case "ok":
	case "never":
		add("no run of it is known that has ended")
	case "interrupted":
		if r := st.Running; r != nil {
			add("nothing is heard of its run since %s: its process is gone, or cut off", clockTime(*r.Silent))
		} else {
			add("its last run was interrupted")
		}
	default:
		add("its last run: %s", past)
	}
	if st.unread != nil {
		add("%v", st.unread)
	}
	if st.lost != nil {
		add("%v", st.lost)
	}
	if st.State == "stalled" {
		add("its run stands still")
	}
	if st.drifted() {
		add("the last check has found drift")
	}
	if st.Unchecked != "" {
		add("%s", st.Unchecked)
	}
	if late := st.overdue(m, inv, now); late != "" {
		add("it is overdue: %s (%s)", late, st.Schedule)
		st.late()
	}
	if late := st.unverified(m, now); late != "" {
		add("its verification is overdue: %s (%s)", late, st.VerifySchedule)
		st.late()
	}
	st.Well = len(st.Problems) == 0
}

// late has the state say that something is late, if that says nothing worse, nor that a run
// is at work.
func (st *mirrorStatus) late() {
	if st.State == "ok" || st.State == "waiting" {
		st.State = "overdue"
	}
}

// overdue says since when a mirror has had no good run as its schedule asks for; "" if it has,
// or there is no schedule.
func (st *mirrorStatus) overdue(m drill.Mirror, inv drill.Inventory, now time.Time) string {
	if st.State == "running" || st.Success == nil {
		return ""
	}
	age, limit := now.Sub(st.Success.Began), within(m, inv, now)
	switch {
	case limit == 0:
	case age < -clocksDiffer:
		return fmt.Sprintf(ahead, "its last good run began", -age.Round(time.Second))
	case age > limit:
		return fmt.Sprintf("its last good run began %s ago", age.Round(time.Second))
	}
	return ""
}

// ahead says of a time that is yet to come that it shows nothing.
const ahead = "%s %s from now, by a clock that was ahead"

// unverified says since when a mirror was not verified as its schedule asks for; "" if that is
// in time, or there is no schedule. A comparison to a lower level is none, and without any it
// counts from when there could have been one.
func (st *mirrorStatus) unverified(m drill.Mirror, now time.Time) string {
	c := m.Cadence(drill.MirrorVerify)
	if (c == drill.Cadence{}) {
		return ""
	}
	level := cmp.Or(m.Verify.Level, proof.L1.String())
	last, words := st.Check.Reach(level), "the last one to "+level+" ended %s ago"
	if last.IsZero() {
		last, words = st.verifiable, "none to "+level+" has ended in the %s since it could"
	}
	switch age := now.Sub(last); {
	case last.IsZero():
	case age < -clocksDiffer:
		return fmt.Sprintf(ahead, "the last one ended", -age.Round(time.Second))
	case age > patience(c, now):
		return fmt.Sprintf(words, age.Round(time.Second))
	}
	return ""
}

// latePatience is by how much what a mirror does by itself may be late besides: it takes its
// time, too.
const latePatience = 5 * time.Minute

// patience is how old the last of what is done by itself may be: two intervals, so that one
// that failed and was made up for is none of anybody's business.
func patience(c drill.Cadence, now time.Time) time.Duration {
	next := c.Next(now)
	return c.Next(next).Sub(next)*2 + latePatience
}

// within is how old a mirror's last good run may be, 0 if any age will do. One that comes after
// others runs no more often than they do.
func within(m drill.Mirror, inv drill.Inventory, now time.Time) (most time.Duration) {
	c := m.Cadence(drill.MirrorSync)
	if (c == drill.Cadence{}) {
		return 0
	}
	most = patience(c, now)
	for _, name := range m.After {
		other, _ := inv.FindMirror(name)
		theirs := within(other, inv, now)
		if theirs == 0 {
			return 0 // as often as somebody asks for that one
		}
		most = max(most, theirs)
	}
	return most
}

// ended is the last run that ended; nil if none did.
func (st *mirrorStatus) ended() *runlog.Run {
	switch {
	case st.Last != nil && !st.Last.Ended.IsZero():
		return st.Last
	case st.Success == nil || st.Failure != nil && st.Failure.Ended.After(st.Success.Ended):
		return st.Failure
	}
	return st.Success
}

// past says how the runs so far ended, whatever is under way now.
func (st *mirrorStatus) past() string {
	last := st.ended()
	switch {
	case st.Last != nil && st.Last.Ended.IsZero() && st.Running == nil, st.Running != nil && st.Running.Silent != nil:
		return "interrupted"
	case last == nil:
		return "never"
	case last.Whole:
		return "ok"
	case last.Cancelled:
		return "cancelled"
	case last.Failed:
		return "failed"
	}
	return "undone"
}

// state is what is to be known first: of a run that waits, and mends nothing yet, only where
// there is nothing worse.
func (st *mirrorStatus) state(past string) string {
	r := st.Running
	switch {
	case past == "interrupted":
		return past
	case r != nil && r.Waits == "":
		return r.state()
	case past == "ok" && st.drifted():
		return "drift"
	case r != nil && (past == "ok" || past == "never"):
		return r.state()
	}
	return past
}

// drifted reports whether the last check has found that a side is not what the last run left,
// and nothing is known to have mended that: a run which has looked at both sides mends what a
// look at names, sizes and ETags can find. What was found by contents another check has to
// find mended.
func (st *mirrorStatus) drifted() bool {
	c := st.Check
	if c == nil || !c.Differs || c.Good {
		return false
	}
	looked := st.Listed != nil && st.Success != nil && st.Listed.After(c.Ended) && st.Success.Began.After(c.Ended)
	return c.Level != proof.L1.String() || !looked
}

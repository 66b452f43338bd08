package verdict

import "testing"

// partly draws a lane that is well for ten seconds, then answers as fate says for so many
// slots, then is well again: an attempt every step, of which ok ones take took. Its bad ones
// met old connections, if it is pooled.
func partly(name string, step, took int64, slots int, fate func(slot int) (Outcome, int64)) Lane {
	l := Lane{Clock: "obs", Probe: "orders", Kind: kindWrite, Name: name, Epoch: 1, Deadline: 250 * ms}
	well := int(10_000 * ms / step)
	for i := range slots + 2*well {
		at := int64(i) * step
		a := Attempt{Seq: int64(i + 1), Scheduled: at, Started: at, Completed: at + took, Outcome: OK, Connected: i%2 == 0}
		if i >= well && i < well+slots {
			if outcome, took := fate(i - well); outcome != OK {
				a.Outcome, a.Completed, a.Connected = outcome, at+took, false
			}
		}
		l.Attempts = append(l.Attempts, a)
	}
	return l
}

// TestALongOutageCostsNoMoreAnAttempt than a short one, however many attempts are
// served in it: what has to be gone through one by one grows with their number, not with
// its square.
func TestALongOutageCostsNoMoreAnAttempt(t *testing.T) {
	third := func(outcome Outcome, took int64) func(int) (Outcome, int64) {
		return func(slot int) (Outcome, int64) {
			if slot%3 == 0 {
				return outcome, took
			}
			return OK, 0
		}
	}
	flapping := func(slot int) (Outcome, int64) {
		if slot/50%2 == 0 {
			return Failed, 1 * ms
		}
		return OK, 0
	}
	for what, c := range map[string]struct {
		step, took int64
		fate       func(int) (Outcome, int64)
		// outages are those of a lane, of 600 slots and of 2400.
		outages [2]int
	}{
		"every third fails, all by itself":         {200 * ms, 15 * ms, third(Failed, 1*ms), [2]int{200, 800}},
		"every third fails, and others hide it":    {10 * ms, 60 * ms, third(Failed, 60*ms), [2]int{1, 1}},
		"every third is not answered":              {200 * ms, 15 * ms, third(Unknown, 250*ms), [2]int{200, 800}},
		"every third is not answered, nor in time": {10 * ms, 60 * ms, third(Unknown, 250*ms), [2]int{1, 1}},
		"flapping": {10 * ms, 2 * ms, flapping, [2]int{6, 24}},
		"flapping, with two outages in each second": {5 * ms, 2 * ms, flapping, [2]int{6, 24}},
	} {
		work := func(slots, outages int) (each float64) {
			pooled, fresh := partly(lanePooled, c.step, c.took, slots, c.fate), partly("fresh", c.step, c.took, slots, c.fate)
			views, sum := survey([]*Lane{&pooled, &fresh}, 0, 1<<60), 0
			for _, v := range views {
				sum += v.looked
				check(t, what+": outages", len(v.outages), outages)
			}
			return float64(sum) / float64(2*slots)
		}
		if short, long := work(600, c.outages[0]), work(2400, c.outages[1]); long > 1.2*short+0.1 {
			t.Errorf("%s: %.2f attempts are looked at for each of a short outage, %.2f of one four times as long", what, short, long)
		}
	}
}

package fold

import (
	"fmt"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// goesOn marks the last fault's recovery while its outage lasts. The observer
// tells of an outage at once and of the attempts that prove it about once a
// second, so the attempts alone would call a service that is down one that never
// failed.
func (f *phaseFold) goesOn() {
	if f.out.State != StateRunning || len(f.out.Recovery) == 0 || !f.down() {
		return
	}
	r := &f.out.Recovery[len(f.out.Recovery)-1]
	since := f.measured.Faults[len(f.measured.Faults)-1].Step
	for _, t := range f.faults {
		if t.Step == since {
			r.Ongoing, r.NeverFailed = true, false
			r.Elapsed = max(0, sub(f.axis.moment(f.h.last.at()), t.F1))
		}
	}
}

// down reports whether a lane of the present observer was told to fail after the
// fault and not to answer again.
func (f *phaseFold) down() bool {
	type lane struct{ probe, name string }
	down := map[lane]bool{}
	claimed := 0
	for _, c := range f.h.claims {
		claimed = c.order
	}
	for _, n := range f.log.entries {
		if n.order < claimed {
			continue // whoever told of an outage before cannot tell of its end any more
		}
		switch p := n.payload.(type) {
		case *event.OutageStarted:
			down[lane{p.Probe, p.Lane}] = true
		case *event.OutageEnded:
			delete(down, lane{p.Probe, p.Lane})
		}
	}
	return len(down) > 0
}

// neverFailed says so only of a service that was seen to work after the fault:
// without an attempt since then, nothing is known of it.
func neverFailed(r verdict.FaultResult) bool { return r.NeverFailed && !r.TTFS.Open }

// ShowRecovery writes the time to recover, as far as it is known.
func ShowRecovery(r Recovery) string {
	switch {
	case r.Ongoing && r.Achieved.Lo > 0:
		return fmt.Sprintf("%s; the outage goes on, %s after the fault", Show(r.Achieved), ShowDuration(r.Elapsed))
	case r.Ongoing:
		return fmt.Sprintf("the outage goes on, %s after the fault", ShowDuration(r.Elapsed))
	case r.Achieved.Open && r.NeverFailed:
		return "no attempt failed so far"
	case r.Achieved.Open && r.Achieved.Lo == 0:
		return "not known" // at least nothing is no news
	}
	return Show(r.Achieved)
}

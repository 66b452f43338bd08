package live

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/verdict"
)

// slowness finds the lanes that answer again but are slower than before the
// fault, which keeps a drill waiting without any event to say why. It asks the
// attempts what the observer asks them, so it also works on an old history.
type slowness struct {
	live   *verdict.Live
	clocks *verdict.ClockMap
	// opened is when the last lane made its first attempt: the baseline begins there.
	opened int64
	faults []event.FaultInjected
	// since is when each slow lane was said to be slow.
	since map[string]time.Time
}

func newSlowness() *slowness {
	return &slowness{live: verdict.NewLive(), since: map[string]time.Time{}}
}

// fold takes one event into account.
func (s *slowness) fold(st bus.Stored) {
	switch p := st.Payload.(type) {
	case *event.PhaseStarted:
		clocks := s.clocks
		*s = *newSlowness()
		s.clocks = clocks
	case *event.ObserverClaimed:
		// The lanes of the claim before are not continued.
		s.live, s.opened = verdict.NewLive(), 0
		s.clocks = verdict.NewClockMap(st.Event.Clock)
	case *event.ClockCompared:
		if s.clocks != nil {
			_ = s.clocks.Add(*p, int64(st.Event.Mono)) // one that does not fit is not used
		}
	case *event.FaultInjected:
		s.faults = append(s.faults, *p)
	case *event.ProbeBatch:
		s.batch(p)
	}
}

func (s *slowness) batch(p *event.ProbeBatch) {
	lanes, err := verdict.LanesFromBatches([]event.ProbeBatch{*p})
	if err != nil || len(lanes) != 1 {
		return // the report says so
	}
	l := lanes[0]
	k := verdict.LaneKey{Probe: l.Probe, Kind: l.Kind, Name: l.Name, Epoch: l.Epoch}
	if s.live.Settled(k) == nil {
		s.opened = max(s.opened, l.Attempts[0].Scheduled)
	}
	s.live.Open(k, l.Attempts[0].Seq, l.Deadline)
	for _, a := range l.Attempts {
		s.live.Add(k, a)
	}
}

// news are the lines about lanes that became slow or are slow no more, at the
// moment at. Where a lane fails again, its outage is the news.
func (s *slowness) news(d drill.State, at time.Time) []string {
	unstable, known := s.unstable(d)
	var out []string
	for lane, why := range unstable {
		if !s.since[lane].IsZero() || !isSlow(why) {
			continue
		}
		s.since[lane] = at
		out = append(out, fmt.Sprintf("%s answers, but is slow, so not stable yet: %s", lane, strings.TrimPrefix(why, slowPrefix)))
	}
	for lane, since := range s.since {
		why, still := unstable[lane]
		if still && isSlow(why) {
			continue
		}
		delete(s.since, lane)
		if known && !still {
			out = append(out, fmt.Sprintf("%s is no longer slow, after %s", lane, at.Sub(since).Round(100*time.Millisecond)))
		}
	}
	slices.Sort(out)
	return out
}

// slowPrefix begins the reason of a lane that is only slow.
const slowPrefix = "slow: "

func isSlow(reason string) bool { return strings.HasPrefix(reason, slowPrefix) }

// unstable are the lanes that are not stable, with the reason; false while
// stability is not waited for.
func (s *slowness) unstable(d drill.State) (map[string]string, bool) {
	if d.Step(drill.StepID(d.Phase, drill.StepSettle, "")).Status == drill.Done {
		return nil, true
	}
	q, waits := s.query(d)
	if !waits {
		return nil, false
	}
	out := map[string]string{}
	for _, reason := range s.live.Stable(q).Reasons {
		lane, why, _ := strings.Cut(reason, ": ")
		out[lane] = why
	}
	return out, true
}

// query is what the observer asks while stability is waited for; false otherwise,
// and where the faults' times are not known on its clock.
func (s *slowness) query(d drill.State) (verdict.StableQuery, bool) {
	i := d.Position()
	if i == len(d.Program) || d.Program[i].Kind != drill.StepSettle || d.Abort != nil || holding(d) || len(s.faults) == 0 || s.clocks == nil {
		return verdict.StableQuery{}, false
	}
	q := verdict.StableQuery{From: s.opened}
	for _, p := range drill.WithDefaults(d.Drill).Spec.Phases {
		if p.Name == d.Phase {
			q.Window = int64(p.Stable.Window.D())
		}
	}
	for i, f := range s.faults {
		t, err := s.clocks.Fault(f)
		if err != nil {
			return q, false
		}
		if i == 0 || t.F0 < q.FirstFault {
			q.FirstFault = t.F0
		}
		q.Since = max(q.Since, t.F0)
	}
	return q, true
}

// holding reports whether a fault that ends by itself still lasts.
func holding(d drill.State) bool {
	return slices.ContainsFunc(d.Program, func(st drill.Step) bool {
		return st.Hold > 0 && slices.ContainsFunc(d.Debts, func(debt drill.Debt) bool { return debt.Step == st.ID })
	})
}

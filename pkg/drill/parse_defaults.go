package drill

import (
	"cmp"
	"slices"
	"time"

	"github.com/firedrill/firedrill/pkg/event"
)

// WithDefaults fills in what the definition leaves out, as its comments say,
// and leaves d as it was. The seed stays 0 when it was: whoever accepts the
// drill draws one. Doing it twice changes nothing.
func WithDefaults(d Drill) Drill {
	g := &d.Spec.Guards
	g.MaxParts = cmp.Or(g.MaxParts, 1)
	g.Deadline = cmp.Or(g.Deadline, event.Duration(time.Hour))
	d.Spec.Phases = slices.Clone(d.Spec.Phases)
	for i := range d.Spec.Phases {
		p := &d.Spec.Phases[i]
		p.Probes = slices.Clone(p.Probes)
		for j := range p.Probes {
			p.Probes[j] = defaultedProbe(p.Probes[j])
		}
		p.SteadyState = defaultedSteady(p.SteadyState)
		p.Stable = defaultedStable(*p)
	}
	return d
}

func defaultedProbe(p Probe) Probe {
	p.Interval = cmp.Or(p.Interval, event.Duration(100*time.Millisecond))
	p.Burst = cmp.Or(p.Burst, event.Duration(10*time.Millisecond))
	p.Fresh = cmp.Or(p.Fresh, event.Duration(200*time.Millisecond))
	p.Deadline = cmp.Or(p.Deadline, event.Duration(250*time.Millisecond))
	return p
}

func defaultedSteady(s SteadyState) SteadyState {
	s.Window = cmp.Or(s.Window, event.Duration(5*time.Second))
	s.Timeout = cmp.Or(s.Timeout, event.Duration(time.Minute))
	s.MinAvailability = cmp.Or(s.MinAvailability, 100)
	return s
}

func defaultedStable(p Phase) Stable {
	s := p.Stable
	s.Window = cmp.Or(s.Window, event.Duration(30*time.Second))
	s.Timeout = cmp.Or(s.Timeout, 2*p.Objective.RTO+s.Window)
	return s
}

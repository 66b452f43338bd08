package engine

import (
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// identify compares the places with those that the mirror was set up between.
func (r *run) identify() error {
	for _, s := range []plan.Side{plan.Source, plan.Dest} {
		t := r.Places[s].Traits()
		if r.facts.Identities[s] == "" || r.AcceptPlaces {
			r.facts.Identities[s] = t.Identity
		}
		if err := r.recognise(s); err != nil {
			return err
		}
		m := plan.Marker{Want: r.facts.Identities[s], Got: t.Identity}
		switch {
		case r.replaced(s):
			m.Got = t.Address + ", where nothing is as it was written"
		case r.doubted(s) && r.Mode == plan.TwoWay:
			m.Got, m.Fix = "", unvouched
		case r.witnesses[s].asked:
			m.Got = t.Address
		}
		r.Guards.Markers[s] = m
	}
	r.Guards.Versioned = r.Places[plan.Dest].Traits().Versioned || r.Bin != (place.Bin{})
	return nil
}

// right refuses a place that is not the one the mirror was set up with. What stands at such a
// destination is nobody's copy, and what is remembered is not there. What such a source
// holds, as an old disk, would be written over the copy of the right one.
func (r *run) right() error {
	for _, s := range []plan.Side{plan.Source, plan.Dest} {
		m := r.Guards.Markers[s]
		switch {
		case r.replaced(s):
			return r.noneLeft(s)
		case m.Got != m.Want && !r.doubted(s):
			return Elsewhere(s, r.Places[s])
		}
	}
	return nil
}

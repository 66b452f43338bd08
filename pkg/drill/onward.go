package drill

import (
	"github.com/firedrill/firedrill/pkg/event"
)

// maxOnward bounds what is stored at once. A drill's course has far fewer events in a
// row that ask for nothing in between.
const maxOnward = 100

// Onward is what the conductor stores when it has decided on drafts: those, and all
// that would then be due without anything done to a target or heard from anybody. They
// go into the history in one append, since each one costs a write to the disk while
// the drill waits. What is intended is never among what follows its own intent: the
// conductor carries that out first.
//
// s is the state that drafts were decided on; now is when.
func Onward(s State, drafts []event.Draft, now event.Reading) []event.Draft {
	out := append([]event.Draft(nil), drafts...)
	for done := 0; ; {
		for ; done < len(out); done++ {
			e, err := event.Compose(out[done], event.Origin{Service: event.Injector, Instance: s.Lease.Holder, Drill: s.ID, At: now, Index: s.Index + 1})
			if err != nil {
				return out // storing it says what is wrong
			}
			s = Apply(s, e)
		}
		m := Next(s, now)
		if m.Kind != MoveAppend || len(out)+len(m.Drafts) > maxOnward {
			return out
		}
		out = append(out, m.Drafts...)
	}
}

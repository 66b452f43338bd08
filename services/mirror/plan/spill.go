package plan

import (
	"errors"
	"iter"
)

// Spill keeps what has to wait until everything else is done. There may be as
// many as there are entries: a spill to a file keeps memory bounded. It is used
// by one goroutine.
type Spill interface {
	// Push adds an action behind those pushed before.
	Push(Action) error
	// All yields what was pushed, in order, any number of times. Nothing is
	// pushed after its first call.
	All() iter.Seq2[Action, error]
}

// ErrSpillFull means that a [MemorySpill] has reached its limit.
var ErrSpillFull = errors.New("too many actions wait for the end of the plan to be kept in memory; use a spill to a file")

// MemorySpill is a Spill for few actions.
type MemorySpill struct {
	// Limit is how many actions it takes; each needs about 1 KB.
	Limit   int
	actions []Action
}

// Push adds an action, or fails with ErrSpillFull.
func (s *MemorySpill) Push(a Action) error {
	if len(s.actions) >= s.Limit {
		return ErrSpillFull
	}
	s.actions = append(s.actions, a)
	return nil
}

// All yields the actions.
func (s *MemorySpill) All() iter.Seq2[Action, error] {
	return func(yield func(Action, error) bool) {
		for _, a := range s.actions {
			if !yield(a, nil) {
				return
			}
		}
	}
}

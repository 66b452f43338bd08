package injector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// claimTargets asks each of the drill's targets which system it is and takes
// those systems for the drill: no other drill may run on one, whatever it calls
// it, and none may while an earlier drill has left something undone there.
func (e *effects) claimTargets(ctx context.Context, s drill.State) (map[string]string, error) {
	systems := s.Systems
	if s.Settles == "" {
		systems = map[string]string{}
		for _, t := range s.Drill.Spec.Targets {
			id, err := e.identify(ctx, s, t.Name)
			if err != nil {
				return nil, err
			}
			systems[t.Name] = id
		}
	}
	if e.Bus == nil {
		return systems, nil // only planning for somebody: nothing will be done
	}
	for name, id := range systems {
		if err := e.claim(ctx, s, id); err != nil {
			return nil, fmt.Errorf("target %s is %s: %w", name, id, err)
		}
	}
	return systems, nil
}

// identify asks the driver, or falls back to the configuration for one that
// cannot say: two drills with one configuration are kept apart at least.
func (e *effects) identify(ctx context.Context, s drill.State, name string) (string, error) {
	t, err := e.open(ctx, s, name)
	if err != nil {
		return "", err
	}
	if t.Identity == nil {
		asked, err := s.Drill.Target(name)
		return fmt.Sprintf("%s %s", asked.Driver, asked.Config), err
	}
	id, err := t.Identity.Identify(ctx)
	if err == nil && id == "" {
		err = errors.New("the driver named none")
	}
	if err != nil {
		return "", fmt.Errorf("target %s: which system is it? %w", name, err)
	}
	return id, nil
}

// claim takes one system for the drill.
func (e *effects) claim(ctx context.Context, s drill.State, system string) error {
	for {
		c, err := e.Bus.ClaimOf(ctx, system)
		switch {
		case err != nil:
			return err
		case c.Drill == s.ID:
			return nil
		case s.Settles != "" && c.Drill != s.Settles:
			return fmt.Errorf("drill %s has taken it since %s: there is nothing left of that one to undo", c.Drill, s.Settles)
		case s.Settles == "" && c.Drill != "":
			if err := e.over(ctx, c.Drill); err != nil {
				return err
			}
		}
		if err := e.Bus.TakeClaim(ctx, c, s.ID); !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
}

// over says why the drill that has a system still needs it.
func (e *effects) over(ctx context.Context, id string) error {
	st, err := stateOf(ctx, e.Bus, id)
	switch {
	case errors.Is(err, bus.ErrNoDrill):
		return nil // the claim outlived its drill's history
	case err != nil:
		return err
	case st.Finished == nil:
		return fmt.Errorf("drill %s runs on it: wait for it or `firedrill abort %s`", id, id)
	case len(st.Debts) > 0:
		return fmt.Errorf("drill %s could not undo %s there: look at it, then `firedrill undo %s`", id, st.Debts[len(st.Debts)-1].Step, id)
	}
	return nil
}

// owed is what an undo request's drill left, as the settlement's first event
// holds it.
func owed(st drill.State) []event.Effect {
	out := make([]event.Effect, 0, len(st.Debts))
	for _, d := range st.Debts {
		out = append(out, event.Effect{Step: d.Step, Target: d.Target, Operation: d.Operation, Undo: d.Undo})
	}
	return out
}

// settlement turns a request to undo into the first event of a drill that does.
func (s *service) settlement(ctx context.Context, data []byte) (string, event.DrillAccepted, error) {
	u, err := drill.ParseUndo(data)
	if err != nil {
		return "", event.DrillAccepted{}, &refusal{problems: drill.AsProblems(err)}
	}
	st, err := stateOf(ctx, s.Bus, u.Spec.Drill)
	switch {
	case errors.Is(err, bus.ErrNoDrill):
		return "", event.DrillAccepted{}, &refusal{reason: fmt.Sprintf("spec.drill: %q: no such drill: `firedrill list` shows them", u.Spec.Drill)}
	case err != nil:
		return "", event.DrillAccepted{}, err
	case st.Finished == nil:
		return "", event.DrillAccepted{}, &refusal{reason: fmt.Sprintf("spec.drill: %q: it is still running: `firedrill abort %s` undoes what it did", st.ID, st.ID)}
	case len(st.Debts) == 0:
		return "", event.DrillAccepted{}, &refusal{reason: fmt.Sprintf("spec.drill: %q: it has nothing left to undo", st.ID)}
	}
	spec, hash, err := drill.JSON(st.Drill)
	if err != nil {
		return "", event.DrillAccepted{}, bus.Poison(fmt.Errorf("undo of drill %s: %w", st.ID, err))
	}
	return u.Metadata.Name, event.DrillAccepted{Spec: spec, SpecHash: hash, Seed: st.Seed, Settles: st.ID, Owes: owed(st), Systems: st.Systems}, nil
}

// stateOf folds the trusted events of a drill's history.
func stateOf(ctx context.Context, b *bus.Bus, id string) (drill.State, error) {
	history, err := b.History(ctx, id)
	if err != nil {
		return drill.State{}, err
	}
	return fold(history), nil
}

// fold applies the verified events of a history.
func fold(history []bus.Stored) drill.State {
	var st drill.State
	for _, h := range history {
		if h.Trust == nil {
			st = drill.Apply(st, h.Event)
		}
	}
	return st
}

// UndoRequest is the document that asks for what a drill left to be undone.
func UndoRequest(name, id string) ([]byte, error) {
	return json.Marshal(drill.Undo{APIVersion: drill.APIVersion, Kind: drill.UndoKind, Metadata: drill.Metadata{Name: name}, Spec: drill.UndoSpec{Drill: id}})
}

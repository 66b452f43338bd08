package injector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// claimTargets asks each of the drill's targets which system it is and takes
// those systems for the drill: no other drill may run on one, whatever it calls
// it, and none may while an earlier drill has left something undone there.
func (e *effects) claimTargets(ctx context.Context, s drill.State) (map[string]string, error) {
	systems := s.Systems
	if s.Settles != "" && len(systems) == 0 {
		return nil, fmt.Errorf("drill %s had no systems: there is nothing of it to undo", s.Settles)
	}
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
	for _, name := range slices.Sorted(maps.Keys(systems)) {
		if err := e.claim(ctx, s, systems[name]); err != nil {
			return nil, fmt.Errorf("target %s is %s: %w", name, systems[name], err)
		}
	}
	if s.Waives != "" {
		return systems, nil // nothing is touched
	}
	return systems, e.holds.wait(ctx, e.Locks, s, systems, e.log)
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
		return unidentified(asked.Driver) + string(asked.Config), err
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

// unidentified begins the name of a system whose driver cannot say which it is.
func unidentified(driver string) string { return driver + " " }

// sameSystem keeps a settlement off any system but the one that its drill changed,
// which it has claimed. The settlement came with the inventory of its own day, by
// which the target may be another system.
func (e *effects) sameSystem(ctx context.Context, s drill.State, name string) error {
	if s.Settles == "" {
		return nil
	}
	asked, err := s.Drill.Target(name)
	if err != nil {
		return err
	}
	// A configuration says nothing: whatever was edited in it since, its system may
	// be the same, and what was changed there has to be undone.
	if strings.HasPrefix(s.Systems[name], unidentified(asked.Driver)) {
		return nil
	}
	id, err := e.identify(ctx, s, name)
	if err != nil {
		return err
	}
	if id == s.Systems[name] {
		return nil
	}
	fix := "let the inventory's entry name that system again until the undo has succeeded"
	if slices.Contains(s.Anew, name) || asked.Inventory == "" {
		fix = "undo it again, with a file for --with that describes that system"
	}
	return fmt.Errorf("not done: target %s is %s now, and drill %s changed %s: %s", name, id, s.Settles, s.Systems[name], fix)
}

// claim takes one system for the drill.
func (e *effects) claim(ctx context.Context, s drill.State, system string) error {
	for {
		c, err := e.Bus.ClaimOf(ctx, system)
		if err != nil {
			return err
		}
		if c.Drill == s.ID {
			return nil
		}
		if c.Drill != "" && c.Drill != s.Settles {
			if err := e.mayTake(ctx, s, c.Drill); err != nil {
				return err
			}
		}
		if err := e.Bus.TakeClaim(ctx, c, s.ID); !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
}

// mayTake says why the drill that has a system still needs it. A settlement takes
// over from an earlier settlement of the same drill, and from nobody else.
func (e *effects) mayTake(ctx context.Context, s drill.State, holder string) error {
	st, err := stateOf(ctx, e.Bus, holder)
	switch {
	case errors.Is(err, bus.ErrNoDrill):
		return nil // the claim outlived its drill's history
	case err != nil:
		return err
	case st.Finished == nil:
		return fmt.Errorf("drill %s runs on it: wait for it or `firedrill abort %s`", holder, holder)
	case s.Settles != "" && st.Settles != s.Settles:
		return fmt.Errorf("drill %s has had it since: what %s had left was settled before", holder, s.Settles)
	case s.Settles == "" && len(st.Debts) > 0:
		return fmt.Errorf("drill %s could not undo %s there: look at it, then `firedrill undo %s`", holder, st.Debts[len(st.Debts)-1].Step, holder)
	}
	return nil
}

// settlement turns a request to undo into the first event of a drill that does. It
// settles the drill that was asked for, or what that one was to settle itself.
func (s *service) settlement(ctx context.Context, r drill.Request) (event.DrillAccepted, error) {
	u, err := r.Undo()
	if err != nil {
		return event.DrillAccepted{}, &refusal{problems: drill.AsProblems(err)}
	}
	st, err := stateOf(ctx, s.Bus, u.Spec.Drill)
	if err == nil && st.Settles != "" {
		st, err = stateOf(ctx, s.Bus, st.Settles)
	}
	switch {
	case errors.Is(err, bus.ErrNoDrill):
		return event.DrillAccepted{}, &refusal{reason: fmt.Sprintf("spec.drill: %q: no such drill: `firedrill list` shows them", u.Spec.Drill)}
	case err != nil:
		return event.DrillAccepted{}, err
	case st.Finished == nil:
		return event.DrillAccepted{}, &refusal{reason: fmt.Sprintf("spec.drill: %q: it is still running: `firedrill abort %s` undoes what it did", st.ID, st.ID)}
	}
	owes, err := s.owed(ctx, st)
	if err != nil {
		return event.DrillAccepted{}, err
	}
	if len(owes) == 0 {
		return event.DrillAccepted{}, &refusal{reason: fmt.Sprintf("spec.drill: %q: it has nothing left to undo", u.Spec.Drill)}
	}
	for _, t := range u.Spec.Targets {
		// The request may leave the driver to the inventory.
		if was, err := st.Drill.Target(t.Name); err == nil && strings.HasPrefix(st.Systems[t.Name], unidentified(was.Driver)) {
			return event.DrillAccepted{}, &refusal{reason: fmt.Sprintf("spec.targets: %q: its driver cannot say which system a configuration leads to, so it cannot be described anew", t.Name)}
		}
	}
	if u.Spec.LetGo != "" {
		return s.waiver(st, owes, u.Spec.LetGo)
	}
	d, err := s.Inventory.Settle(st.Drill, targetsOwing(owes), r, catalogue(s.Registry, s.Log))
	if problems := (*drill.Problems)(nil); errors.As(err, &problems) {
		return event.DrillAccepted{}, &refusal{problems: *problems}
	}
	if err != nil {
		return event.DrillAccepted{}, &refusal{reason: fmt.Sprintf("spec.drill: %q: %v", st.ID, err)}
	}
	spec, hash, err := drill.JSON(d)
	if err != nil {
		return event.DrillAccepted{}, bus.Poison(fmt.Errorf("undo of drill %s: %w", st.ID, err))
	}
	var anew []string
	for _, t := range u.Spec.Targets {
		anew = append(anew, t.Name)
	}
	return event.DrillAccepted{Spec: spec, SpecHash: hash, Seed: st.Seed, Settles: st.ID, Owes: owes, Systems: st.Systems, Anew: anew}, nil
}

// waiver is the settlement that takes somebody's word for it that what is owed was seen
// to. It frees systems that may be broken, so it needs the permission that lets requests
// do what they like to systems anyhow.
func (s *service) waiver(st drill.State, owes []event.Effect, reason string) (event.DrillAccepted, error) {
	if !s.Inventory.Spec.InlineTargets {
		return event.DrillAccepted{}, &refusal{problems: drill.Problems{{Field: "spec.letGo", Value: reason,
			Fix: "this firedrill's inventory does not let requests free what may be broken: mend the systems and ask for the undo without it, which finds nothing left to do, or have the operator set inlineTargets: true for this request"}}}
	}
	spec, hash, err := drill.JSON(st.Drill)
	if err != nil {
		return event.DrillAccepted{}, bus.Poison(fmt.Errorf("undo of drill %s: %w", st.ID, err))
	}
	return event.DrillAccepted{Spec: spec, SpecHash: hash, Seed: st.Seed, Settles: st.ID, Owes: owes, Systems: st.Systems, Waives: reason}, nil
}

func targetsOwing(owes []event.Effect) []string {
	out := make([]string, len(owes))
	for i, o := range owes {
		out[i] = o.Target
	}
	return out
}

// owed is what a finished drill left and nobody has settled since. Who has a system
// now tells: the drill itself, a settlement of it, which has debts of its own, or
// another drill, which got it only because nothing was owed there any more.
func (s *service) owed(ctx context.Context, st drill.State) ([]event.Effect, error) {
	left := map[string]bool{}
	for _, system := range st.Systems {
		c, err := s.Bus.ClaimOf(ctx, system)
		if err != nil {
			return nil, err
		}
		holder := st
		if c.Drill != st.ID {
			if holder, err = stateOf(ctx, s.Bus, c.Drill); errors.Is(err, bus.ErrNoDrill) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		switch {
		case holder.ID != st.ID && holder.Settles != st.ID:
			continue
		case holder.Finished == nil:
			return nil, &refusal{reason: fmt.Sprintf("spec.drill: %q: drill %s is undoing it right now: `firedrill watch %s`", st.ID, holder.ID, holder.ID)}
		}
		for _, d := range holder.Debts {
			if st.Systems[d.Target] == system {
				left[d.Step] = true
			}
		}
	}
	var out []event.Effect
	for _, d := range st.Debts {
		if left[d.Step] {
			out = append(out, event.Effect{Step: d.Step, Target: d.Target, Operation: d.Operation, Undo: d.Undo})
		}
	}
	return out, nil
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
func fold(history []bus.Stored) drill.State { return drill.Fold(bus.Trusted(history)) }

// UndoRequest is the document that asks for what a drill left to be undone.
func UndoRequest(name string, u drill.UndoSpec) ([]byte, error) {
	return json.Marshal(drill.Undo{APIVersion: drill.APIVersion, Kind: drill.UndoKind, Metadata: drill.Metadata{Name: name}, Spec: u})
}

package validator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
)

// view is what the validator needs of a drill's history.
type view struct {
	state     drill.State
	drill     drill.Drill
	tail      bus.Tail
	published bool
	open      map[string]bool // phases that began and did not end
	baselines map[string]*event.BaselineRecorded
	checked   map[string]map[string]*event.CheckCompleted // by step and check
	completed map[string]bool
	evidence  map[evidenceKey]bool
	batches   []event.ProbeBatch
}

type evidenceKey struct{ phase, cause, target string }

func (c Config) load(ctx context.Context, id string) (view, error) {
	v := view{
		open: map[string]bool{}, baselines: map[string]*event.BaselineRecorded{},
		checked:   map[string]map[string]*event.CheckCompleted{},
		completed: map[string]bool{}, evidence: map[evidenceKey]bool{},
	}
	past, err := c.Bus.History(ctx, id)
	if err != nil {
		return v, err
	}
	v.take(past)
	return v, nil
}

// take goes on with what follows in the history.
func (v *view) take(more []bus.Stored) {
	for _, st := range more {
		v.tail = st.Tail()
		if st.Trust != nil {
			continue
		}
		v.state = drill.Apply(v.state, st.Event)
		v.fold(st.Payload)
	}
	v.drill, v.published = drill.WithDefaults(v.state.Drill), v.state.Published
}

func (v *view) fold(payload any) {
	switch p := payload.(type) {
	case *event.PhaseStarted:
		v.open[p.Phase] = true
	case *event.PhaseFinished:
		v.open[p.Phase] = false
	case *event.ProbeBatch:
		v.batches = append(v.batches, *p)
	case *event.BaselineRecorded:
		v.baselines[p.Step] = p
	case *event.CheckCompleted:
		if v.checked[p.Step] == nil {
			v.checked[p.Step] = map[string]*event.CheckCompleted{}
		}
		v.checked[p.Step][p.Check] = p
	case *event.ChecksCompleted:
		v.completed[p.Step] = true
	case *event.EvidenceCollected:
		v.evidence[evidenceKey{p.Phase, p.Cause, p.Target}] = true
	}
}

// phase finds the phase that a step belongs to.
func (v *view) phase(step string) (drill.Phase, error) {
	name, _, _ := strings.Cut(step, "/")
	for _, p := range v.drill.Spec.Phases {
		if p.Name == name {
			return p, nil
		}
	}
	return drill.Phase{}, fmt.Errorf("step %q belongs to no phase of the drill", step)
}

// checks are those of a step, or all of the phase for its baseline.
func checks(p drill.Phase, step string) []drill.Check {
	switch step {
	case drill.StepID(p.Name, drill.StepBaseline, ""):
		return append(append([]drill.Check(nil), p.Checks...), p.Restore.Checks...)
	case drill.StepID(p.Name, drill.StepChecks, drill.Recovered):
		return p.Checks
	case drill.StepID(p.Name, drill.StepChecks, drill.Restored):
		return p.Restore.Checks
	}
	return nil
}

// maxTries is how often others may write in between before say gives up.
const maxTries = 100

// say appends a draft unless what it says is said already, or the history is
// closed. The look and the append are one: whoever is second finds the first.
//
// Each time that somebody else wrote in between it reads on from there. After 100
// times it fails: the message that asked is handed out again, and ends as a dead
// letter at last.
func (c Config) say(ctx context.Context, id string, said func(view) bool, d event.Draft) error {
	v, err := c.load(ctx, id)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		if v.published || said(v) {
			return nil
		}
		_, err := c.Bus.AppendAt(ctx, id, v.tail, d)
		switch {
		case !errors.Is(err, bus.ErrConflict):
			return err
		case try == maxTries:
			return fmt.Errorf("say %s in drill %s: others wrote in between %d times: %w", d.Type, id, try, err)
		}
		more, err := c.Bus.HistoryAfter(ctx, id, v.tail)
		if err != nil {
			return err
		}
		v.take(more)
	}
}

package injector

import (
	"slices"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/target"
)

// TestAPlanShowsItsGuards: those of the inventory too, which its requester may not
// know.
func TestAPlanShowsItsGuards(t *testing.T) {
	inv := drill.OpenInventory()
	inv.Spec.Guards = drill.Guards{Protect: []string{"db-*"}, Approval: true, Windows: []drill.Window{{From: "09:00", To: "17:00"}}}
	c := Config{Registry: target.NewRegistry(newFakeDriver()), Inventory: inv, Clock: clock.System(), Log: (&rig{t: t}).log()}
	got := Check(t.Context(), c, VerbPlan, []byte(fakeDrill))
	g := got.Guards
	if !got.Valid || g == nil || !slices.Equal(g.Protect, []string{"db-*"}) || !g.Approval || len(g.Windows) != 1 || g.MaxParts != 1 || g.Deadline == 0 || got.BlastRadius != 1 {
		t.Errorf("plan %+v, guards %+v", got, g)
	}
	if got := Check(t.Context(), c, VerbValidate, []byte(fakeDrill)); got.Guards != nil || got.BlastRadius != 0 {
		t.Errorf("what was only checked shows a plan: %+v", got)
	}
}

// TestCanariesToCome: a plan of the whole drill is told of them where a probe writes some by
// the time of the step, and a plan at the step's turn never is: they are there by then.
func TestCanariesToCome(t *testing.T) {
	later := strings.Replace(fakeDrill, "probe: write", "probe: read", 1) + `    - name: later
      objective: {rto: 1m}
      probes: [{name: w, target: t, probe: write}]
      faults: [{name: break, target: t, fault: break}]
`
	for raw, want := range map[string][]bool{
		fakeDrill: {true, true},
		strings.Replace(fakeDrill, "probe: write", "probe: read", 1): {false, false},
		later: {false, false, true},
	} {
		var got []bool
		d := newFakeDriver()
		d.plan = func(op target.Operation) error { got = append(got, op.CanariesToCome); return nil }
		c := Config{Registry: target.NewRegistry(d), Inventory: drill.OpenInventory(), Clock: clock.System(), Log: (&rig{t: t}).log()}
		spec, err := ReadDrill([]byte(raw), c.Registry, c.Inventory)
		if err != nil {
			t.Fatal(err)
		}
		e, s := newEffects(c, "d", c.Log), drill.State{ID: "d", Drill: spec, Program: drill.Compile(spec)}
		if e.planAll(t.Context(), s); !slices.Equal(got, want) {
			t.Errorf("planned as a whole: %v, want %v, of %s", got, want, raw)
		}
		got = nil
		for _, st := range s.Program {
			if st.Kind == drill.StepFault {
				e.move(t.Context(), s, drill.Move{Kind: drill.MoveResolve, Step: st}, c.Clock.Now(), nil)
			}
		}
		if len(got) == 0 || slices.Contains(got, true) {
			t.Errorf("at their turn: %v, of %s", got, raw)
		}
	}
}

package injector

import (
	"slices"
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

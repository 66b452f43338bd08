package target

import (
	"errors"
	"fmt"
	"testing"
)

type lasting bool

func (l lasting) Error() string   { return "as it says" }
func (l lasting) Permanent() bool { return bool(l) }

// TestAJoinIsPermanentIfAllOfItIs: where one of several ways may open, trying again can
// do better, whichever of them is told first.
func TestAJoinIsPermanentIfAllOfItIs(t *testing.T) {
	silent := errors.New("no word on that")
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"none":                  {nil, false},
		"silent":                {silent, false},
		"permanent":             {lasting(true), true},
		"wrapped":               {fmt.Errorf("here: %w", lasting(true)), true},
		"with its kind":         {fmt.Errorf("%w: %w", silent, lasting(true)), true},
		"all silent":            {errors.Join(silent, silent), false},
		"both permanent":        {errors.Join(lasting(true), lasting(true)), true},
		"the first may pass":    {errors.Join(lasting(false), lasting(true)), false},
		"the last may pass":     {errors.Join(lasting(true), lasting(false)), false},
		"one deep in may pass":  {fmt.Errorf("x: %w", errors.Join(lasting(true), fmt.Errorf("y: %w", lasting(false)))), false},
		"all deep in permanent": {errors.Join(errors.Join(lasting(true)), fmt.Errorf("y: %w", lasting(true))), true},
	} {
		if got := IsPermanent(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

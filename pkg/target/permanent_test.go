package target

import (
	"errors"
	"fmt"
	"testing"
)

type lasting bool

func (l lasting) Error() string   { return "as it says" }
func (l lasting) Permanent() bool { return bool(l) }

// withNil is a join that keeps nil, as errors.Join does not.
type withNil []error

func (w withNil) Error() string   { return errors.Join(w...).Error() }
func (w withNil) Unwrap() []error { return w }

// TestAJoinIsPermanentIfAllOfItIs: where one of several ways may open, trying again can
// do better, whichever of them is told first. One that says nothing of it may open.
func TestAJoinIsPermanentIfAllOfItIs(t *testing.T) {
	silent := errors.New("no word on that")
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"none":                   {nil, false},
		"silent":                 {silent, false},
		"permanent":              {lasting(true), true},
		"wrapped":                {fmt.Errorf("here: %w", lasting(true)), true},
		"with its kind":          {fmt.Errorf("%w: %w", silent, lasting(true)), true},
		"such a kind may pass":   {fmt.Errorf("%w: %w", lasting(false), lasting(true)), false},
		"all silent":             {errors.Join(silent, silent), false},
		"one joined is silent":   {errors.Join(lasting(true), silent), false},
		"a kind's join may pass": {fmt.Errorf("%w: %w", errors.Join(lasting(false), silent), lasting(true)), false},
		"a kind's join is so":    {fmt.Errorf("%w: %w", silent, errors.Join(silent, lasting(true))), false},
		"one wrapped is silent":  {fmt.Errorf("x: %w", errors.Join(lasting(true), silent)), false},
		"nil is none of them":    {withNil{lasting(true), nil}, true},
		"both permanent":         {errors.Join(lasting(true), lasting(true)), true},
		"the first may pass":     {errors.Join(lasting(false), lasting(true)), false},
		"the last may pass":      {errors.Join(lasting(true), lasting(false)), false},
		"one deep in may pass":   {fmt.Errorf("x: %w", errors.Join(lasting(true), fmt.Errorf("y: %w", lasting(false)))), false},
		"all deep in permanent":  {errors.Join(errors.Join(lasting(true)), fmt.Errorf("y: %w", lasting(true))), true},
	} {
		if got := IsPermanent(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

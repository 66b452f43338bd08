package target

import (
	"errors"
	"fmt"
	"testing"
)

// TestInTargetNamesEach of the errors that were joined, and leaves one whole that puts
// several into words of its own.
func TestInTargetNamesEach(t *testing.T) {
	a, b, c := &FieldError{Field: "a", Fix: "mend it"}, errors.New("b"), errors.New("c")
	for want, err := range map[string]error{
		"target x: b": b,
		"target x: a: mend it\ntarget x: b, of kind c\ntarget x: c": errors.Join(a, errors.Join(fmt.Errorf("%w, of kind %w", b, c), c)),
	} {
		got := InTarget("x", err)
		if got == nil || got.Error() != want || !errors.Is(got, b) {
			t.Errorf("%v: %v, want %s", err, got, want)
		}
	}
	if err := InTarget("x", nil); err != nil {
		t.Errorf("of no error: %v", err)
	}
	if f, ok := errors.AsType[*FieldError](InTarget("x", a)); !ok || f != a {
		t.Errorf("the field is lost: %v", f)
	}
}

package joined_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/pkg/joined"
)

// list is a join of another make than the standard library's: it keeps nil.
type list []error

func (l list) Error() string   { return errors.Join(l...).Error() }
func (l list) Unwrap() []error { return l }

// hollow has joined nothing.
type hollow struct{}

func (hollow) Error() string   { return "" }
func (hollow) Unwrap() []error { return nil }

func TestLeaves(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	words, single := fmt.Errorf("%w: %w", a, b), fmt.Errorf("x: %w", errors.Join(a, b))
	for name, x := range map[string]struct {
		err  error
		want []error
	}{
		"nil":                       {nil, nil},
		"one":                       {a, []error{a}},
		"joined":                    {errors.Join(a, b), []error{a, b}},
		"joined alone":              {errors.Join(a), []error{a}},
		"joined to joined ones":     {errors.Join(errors.Join(a, b), errors.Join(c)), []error{a, b, c}},
		"with nil":                  {list{a, nil, errors.Join(b, nil)}, []error{a, b}},
		"in words of its own":       {words, []error{words}},
		"joined to such":            {errors.Join(words, c), []error{words, c}},
		"a join that words precede": {single, []error{single}},
		"a hollow one":              {errors.Join(hollow{}, a), []error{hollow{}, a}},
	} {
		if got := slices.Collect(joined.Leaves(x.err)); !slices.Equal(got, x.want) {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
}

// TestLeavesAreWhatWasJoined, whatever was joined to what, and whoever stops early gets
// no more.
func TestLeavesAreWhatWasJoined(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []error
		var tree func(depth int) error
		tree = func(depth int) error {
			if depth == 0 || rapid.Bool().Draw(t, "leaf") {
				want = append(want, fmt.Errorf("%d", len(want)))
				return want[len(want)-1]
			}
			var parts []error
			for range rapid.IntRange(1, 3).Draw(t, "parts") {
				parts = append(parts, tree(depth-1))
			}
			return errors.Join(parts...)
		}
		err := tree(4)
		if got := slices.Collect(joined.Leaves(err)); !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
		n := rapid.IntRange(0, len(want)).Draw(t, "taken")
		taken := 0
		for range joined.Leaves(err) { // which panics if it is given more
			if taken == n {
				break
			}
			taken++
		}
	})
}

func TestReason(t *testing.T) {
	plain := errors.New("full")
	path := &fs.PathError{Op: "open", Path: "/a", Err: plain}
	for name, err := range map[string]error{"plain": plain, "path": path, "around": fmt.Errorf("write: %w", path)} {
		if got := joined.Reason(err); got != plain {
			t.Errorf("%s: %v", name, got)
		}
	}
	if joined.Reason(nil) != nil {
		t.Error("nil")
	}
}

package canary_test

import (
	"errors"
	"testing"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/canary"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

func TestProbeParameters(t *testing.T) {
	var p strict.Problems
	canary.WantOf(&p, true, "")
	canary.WantOf(&p, false, "writes")
	for in, want := range map[int64]int64{0: canary.DefaultSize, 1: 1, 64: 64} {
		if got := canary.WantSize(&p, in, 64); got != want {
			t.Errorf("size %d: %d, want %d", in, got, want)
		}
	}
	for in, want := range map[int]int{0: canary.DefaultSlots, 1: 1, 1000: 1000} {
		if got := canary.WantSlots(&p, "atOnce", in); got != want {
			t.Errorf("slots %d: %d, want %d", in, got, want)
		}
	}
	if len(p) != 0 {
		t.Fatalf("what is right is refused: %v", p)
	}
	canary.WantOf(&p, true, "writes")
	canary.WantOf(&p, false, "")
	canary.WantSize(&p, -1, 64)
	canary.WantSize(&p, 65, 64)
	canary.WantSlots(&p, "atOnce", -1)
	canary.WantSlots(&p, "atOnce", 1001)
	var fields []string
	for _, err := range p {
		e, ok := errors.AsType[*target.FieldError](err)
		if !ok || e.Fix == "" {
			t.Fatalf("no FieldError: %v", err)
		}
		fields = append(fields, e.Field)
	}
	if want := []string{"of", "of", "size", "size", "atOnce", "atOnce"}; len(fields) != len(want) || fields[2] != "size" || fields[5] != "atOnce" {
		t.Errorf("%v, want %v", fields, want)
	}
}

func TestLanes(t *testing.T) {
	for lane, ok := range map[string]bool{target.LanePooled: true, target.LaneFresh: true, "": false, "third": false} {
		if err := canary.CheckLane(lane); (err == nil) != ok || !ok && !errors.Is(err, target.ErrUnsupported) {
			t.Errorf("lane %q: %v", lane, err)
		}
	}
}

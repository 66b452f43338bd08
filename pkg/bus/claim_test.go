package bus_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/pkg/bus"
	"github.com/firedrill/firedrill/pkg/event"
)

func TestOneOfManyTakesAClaim(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	free, err := b.ClaimOf(t.Context(), "postgres/1")
	if err != nil || free.Drill != "" {
		t.Fatalf("%+v, %v", free, err)
	}
	drills := []string{"a-1", "b-2", "c-3", "d-4"}
	errs := make([]error, len(drills))
	var wg sync.WaitGroup
	for i, d := range drills {
		wg.Go(func() { errs[i] = b.TakeClaim(t.Context(), free, d) })
	}
	wg.Wait()
	got, err := b.ClaimOf(t.Context(), "postgres/1")
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range drills {
		if won := got.Drill == d; won != (errs[i] == nil) || (!won && !errors.Is(errs[i], bus.ErrConflict)) {
			t.Errorf("%s: %v, and the claim is %s's", d, errs[i], got.Drill)
		}
	}
	if err := b.TakeClaim(t.Context(), got, "e-5"); err != nil {
		t.Fatal(err)
	}
	if other, err := b.ClaimOf(t.Context(), "postgres/2"); err != nil || other.Drill != "" {
		t.Errorf("another system: %+v, %v", other, err)
	}
}

func TestAClaimThatCannotBeReadLetsNobodyIn(t *testing.T) {
	w := newWorld(t)
	b := w.connect(event.Injector)
	c, err := b.ClaimOf(t.Context(), "postgres/1")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.TakeClaim(t.Context(), c, ""); err != nil {
		t.Fatal(err)
	}
	if got, err := b.ClaimOf(t.Context(), "postgres/1"); err == nil {
		t.Fatalf("read as %+v", got)
	}
}

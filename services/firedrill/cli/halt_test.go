package cli

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/pkg/run"
)

// TestOneOfManyHaltsAtOnce: the others are told whose reason stays.
func TestOneOfManyHaltsAtOnce(t *testing.T) {
	dir := serve(t)
	outs := make([]bytes.Buffer, 6)
	var wg sync.WaitGroup
	for i := range outs {
		wg.Go(func() {
			if code, errs := ask(t.Context(), dir, &outs[i], "halt", fmt.Sprint("reason ", i)); code != run.OK {
				t.Errorf("exit %d: %s", code, errs)
			}
		})
	}
	wg.Wait()
	first := -1
	for i := range outs {
		if strings.Contains(outs[i].String(), "being aborted") {
			if first >= 0 {
				t.Errorf("%d and %d have both halted", first, i)
			}
			first = i
		}
	}
	for i := range outs {
		if want := fmt.Sprint("reason ", first); i != first && !strings.Contains(outs[i].String(), want) {
			t.Errorf("halt %d says %q, not %q", i, outs[i].String(), want)
		}
	}
	says(t, dir, []string{"released", fmt.Sprint("reason ", first)}, "halt", "--release")
}

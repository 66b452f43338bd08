package bench

import (
	"strings"
	"testing"
)

// TestFolding runs every way once on a small history: each checks for itself that
// it folded, or verified, all of it.
func TestFolding(t *testing.T) {
	figures, err := Folding(t.Context(), 300)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	Print(&out, figures)
	for _, f := range figures {
		if f.Value <= 0 || f.Means == "" || !strings.Contains(out.String(), f.Name+": "+f.Means) {
			t.Errorf("%+v is not said in\n%s", f, out.String())
		}
	}
}

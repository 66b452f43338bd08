package drill_test

import (
	"bytes"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
)

// TestBrokenTextsCostLittle: the line of a mistake is looked for, but not for as long
// as whoever sends the text likes. This one could keep a reader busy for hours.
func TestBrokenTextsCostLittle(t *testing.T) {
	raw := append([]byte("kind: Drill\nspec:\n  a: \""), bytes.Repeat([]byte("x\n "), drill.MaxSize/3-16)...)
	_, err := drill.Parse(raw)
	if ps := drill.AsProblems(err); len(ps) != 1 || ps[0].Line != 3 {
		t.Errorf("%v, want line 3, where the quotation begins", err)
	}
}

package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sideJSON is what these tests read of a side that was checked.
type sideJSON struct {
	Verified, Inconclusive                                               bool
	Problems, Checked, KeptElsewhere, WaitingElsewhere                   int64
	ManifestEntries, LeftOutEntries, LeftOutNames, OwnersOnly            int64
	Missing, Extra, Different, Unchecked, Low, Kept, Waiting, Unreadable struct{ Count int64 }
}

func (w *mirrorWorld) sides(want int, args ...string) (sides []sideJSON) {
	w.t.Helper()
	text := w.run(want, append(args, "--json", w.from, w.to)...) // behind it, perhaps, a warning
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&sides); err != nil || len(sides) != 2 {
		w.t.Fatalf("got %+v, %v", sides, err)
	}
	return sides
}

// TestWhatACopyKeepsIsNoDifference: it is listed by drift, counted by all, and looked for
// at the destination.
func TestWhatACopyKeepsIsNoDifference(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	if err := os.Remove(filepath.Join(w.dir, "src", "a")); err != nil {
		t.Fatal(err)
	}
	w.has(w.run(1, "drift", w.from, w.to), `missing    "a"`)
	w.run(0, "sync", w.from, w.to)
	const from, to = "; 1 kept at the destination only, and not looked for here", "3 checked; 1 of these are kept at the destination only"
	text := w.run(0, "verify", w.from, w.to)
	if w.has(text, "src: verified (L1): 2 checked", from, to); strings.Contains(text, "kept       ") {
		t.Errorf("what is as it should be is listed:\n%s", text)
	}
	w.has(w.run(0, "drift", w.from, w.to), from, to, `kept       "a": the source had it no more`)
	w.has(w.run(0, "audit", w.from, w.to), from, to, "both sides: 1 of 1 contents read on both and equal")
	sides := w.sides(0, "verify")
	if sides[0].KeptElsewhere != 1 || sides[0].Kept.Count != 0 || sides[1].Kept.Count != 1 || sides[1].Problems != 0 {
		t.Errorf("got %+v", sides)
	}
	if err := os.Remove(filepath.Join(w.dir, "dst", "a")); err != nil {
		t.Fatal(err)
	}
	w.has(w.run(1, "verify", w.from, w.to), `missing    "a": it was kept at the destination only`)
}

// TestWhatWaitsForDeletionIsNoDifference: from the run that first missed it until the one
// that deletes it; what was deleted since then is one, and it is said what becomes of it.
func TestWhatWaitsForDeletionIsNoDifference(t *testing.T) {
	w := newMirrorWorld(t)
	for i := range 8 {
		w.write(fmt.Sprintf("src/f%d", i), "x")
	}
	remove := func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	sync := func() string { return w.run(0, "sync", "--mode", "mirror", w.from, w.to) }
	sync()
	remove("src/a")
	w.has(w.run(1, "verify", w.from, w.to), `missing    "a"`, "to do      what was deleted on purpose the next `mirror sync` takes note of")
	w.has(sync(), "kept       1: ")
	const from, to = "; 1 gone from here, and waiting for deletion on the other side", "11 checked; 1 of these wait for deletion, as the other side has them no more"
	text := w.run(0, "verify", w.from, w.to)
	if w.has(text, "src: verified (L1): 10 checked", from, to); strings.Contains(text, "waiting    ") {
		t.Errorf("what is as it should be is listed:\n%s", text)
	}
	w.has(w.run(0, "drift", w.from, w.to), from, to, `waiting    "a": gone from the source, and kept in the destination until a run deletes it`)
	w.has(w.run(0, "audit", w.from, w.to), from, to, "both sides: 9 of 9 contents read on both and equal")
	sides := w.sides(0, "verify")
	if sides[0].WaitingElsewhere != 1 || sides[0].Waiting.Count != 0 || sides[1].Waiting.Count != 1 || sides[1].Problems != 0 || sides[1].Kept.Count != 0 {
		t.Errorf("got %+v", sides)
	}
	remove("src/f0")
	remove("dst/f1")
	w.has(w.run(1, "verify", w.from, w.to), `missing    "f0"`, `missing    "f1"`, from, "to do      the next `mirror sync` copies what is missing again")
	w.has(sync(), "1 copied", "1 deleted", "kept       1: ")
	w.has(w.run(0, "verify", w.from, w.to), from)
}

// TestNothingCheckedIsNothingProven: nor is it hidden how much a filter left out.
func TestNothingCheckedIsNothingProven(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", "--filter", "- **", w.from, w.to)
	text := w.run(1, "verify", w.from, w.to)
	w.has(text, "src: INCONCLUSIVE: nothing was checked\n", "dst: INCONCLUSIVE: nothing was checked\n", "1 rule in force, which left out 2 names here", "0 entries of the manifest's 0")
	w.has(w.run(1, "audit", w.from, w.to), "INCONCLUSIVE", "both sides: nothing was compared")
	w.run(0, "sync", w.from, w.to)
	w.has(w.run(1, "verify", "--filter", "- **", w.from, w.to), "INCONCLUSIVE", "none of the 3 entries of the manifest takes part by the filter")
	for _, side := range w.sides(1, "verify", "--filter", "- **") {
		if side.Verified || !side.Inconclusive || side.ManifestEntries != 3 || side.LeftOutEntries != 3 || side.LeftOutNames != 2 {
			t.Errorf("got %+v", side)
		}
	}
	w.has(w.run(0, "verify", "--filter", "- /d/", w.from, w.to), "verified (L1): 1 checked", "1 rule in force, which left out 1 name here", "2 entries of the manifest's 3")
	if text := w.run(0, "verify", w.from, w.to); strings.Contains(text, "filter") {
		t.Errorf("without a filter:\n%s", text)
	}
	w.has(w.run(0, "sync", "--filter", "- **", w.from, w.to), "3 entries of earlier runs, none of which took part in this one")
}

// TestAComparisonWithNothingMakesNothing: not even where to lock what is not there.
func TestAComparisonWithNothingMakesNothing(t *testing.T) {
	w := newMirrorWorld(t)
	for _, command := range []string{"verify", "drift", "audit"} {
		w.has(w.run(1, command, w.from, w.to), "run it first")
		w.has(w.run(1, command, "--wait", "--json", w.from, w.to), "run it first", `"exitCode": 1`)
	}
	left, err := os.ReadDir(w.dir)
	if err != nil || len(left) != 1 || left[0].Name() != "src" {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestAnAuditsCountsAreInItsJSON: whatever people are told.
func TestAnAuditsCountsAreInItsJSON(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	w.write("dst/a", "two")
	w.write("dst/x", "x")
	var got struct {
		Clean       bool
		Sides       []sideJSON
		RottenCount int
		Edited      int64
	}
	if err := json.Unmarshal([]byte(w.run(1, "audit", "--json", w.from, w.to)), &got); err != nil {
		t.Fatal(err)
	}
	if got.Clean || got.Edited != 1 || got.RottenCount != 0 || len(got.Sides) != 2 || got.Sides[0].Problems != 0 || got.Sides[1].Problems != 2 {
		t.Errorf("got %+v", got)
	}
}

package cli_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAPlaceThatIsAnotherExitsAsGuardsDo: neither are the arguments wrong, nor has firedrill
// failed; and what was refused is told later in the same words.
func TestAPlaceThatIsAnotherExitsAsGuardsDo(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	dst := filepath.Join(w.dir, "dst")
	if err := errors.Join(os.Rename(dst, dst+".away"), os.Mkdir(dst, 0o755)); err != nil {
		t.Fatal(err)
	}
	const says = "dst is not the place that the mirror was set up with: see whether"
	w.has(w.run(1, "sync", "--dry-run", w.from, w.to), says)
	var got struct {
		Whole bool
		Error string
	}
	if err := json.Unmarshal([]byte(w.run(1, "sync", "--json", w.from, w.to)), &got); err != nil || got.Whole || !strings.Contains(got.Error, says) {
		t.Errorf("got %+v, %v", got, err)
	}
	w.has(w.run(1, "sync", w.from, w.to), says)
	if text := w.run(1, "status", w.from, w.to); strings.Contains(text, "mirror job") || !strings.Contains(text, "failed: the destination dir:"+dst+" is not the place") {
		t.Errorf("told later:\n%s", text)
	}
	w.run(0, "sync", "--accept-places", w.from, w.to)
}

// TestAnAuditingRunSaysWhatItRead and, of a store, what it believed.
func TestAnAuditingRunSaysWhatItRead(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	text := w.run(0, "sync", "--check", "audit", w.from, w.to)
	if w.has(text, "read       2 contents of the source and 2 of the destination, to compare them\n"); strings.Contains(text, "believed") {
		t.Errorf("of directories:\n%s", text)
	}
	var got struct{ Compared map[string]int }
	if err := json.Unmarshal([]byte(w.run(0, "sync", "--check", "audit", "--json", w.from, w.to)), &got); err != nil || got.Compared["source"] != 2 || got.Compared["destination"] != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	if text := w.run(0, "sync", w.from, w.to); strings.Contains(text, "to compare them") {
		t.Errorf("of a run that does not audit:\n%s", text)
	}
}

// TestATwoWayAuditPromisesNoMoreThanARunDoes: what both sides edited is in conflict.
func TestATwoWayAuditPromisesNoMoreThanARunDoes(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", "--mode", "two-way", w.from, w.to)
	w.write("src/a", "mine")
	w.write("dst/a", "theirs")
	if err := os.Remove(filepath.Join(w.dir, "dst/d/b")); err != nil {
		t.Fatal(err)
	}
	w.has(w.run(1, "audit", w.from, w.to), "which is a conflict that it names and you resolve", "to do      the next `mirror sync` takes what is missing for deleted here")
	w.has(w.run(1, "sync", "--mode", "two-way", w.from, w.to), `conflict   "a"`)
	one := newMirrorWorld(t)
	one.run(0, "sync", one.from, one.to)
	one.write("dst/a", "theirs")
	text := one.run(1, "audit", one.from, one.to)
	if one.has(text, "makes the destination like the source again"); strings.Contains(text, "conflict") {
		t.Errorf("a one-way mirror:\n%s", text)
	}
}

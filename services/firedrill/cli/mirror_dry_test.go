package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A dry run is no success where the run would be refused, and says why as that would.
func TestADryRunEndsAsTheRunWould(t *testing.T) {
	w := newMirrorWorld(t)
	sync := func(want int, args ...string) string {
		t.Helper()
		return w.run(want, append(append([]string{"sync", "--mode", "mirror"}, args...), w.from, w.to)...)
	}
	for i := range 10 {
		w.write(fmt.Sprintf("src/f%d", i), "x")
	}
	sync(0)
	for i := range 10 {
		if err := os.Remove(filepath.Join(w.dir, fmt.Sprintf("src/f%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	sync(0, "--dry-run") // missing for the first time
	sync(0)
	for _, args := range [][]string{{"--dry-run"}, nil} {
		w.has(sync(1, args...), "  kept       10 of the destination's 13 entries would be removed, at most 3 (25 %, deletes.mostPercent) may be: look at it with --dry-run; if this is meant, allow it for one run with --may-delete 10\n")
		w.has(sync(1, append(args, "--may-delete", "9")...), "  kept       10 of the destination's 13 entries would be removed, at most 9 (--may-delete) may be: ", "with --may-delete 10\n")
	}
	var dry struct {
		Whole, DryRun bool
		Refusals      []string
	}
	if err := json.Unmarshal([]byte(sync(1, "--dry-run", "--json")), &dry); err != nil || dry.Whole || !dry.DryRun || len(dry.Refusals) != 1 {
		t.Errorf("got %+v, %v", dry, err)
	}
	w.has(sync(0, "--dry-run", "--may-delete", "10"), `delete     "f0"`, "10 deleted")
	w.has(sync(0, "--may-delete", "10"), "10 deleted")
}

// In a two-way mirror into what keeps no versions nothing may be deleted, whatever
// --may-delete says: it is not advised.
func TestNoAdviceThatDoesNotHelp(t *testing.T) {
	w := newMirrorWorld(t)
	sync := func(want int, args ...string) string {
		t.Helper()
		return w.run(want, append(append([]string{"sync", "--mode", "two-way"}, args...), w.from, w.to)...)
	}
	sync(0)
	if err := os.Remove(filepath.Join(w.dir, "src/a")); err != nil {
		t.Fatal(err)
	}
	sync(0)
	for _, args := range [][]string{nil, {"--dry-run"}, {"--may-delete", "-1"}} {
		out := sync(1, args...)
		w.has(out, "two-way removes nothing while the destination keeps no versions")
		if strings.Contains(out, "--may-delete") {
			t.Errorf("it advises what does not help:\n%s", out)
		}
	}
	w.write("src/both", "mine")
	w.write("dst/both", "theirs")
	w.has(sync(1, "--dry-run"), `conflict   "both"`)
}

// What is equal on both sides and was never read is not called clean.
func TestAnAuditClaimsNoMoreThanTheManifest(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", w.from, w.to)
	if err := os.RemoveAll(filepath.Join(w.dir, "mirrors")); err != nil {
		t.Fatal(err)
	}
	w.run(0, "sync", w.from, w.to)
	out := w.run(1, "audit", w.from, w.to)
	w.has(out, "dst: NOT verified", "both sides: 2 of 2 contents read on both and equal", "firedrill mirror sync --check audit")
	var got struct {
		Clean bool
		Sides []struct{ Verified bool }
	}
	if err := json.Unmarshal([]byte(w.run(1, "audit", "--json", w.from, w.to)), &got); err != nil || got.Clean || len(got.Sides) != 2 || got.Sides[0].Verified {
		t.Errorf("got %+v, %v", got, err)
	}
	w.run(0, "sync", "--check", "audit", w.from, w.to)
	w.has(w.run(0, "audit", w.from, w.to), "src: verified (L4)", "dst: verified (L4)")
}

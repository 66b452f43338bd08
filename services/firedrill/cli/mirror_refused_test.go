package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A command that was refused for what it was given, in a shell without the keys or with other
// flags than the mirror was set up with, says nothing of the mirror's runs.
func TestWhatWasRefusedIsNoRun(t *testing.T) {
	w := newMirrorWorld(t)
	w.run(0, "sync", "--mode", "two-way", w.from, w.to)
	before := w.run(0, "status", w.from, w.to)
	text := w.run(254, "sync", "--mode", "copy", w.from, w.to)
	w.has(text, "keep that mode")
	if after := w.run(0, "status", w.from, w.to); after != before {
		t.Errorf("after\n%s it says\n%s and not\n%s", text, after, before)
	}
	list := w.run(0, "status")
	if !strings.Contains(list, "  ok  ") {
		t.Errorf("listed:\n%s", list)
	}
}

// The same of a mirror of the inventory.
func TestAShellWithoutKeysIsNoRun(t *testing.T) {
	w := newMirrorWorld(t)
	at := func(to, stores string) string {
		file := filepath.Join(w.dir, "inventory.yaml")
		text := fmt.Sprintf("apiVersion: firedrill/v1\nkind: Inventory\nspec:\n%s  mirrors:\n    - {name: out, from: %q, to: %q}\n", stores, w.from, to)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	w.run(0, "sync", "--inventory", at(w.to, ""), "out")
	file := at("s3:vault/bucket/x", "  stores:\n    - {name: vault, endpoint: \"http://127.0.0.1:1\", accessKey: {env: FIREDRILL_TEST_NO_KEY}, secretKey: {env: FIREDRILL_TEST_NO_KEY}}\n")
	before := w.run(0, "status", "--inventory", file, "out")
	w.has(w.run(255, "sync", "--inventory", file, "out"), "FIREDRILL_TEST_NO_KEY", "this environment variable is not set")
	if after := w.run(0, "status", "--inventory", file, "out"); after != before {
		t.Errorf("it says\n%s and not\n%s", after, before)
	}
	// What is not as it should be is told as before.
	if err := os.Rename(filepath.Join(w.dir, "src"), filepath.Join(w.dir, "away")); err != nil {
		t.Fatal(err)
	}
	file = at(w.to, "")
	w.run(255, "sync", "--inventory", file, "out")
	w.has(w.run(1, "status", "--inventory", file, "out"), "failed: ", "open the source")
}

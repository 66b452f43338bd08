package undo_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

const other = "firedrill-fedcba9876543210"

func marker(t *testing.T) undo.Marker {
	m := machine(t)
	return undo.Marker{Machine: m, File: filepath.Join(m.StateDir, "system's.fault")}
}

// text is what the marker holds; "" if there is none.
func text(t *testing.T, m undo.Marker) string {
	t.Helper()
	b, err := os.ReadFile(m.File)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// mend runs a script that Mend made, and returns what it said.
func mend(t *testing.T, m undo.Marker, token, script string, args ...string) (string, error) {
	t.Helper()
	return m.Machine.Host.Output(t.Context(), control.Command{What: "mend", Script: m.Mend(script), Args: m.Args(token, args...)})
}

func TestOneFaultIsOutstanding(t *testing.T) {
	m := marker(t)
	if err := m.Leave(t.Context(), by(1), token, "disk 1", "disk 2"); err != nil {
		t.Fatal(err)
	}
	const want = token + "\ndisk 1\ndisk 2\n"
	if got := text(t, m); got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	if err := m.Leave(t.Context(), by(1), other); err == nil || !strings.Contains(err.Error(), "another fault, "+token+", is not undone yet") {
		t.Fatalf("a second fault: %v", err)
	}
	if got := text(t, m); got != want {
		t.Fatalf("the marker is %q now", got)
	}
	if err := m.Leave(t.Context(), by(1), token, "disk 3"); err != nil || text(t, m) != token+"\ndisk 3\n" {
		t.Fatalf("the same step again: %q, %v", text(t, m), err)
	}
	if _, err := mend(t, m, token, ":"); err != nil || text(t, m) != "" {
		t.Fatalf("mended: %q, %v", text(t, m), err)
	}
	if err := m.Leave(t.Context(), by(1), other); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyTheFaultsOwnMendTakesItsMarkerAway(t *testing.T) {
	m := marker(t)
	if out, err := mend(t, m, token, `printf '%s|' "$token" "$marker" "$@"`, "a b", "c"); err != nil || out != token+"|"+m.File+"|a b|c|" {
		t.Fatalf("without a marker: %q, %v", out, err)
	}
	if err := m.Leave(t.Context(), by(1), token); err != nil {
		t.Fatal(err)
	}
	if _, err := mend(t, m, other, ":"); err != nil || text(t, m) == "" {
		t.Errorf("another fault's mend: %q, %v", text(t, m), err)
	}
	if _, err := mend(t, m, token, "echo no >&2; exit 1"); err == nil || text(t, m) == "" {
		t.Errorf("a mend that failed: %q, %v", text(t, m), err)
	}
	if _, err := mend(t, m, token, "false"); err == nil || text(t, m) == "" {
		t.Errorf("what failed last was taken for mended: %v, %q", err, text(t, m))
	}
}

func TestAnOlderConductorLeavesNoMarker(t *testing.T) {
	m := marker(t)
	if err := m.Machine.Claim(t.Context(), by(2)); err != nil {
		t.Fatal(err)
	}
	if err := m.Leave(t.Context(), by(1), token); !errors.As(err, new(*control.FencedError)) || text(t, m) != "" {
		t.Errorf("%q, %v", text(t, m), err)
	}
}

func TestMendsTakeTurns(t *testing.T) {
	m := marker(t)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if _, err := mend(t, m, token, `mkdir -- "$1" && sleep 0.05 && rmdir -- "$1" || exit 1`, filepath.Join(m.Machine.StateDir, "alone")); err != nil {
				t.Errorf("two are at it: %v", err)
			}
		})
	}
	wg.Wait()
}

package undo_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/internal/await"
	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/undo"
)

const token = "firedrill-0123456789abcdef"

func machine(t *testing.T) undo.Machine {
	t.Helper()
	h, err := control.New(control.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return undo.Machine{Host: h, Name: "node a", StateDir: filepath.Join(t.TempDir(), "state"), Field: "nodes[].control"}
}

func by(epoch int64) target.Operation {
	return target.Operation{Drill: "drill", Step: "s", Fence: epoch}
}

func TestTheNewerConductorActs(t *testing.T) {
	m := machine(t)
	for name, claim := range map[string]func(int64) error{
		"claim":         func(epoch int64) error { return m.Claim(t.Context(), by(epoch)) },
		"claim to mend": func(epoch int64) error { return m.ClaimToMend(t.Context(), by(epoch)) },
	} {
		if err := claim(2); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e, ok := errors.AsType[*control.FencedError](claim(1))
		if !ok || e.Newer != 2 || e.Epoch != 1 {
			t.Errorf("%s by an older one: %v", name, e)
		}
		if err := claim(2); err != nil {
			t.Errorf("%s again: %v", name, err)
		}
	}
	if err := m.Claim(t.Context(), target.Operation{}); err != nil {
		t.Errorf("without a drill: %v", err)
	}
}

// TestADrillOfAnotherStoreIsAnother, though it has the same id.
func TestADrillOfAnotherStoreIsAnother(t *testing.T) {
	m := machine(t)
	ours, theirs := by(1), by(7)
	ours.Run, theirs.Run = "a", "b"
	for _, op := range []target.Operation{theirs, ours, theirs} {
		if err := m.Claim(t.Context(), op); err != nil {
			t.Errorf("%s: %v", op.Whose(), err)
		}
	}
	theirs.Fence = 6
	if err := m.Claim(t.Context(), theirs); !errors.As(err, new(*control.FencedError)) {
		t.Errorf("an older conductor of the drill: %v", err)
	}
}

// unwritable makes the machine's record of conductors one that cannot be replaced.
func unwritable(t *testing.T, m undo.Machine) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(m.StateDir, "fence.new", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeRecordedIsMendedAllTheSame(t *testing.T) {
	m := machine(t)
	if err := m.Claim(t.Context(), by(2)); err != nil {
		t.Fatal(err)
	}
	unwritable(t, m)
	err := m.Claim(t.Context(), by(3))
	if err == nil {
		t.Fatal("nothing is in the way")
	}
	for _, part := range []string{"node a: ", "make its machine reachable (nodes[].control)", m.StateDir} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in: %v", part, err)
		}
	}
	if err := m.ClaimToMend(t.Context(), by(3)); err != nil {
		t.Errorf("to mend: %v", err)
	}
	if err := m.ClaimToMend(t.Context(), by(1)); !errors.As(err, new(*control.FencedError)) {
		t.Errorf("to mend, by an older one: %v", err)
	}
}

func TestTimersAreSetAndCancelled(t *testing.T) {
	m := machine(t)
	fired := filepath.Join(t.TempDir(), "fired")
	timer := control.Timer{Script: `: >"$1"`, Args: []string{fired}}
	op := by(1)
	op.Hold = time.Hour
	if err := m.Arm(t.Context(), op, token, timer); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(m.StateDir, token+".timer")
	if armed, err := m.Host.Armed(t.Context(), file); err != nil || !armed {
		t.Fatalf("armed: %t, %v", armed, err)
	}
	for range 2 {
		if err := m.Disarm(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if armed, err := m.Host.Armed(t.Context(), file); err != nil || armed {
			t.Fatalf("armed after all: %t, %v", armed, err)
		}
	}
	op.Limit = time.Nanosecond
	if err := m.Arm(t.Context(), op, token, timer); err != nil {
		t.Fatal(err)
	}
	await.Until(t, time.Minute, "the timer to fire", func() bool {
		_, err := os.Stat(fired)
		return err == nil
	})
}

func TestAMachineThatIsAwayIsNamed(t *testing.T) {
	h, err := control.New(control.Config{Kind: control.KindExec, Argv: []string{"false"}})
	if err != nil {
		t.Fatal(err)
	}
	m := undo.Machine{Host: h, Name: "node a", StateDir: "/var/lib/firedrill", Field: "nodes[].control"}
	for name, err := range map[string]error{
		"claim":         m.Claim(t.Context(), by(1)),
		"claim to mend": m.ClaimToMend(t.Context(), by(1)),
		"arm":           m.Arm(t.Context(), by(1), token, control.Timer{Script: ":"}),
		"disarm":        m.Disarm(t.Context(), token),
		"marker":        undo.Marker{Machine: m, File: "/var/lib/firedrill/x"}.Leave(t.Context(), by(1), token),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "node a: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

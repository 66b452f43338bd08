package clock_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/event"
)

// TestMain lets the test binary play another process of the same boot.
func TestMain(m *testing.M) {
	if os.Getenv("FIREDRILL_CLOCK_CHILD") != "" {
		if err := json.NewEncoder(os.Stdout).Encode(clock.System().Now()); err != nil {
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestReadingsOfTwoProcessesCompare(t *testing.T) {
	c := clock.System()
	before := c.Now()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FIREDRILL_CLOCK_CHILD=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child: %v", err)
	}
	after := c.Now()
	var child event.Reading
	if err := json.Unmarshal(out, &child); err != nil {
		t.Fatalf("child printed %q: %v", out, err)
	}
	if child.Clock != before.Clock || child.Clock == "" {
		t.Fatalf("clock names differ: %q and %q", child.Clock, before.Clock)
	}
	if child.Mono <= before.Mono || child.Mono >= after.Mono {
		t.Fatalf("child read %d, which is not between %d and %d", child.Mono, before.Mono, after.Mono)
	}
}

func TestMonotonicAndWallAdvanceTogether(t *testing.T) {
	c := clock.System()
	a := c.Now()
	timer := time.NewTimer(20 * time.Millisecond)
	<-timer.C
	b := c.Now()
	if mono := b.Mono - a.Mono; mono < int64(20*time.Millisecond) {
		t.Fatalf("monotonic advanced %d ns over a 20 ms timer", mono)
	}
	if b.Wall.Location() != time.UTC {
		t.Fatalf("wall clock is in %v, want UTC", b.Wall.Location())
	}
}

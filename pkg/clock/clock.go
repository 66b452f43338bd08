// Package clock reads the machine's clocks for stamping events.
package clock

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/event"
)

// Clock is the machine's monotonic clock together with its wall clock. Two
// Clocks of one boot, also in different processes, have the same Name and
// comparable readings. It is immutable and safe for concurrent use.
type Clock struct{ name string }

// System returns the machine's clock. Its name is derived from the boot and the
// time namespace, and reveals neither. Where the system does not tell its boot,
// the name is random, so that readings of different processes are never taken
// for comparable.
func System() Clock {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(id) == 0 {
		return Clock{name: "process-" + rand.Text()[:12]}
	}
	// Time namespaces shift CLOCK_MONOTONIC; a kernel without them has no link.
	ns, err := os.Readlink("/proc/self/ns/time")
	if err != nil {
		ns = ""
	}
	sum := sha256.Sum256([]byte("firedrill clock\n" + string(id) + ns))
	return Clock{name: "boot-" + hex.EncodeToString(sum[:8])}
}

// Name identifies the monotonic clock.
func (c Clock) Name() string { return c.name }

// Now reads both clocks. Mono is CLOCK_MONOTONIC in nanoseconds, the same on
// every process of the boot; Wall is UTC.
func (c Clock) Now() event.Reading {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		// The kernel refuses this call only for an unknown clock or a bad
		// address; neither can be here.
		panic("clock: CLOCK_MONOTONIC cannot be read: " + err.Error())
	}
	return event.Reading{Clock: c.name, Mono: ts.Nano(), Wall: time.Now().UTC().Round(0)}
}

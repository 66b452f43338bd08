package canary

import (
	"fmt"
	"strconv"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/strict"
)

// What a probe's parameters are when they are left out. So many slots let attempts
// that hang until their deadline, 250 ms at 10 ms each, never wait for one another.
const (
	DefaultSize  = 1 << 10
	DefaultSlots = 40
)

// maxSlots is how many attempts of a lane may be under way at most.
const maxSlots = 1000

// WantOf wants params.of, which names the write probe whose canaries are read, of
// probes that read, and of no other.
func WantOf(p *strict.Problems, writes bool, of string) {
	switch {
	case !writes && of == "":
		p.Add("of", "", "missing: name the write probe whose canaries are read")
	case writes && of != "":
		p.Add("of", of, "only for probes that read; leave it out")
	}
}

// WantSize wants params.size, the size of a canary in bytes, to be at most most. It
// returns the size, which is DefaultSize if it was left out.
func WantSize(p *strict.Problems, size, most int64) int64 {
	if size < 0 || size > most {
		p.Add("size", strconv.FormatInt(size, 10), fmt.Sprintf("give 1 to %d bytes, or leave it out", most))
	}
	if size == 0 {
		return DefaultSize
	}
	return size
}

// WantSlots wants the parameter that says how many attempts of a lane may be under way,
// whatever the driver calls it. It returns the number, which is DefaultSlots if it was
// left out.
func WantSlots(p *strict.Problems, field string, slots int) int {
	if slots < 0 || slots > maxSlots {
		p.Add(field, strconv.Itoa(slots), fmt.Sprintf("give 1 to %d, or leave it out", maxSlots))
	}
	if slots == 0 {
		return DefaultSlots
	}
	return slots
}

// CheckLane refuses, with a target.ErrUnsupported, a lane other than those that every
// driver has.
func CheckLane(lane string) error {
	if lane != target.LanePooled && lane != target.LaneFresh {
		return fmt.Errorf("lane %q: %w; use %s or %s", lane, target.ErrUnsupported, target.LanePooled, target.LaneFresh)
	}
	return nil
}

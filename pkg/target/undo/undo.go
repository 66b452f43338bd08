// Package undo is what drivers do alike so that a fault is undone whatever happens to
// firedrill: its token, by which a fresh process finds what it left; the timer by which
// its target's machine undoes it by itself; the claim of the conductor who acts; the
// marker of the one fault that is outstanding; and the journal of what undoing did. How
// a fault is undone is the driver's own.
package undo

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/pkg/target"
)

// Token marks what a drill's step leaves behind. It is derived from the step, so that a
// fresh process finds it, and can be part of a file's name, an argument of a script and
// a word of a pattern.
func Token(drill, step string) string {
	h := sha256.Sum256([]byte(drill + "\n" + step))
	return "firedrill-" + hex.EncodeToString(h[:8])
}

var tokenForm = lazy.Regexp(`^firedrill-[0-9a-f]{16}$`)

// IsToken reports whether Token may have made the text. What comes from an undo record
// is asked before it is used.
func IsToken(text string) bool { return tokenForm().MatchString(text) }

// UnknownKind is the error for an undo record of a kind that the driver does not know.
// It is a target.ErrUnsupported.
func UnknownKind(kind string) error {
	return fmt.Errorf("kind %q: %w; was it written by a newer firedrill?", kind, target.ErrUnsupported)
}

// deadManGrace is how long after a fault's hold the target acts by itself at least, and
// deadManDefault for how long it waits without a hold or a limit.
const (
	deadManGrace   = time.Second
	deadManDefault = 15 * time.Minute
)

// DeadMan is how long after its effect the target must undo an operation by itself: a
// little longer than it is to hold, and no longer than its limit.
func DeadMan(op target.Operation) time.Duration {
	switch d := op.Hold + max(deadManGrace, op.Hold/10); {
	case op.Hold > 0 && op.Limit > 0:
		return min(d, op.Limit)
	case op.Hold > 0:
		return d
	case op.Limit > 0:
		return op.Limit
	}
	return deadManDefault
}

// Journal collects what was done, for people, in order. Its zero value is ready. It is
// not safe for concurrent use.
type Journal struct{ lines []string }

// Add notes a sentence.
func (j *Journal) Add(format string, args ...any) {
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

// Details are the sentences as an operation's details: step.01, step.02 and so on. There
// is one at least.
func (j *Journal) Details() map[string]string {
	if len(j.lines) == 0 {
		return map[string]string{"step.01": "nothing was to be done"}
	}
	out := map[string]string{}
	for i, l := range j.lines {
		out[fmt.Sprintf("step.%02d", i+1)] = l
	}
	return out
}

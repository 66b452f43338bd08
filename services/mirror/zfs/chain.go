package zfs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Chain is how a target's snapshots follow from its source's.
type Chain struct {
	// Common is the newest snapshot that both have, as the source has it; nil if
	// there is none.
	Common *Snapshot
	// Send are the source's snapshots after Common, oldest first: each is sent as
	// the increment from the one before it, and the first whole if Common is nil.
	Send []Snapshot
	// Ahead are the target's snapshots after Common, oldest first. The source does
	// not have them, or not any more: nothing can be received on top of them.
	Ahead []Snapshot
}

// Compare works a chain out from the snapshots of a source and of its target, each
// oldest first. Snapshots that are there for a reading only do not count on the
// source. Common.Dataset is the source's.
func Compare(source, target []Snapshot) Chain {
	there := make(map[uint64]int, len(target))
	for i, s := range target {
		there[s.GUID] = i
	}
	c := Chain{Send: sendable(source)}
	c.Ahead = slices.Clone(target)
	for i, s := range slices.Backward(c.Send) {
		if at, ok := there[s.GUID]; ok {
			c.Common, c.Send, c.Ahead = &s, c.Send[i+1:], c.Ahead[at+1:]
			break
		}
	}
	return c
}

// sendable leaves out what goes away when its reading ends.
func sendable(source []Snapshot) []Snapshot {
	return slices.DeleteFunc(slices.Clone(source), func(s Snapshot) bool { return strings.HasPrefix(s.Name, readingPrefix) })
}

// ChainError says why a target cannot be brought on from its source.
type ChainError struct {
	Source, Target string
	// Common is the newest snapshot that both have, or nil. Ahead are the target's
	// after it.
	Common *Snapshot
	Ahead  []Snapshot
	// Reason is ErrDiverged or ErrNoCommon.
	Reason error
}

// Error names the snapshots and says what to do.
func (e *ChainError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "replicate %s to %s: %v", e.Source, e.Target, e.Reason)
	if len(e.Ahead) > 0 {
		fmt.Fprintf(&s, ": %s", e.Ahead[0])
		if n := len(e.Ahead) - 1; n > 0 {
			fmt.Fprintf(&s, ", and %d after it", n)
		}
		s.WriteString(", which the source does not have, or not any more")
	}
	switch {
	case errors.Is(e.Reason, ErrNoCommon):
		s.WriteString("; choose a target that does not exist yet, or destroy this one yourself")
	case e.Common != nil:
		fmt.Fprintf(&s, "; the newest that both have is %s, made %v: allow a rollback to it, which destroys what the target has after it",
			e.Common.Name, e.Common.Created)
	}
	return s.String()
}

// Unwrap returns the reason.
func (e *ChainError) Unwrap() error { return e.Reason }

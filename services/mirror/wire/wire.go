// Package wire is the binary form of what the mirror remembers and of what it
// sends between processes: entries, what the last run left, and actions. Names are
// raw bytes, whatever they hold.
//
// Items that follow one another are written as differences: a key to the key
// before, an entry to that of the other side or to the one before. So a file with
// its path and its hashes takes about 70 bytes in a sequence that is sorted by key.
// A single item is a sequence of one.
//
// Reading trusts nothing: it takes no more memory than what is there asks for, and
// gives an [*Error] for everything else. The form has no checksum; whoever stores
// it adds one.
//
// In the form an extended attribute whose value is empty, and one that is nil, are
// the same, and so are no attributes at all in either way.
package wire

import (
	"errors"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

var (
	// ErrFormat says that bytes are no item, or not all of one.
	ErrFormat = errors.New("it is cut off or damaged")
	// ErrVersion says that an item is in the form of another version of this program.
	ErrVersion = errors.New("it is in a form that this version does not read: use the version that wrote it, or a newer one")
)

// Error says what could not be read.
type Error struct {
	// Item is what was expected: "entry", "past" or "action".
	Item string
	// Problem is the field, and what is wrong with it.
	Problem string
	// Err is ErrFormat or ErrVersion.
	Err error
}

// Error describes the fault.
func (e *Error) Error() string { return fmt.Sprintf("read %s: %s: %v", e.Item, e.Problem, e.Err) }

// Unwrap returns ErrFormat or ErrVersion.
func (e *Error) Unwrap() error { return e.Err }

// version is that of the form, 4 bits. Any change of the form needs another one.
const version = 1

// item is what an item's leading byte says that it is.
type item byte

const (
	itemEntry item = iota + 1
	itemPast
	itemAction
)

func (i item) String() string {
	switch i {
	case itemEntry:
		return "entry"
	case itemPast:
		return "past"
	case itemAction:
		return "action"
	}
	return fmt.Sprintf("item(%d)", byte(i))
}

// follows marks the leading byte of an item that is a difference to those before,
// so that it is not taken for a single one.
const follows = 1 << 7

// lead is an item's leading byte: version, kind of item, follows.
func lead(i item, began bool) byte {
	b := version | byte(i)<<4
	if began {
		b |= follows
	}
	return b
}

// memory is what writer and reader both know of the items before.
type memory struct {
	began  bool
	key    string
	reason string
	// sides are the last entries that each side held.
	sides [2]entry.Entry
}

// before sets b to what an entry of the side is written as a difference to. Of the
// last entry there only that is kept which neighbours have in common.
func (m *memory) before(b *entry.Entry, s plan.Side, path string) {
	*b = m.sides[s]
	b.Path, b.Target, b.Device = path, "", 0
	b.Sum = entry.Sum{Has: b.Sum.Has, PartSize: b.Sum.PartSize}
}

// beside is the same for what the destination holds beside the source: it has all
// in common with it but the inode, and which hashes are known, in which it
// resembles its neighbour.
func (m *memory) beside(b, source *entry.Entry, path string) {
	if source.Path == "" {
		m.before(b, plan.Dest, path)
		return
	}
	last := &m.sides[plan.Dest]
	*b = *source
	b.Change, b.Sum.Has = last.Change, last.Sum.Has
}

// then is the same for what the last run left: what is there now, on that side or
// else on the other.
func then(now, other *entry.Entry, path string) entry.Entry {
	switch {
	case plan.Present(*now):
		return *now
	case plan.Present(*other):
		return *other
	}
	return entry.Entry{Path: path}
}

// pathOf guesses the path from the key. Where names are escaped it is only similar.
func pathOf(key string) string { return strings.TrimSuffix(key, "/") }

// keep remembers what one side holds, if it does.
func (m *memory) keep(s plan.Side, e *entry.Entry) {
	if e.Path != "" {
		m.sides[s] = *e
	}
}

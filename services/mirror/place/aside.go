package place

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// Trash is the name of the directory, right below a place, that holds what was put aside
// there. The name is reserved at every depth, as one mirror's place may lie in another's:
// what has it takes part in nothing.
const Trash = ".firedrill-trash"

// InTrash reports whether a path is that of a trash, or lies in one, and gives the path of
// the trash.
func InTrash(path string) (trash string, is bool) {
	for from := 0; ; {
		i := strings.Index(path[from:], Trash)
		if i < 0 {
			return "", false
		}
		i += from
		from = i + len(Trash)
		if (i == 0 || path[i-1] == '/') && (from == len(path) || path[from] == '/') {
			return path[:from], true
		}
	}
}

// Bin is what one run puts aside, together. It is a directory in the trash.
type Bin struct {
	// Of tells the mirror from others of the place: letters and digits; "" tells nothing.
	Of string
	// Run names the run: letters, digits and dashes.
	Run string
	// At is when it began to delete, in whole seconds.
	At time.Time
}

// binTime is how a bin's name begins, so that names are sorted by time.
const binTime = "20060102T150405Z"

// maxRun is how long the name of a run may be: what is in a bin has longer keys by as much.
const maxRun = 64

// String is the name of the directory.
func (b Bin) String() string {
	name := b.Run
	if b.Of != "" {
		name = b.Of + "." + name
	}
	return b.At.UTC().Format(binTime) + "-" + name
}

// ParseBin reads a name that a Bin has; false for every other.
func ParseBin(name string) (Bin, bool) {
	if len(name) <= len(binTime)+1 || len(name) > len(binTime)+1+maxRun || name[len(binTime)] != '-' {
		return Bin{}, false
	}
	at, err := time.Parse(binTime, name[:len(binTime)])
	of, run, both := strings.Cut(name[len(binTime)+1:], ".")
	if !both {
		of, run = "", of
	}
	b := Bin{Of: of, Run: run, At: at}
	safe := func(r rune) bool { return r == '-' || '0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'z' }
	if err != nil || b.Run == "" || strings.TrimFunc(b.Of+b.Run, safe) != "" || b.String() != name {
		return Bin{}, false
	}
	return b, true
}

// Kept is an entry that was removed and that the place still has.
type Kept struct {
	// Entry is what it was. Of what is no directory its attributes, and whether it is a
	// file at all, may not be known before it is back.
	Entry entry.Entry
	// Bin is what it was put aside in. Where the place itself keeps versions Run is "",
	// and At is when it was removed.
	Bin Bin
}

// KeptOptions say what of all that was put aside is asked for.
type KeptOptions struct {
	// Of is the mirror that counts; "" is all.
	Of string
	// Run is the one run that counts; "" is all.
	Run string
	// Under are the paths that count, with all that lies in them; none is all.
	Under []string
	// Above asks for the directories above those paths, too, but not for what else is in them.
	Above bool
	// Since leaves out what was put aside before, Before, if it is set, what was not.
	Since, Before time.Time
}

// Bin reads the name of a bin; false if that is none, or what is in it is not asked for.
func (o KeptOptions) Bin(name string) (Bin, bool) {
	b, ok := ParseBin(name)
	return b, ok && (o.Of == "" || o.Of == b.Of) && (o.Run == "" || o.Run == b.Run) &&
		!b.At.Before(o.Since) && (o.Before.IsZero() || b.At.Before(o.Before))
}

// Takes reports whether a path is asked for.
func (o KeptOptions) Takes(path string) bool {
	for _, under := range o.Under {
		if path == under || strings.HasPrefix(path, under+"/") {
			return true
		}
	}
	return len(o.Under) == 0
}

// TakesKey is Takes for a key that stands for no path.
func (o KeptOptions) TakesKey(key string) bool {
	for _, under := range o.Under {
		if k, err := entry.EscapePath(under); err == nil && (key == k || strings.HasPrefix(key, k+"/")) {
			return true
		}
	}
	return len(o.Under) == 0
}

// Wants reports whether an entry is asked for.
func (o KeptOptions) Wants(e entry.Entry) bool {
	return o.Takes(e.Path) || o.Above && e.Kind == entry.Dir && o.Reaches(e.Path)
}

// KeptError says why what is kept under a key can be neither told nor brought back: that is
// no entry of a mirror. All else is listed.
type KeptError struct {
	Key string
	Err error
}

// Error quotes the key, so that no control character reaches a terminal.
func (e *KeptError) Error() string {
	return fmt.Sprintf("what is kept of the key %q is no entry of a mirror: %v", e.Key, e.Err)
}

// Unwrap gives the reason.
func (e *KeptError) Unwrap() error { return e.Err }

// Reaches reports whether a directory is asked for, or may hold what is.
func (o KeptOptions) Reaches(dir string) bool {
	for _, under := range o.Under {
		if strings.HasPrefix(under, dir+"/") {
			return true
		}
	}
	return o.Takes(dir)
}

// Keeper is a [Place] that can keep what is removed. A place with [Traits.Versioned] keeps
// it anyway.
type Keeper interface {
	Place
	// PutAside is Remove, but what is removed stays in the trash, with all its attributes:
	// in a file system it is moved, in a bucket the server copies it, and compares. What
	// cannot be kept is not removed, and its error says why. It may be repeated.
	PutAside(ctx context.Context, bin Bin, have []entry.Entry) []error
	// Kept streams what was put aside, sorted by bin and key, a directory only where there is
	// none of its name now. An error does not end the stream unless nothing follows it; one
	// that is a [KeptError] comes with the bin, and is of nothing else that is kept.
	Kept(ctx context.Context, o KeptOptions) iter.Seq2[Kept, error]
	// Free reports, and changes nothing, whether something could be brought back, or, with no
	// Bin, written: the error is [ErrChanged] where something has its name, or hides it or
	// would be hidden. A directory may be there, if one is wanted. Above the entry there may
	// be a file in the place of a directory: whether there is, asking for that tells.
	Free(ctx context.Context, k Kept) error
	// Restore brings one back to where it was, with its attributes, and makes the
	// directories above it where they are missing. The error is [ErrChanged] where
	// something has its name by now, or it is no longer in the trash.
	Restore(ctx context.Context, k Kept) (entry.Entry, error)
	// Prune removes for good what runs of one mirror have put aside that began to delete
	// before a time, and nothing in the trash that no run has put there. It gives how many
	// runs' that was. Of no mirror, "", that is nothing.
	Prune(ctx context.Context, of string, before time.Time) (int, error)
}

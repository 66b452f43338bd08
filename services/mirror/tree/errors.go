package tree

import (
	"errors"
	"fmt"
	"strings"
)

// Reasons for which a tree is not copied.
var (
	// ErrNoSource: the source is missing or is not a directory.
	ErrNoSource = errors.New("there is no source directory")
	// ErrEmptySource: an empty source is far more often a lost mount than a wish.
	ErrEmptySource = errors.New("the source directory is empty")
	// ErrOverlap: one of the two directories contains the other.
	ErrOverlap = errors.New("source and destination overlap")
	// ErrChanging: the source did not keep still long enough to be read.
	ErrChanging = errors.New("the source kept changing")
	// ErrSpecial: the source has devices or pipes, which cannot be copied.
	ErrSpecial = errors.New("the source has special files")
	// ErrNotEmpty: the destination holds what this job did not put there.
	ErrNotEmpty = errors.New("the destination is not empty")
	// ErrDiffers: the copy, read back, is not what was written.
	ErrDiffers = errors.New("the copy differs from its manifest")
)

// PathsError is a reason with the paths that it is about.
type PathsError struct {
	Reason error
	Paths  []string
	// Do says what to do about it.
	Do string
}

// Error names at most five of the paths.
func (e *PathsError) Error() string {
	shown := e.Paths
	more := ""
	if len(shown) > 5 {
		more = fmt.Sprintf(" and %d more", len(shown)-5)
		shown = shown[:5]
	}
	return fmt.Sprintf("%v: %q%s: %s", e.Reason, strings.Join(shown, ", "), more, e.Do)
}

// Unwrap returns the reason.
func (e *PathsError) Unwrap() error { return e.Reason }

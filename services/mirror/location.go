package mirror

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// ErrLocation is returned for a location that cannot be understood.
var ErrLocation = errors.New("not a location")

// SchemeDir is the scheme of a directory on the worker's machine.
const SchemeDir = "dir"

// Location is where something lies: a scheme and what the scheme makes of the rest.
type Location struct {
	Scheme string
	// Path is, for directories, absolute and clean.
	Path string
}

// String writes the location as it is read.
func (l Location) String() string { return l.Scheme + ":" + l.Path }

// ParseLocation reads a location such as "dir:/var/lib/x". Its errors wrap
// ErrLocation.
func ParseLocation(s string) (Location, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return Location{}, fmt.Errorf("%w: %q: write scheme:path, such as dir:/var/lib/x", ErrLocation, s)
	}
	switch scheme {
	case SchemeDir:
		return parseDir(s, rest)
	}
	return Location{}, fmt.Errorf("%w: %q: scheme %q is not known here; use dir", ErrLocation, s, scheme)
}

func parseDir(s, path string) (Location, error) {
	switch {
	case strings.ContainsRune(path, 0):
		return Location{}, fmt.Errorf("%w: %q: a path holds no NUL byte", ErrLocation, s)
	case !filepath.IsAbs(path):
		return Location{}, fmt.Errorf("%w: %q: the path must be absolute", ErrLocation, s)
	case filepath.Clean(path) == "/":
		return Location{}, fmt.Errorf("%w: %q: the root directory is refused; name a directory below it", ErrLocation, s)
	}
	return Location{Scheme: SchemeDir, Path: filepath.Clean(path)}, nil
}

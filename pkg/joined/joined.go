// Package joined takes errors apart that errors.Join put together.
package joined

import (
	"iter"
	"strings"
)

// Leaves are the errors that were joined to one, and to those, in their order; err itself
// where nothing was joined, and none of a nil error. An error that puts several into
// words of its own, as fmt.Errorf does with more than one %w, is a leaf: taken apart, it
// would lose those words.
func Leaves(err error) iter.Seq[error] {
	return func(yield func(error) bool) { walk(err, yield) }
}

// walk is false once yield was.
func walk(err error, yield func(error) bool) bool {
	if err == nil {
		return true
	}
	parts, ok := apart(err)
	if !ok {
		return yield(err)
	}
	for _, part := range parts {
		if !walk(part, yield) {
			return false
		}
	}
	return true
}

// apart gives the errors that were joined; false if err has other words than theirs.
func apart(err error) ([]error, bool) {
	several, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil, false
	}
	parts := several.Unwrap()
	var lines []string
	for _, part := range parts {
		if part != nil {
			lines = append(lines, part.Error())
		}
	}
	return parts, len(lines) > 0 && err.Error() == strings.Join(lines, "\n")
}

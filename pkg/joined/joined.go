// Package joined takes errors apart: those that errors.Join put together, and those that
// name a path.
package joined

import (
	"errors"
	"io/fs"
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

// Reason is an error without the operation and the path that an [fs.PathError] in it names,
// and without what was put around that: for where these are told already.
func Reason(err error) error {
	if told, ok := errors.AsType[*fs.PathError](err); ok {
		return told.Err
	}
	return err
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

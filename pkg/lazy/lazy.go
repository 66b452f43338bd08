// Package lazy makes what is costly to make when it is first needed: a command pays at
// its start for nothing that it does not use.
package lazy

import (
	"regexp"
	"sync"
)

// Regexp gives the compiled form of a pattern, which is compiled by the first call. It
// may be called concurrently. A pattern that does not compile panics there; tests/arrows
// compiles all of them.
func Regexp(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

package event

import (
	"path"
	"strings"
)

// AnyEnd ends a part's ID or a label's value where a survey cannot know the rest: an
// operation's parameters or the moment say it.
const AnyEnd = "*"

// Matches reports whether a glob pattern matches the part: its ID, or a label as
// key=value. Where one ends with AnyEnd, a pattern that could match matches.
func (p Part) Matches(pattern string) bool {
	if matchesOpen(pattern, p.ID) {
		return true
	}
	for k, v := range p.Labels {
		if matchesOpen(pattern, k+"="+v) {
			return true
		}
	}
	return false
}

func matchesOpen(pattern, text string) bool {
	if ok, err := path.Match(pattern, text); err != nil || ok {
		return true // a broken pattern is a problem of its own
	}
	known, open := strings.CutSuffix(text, AnyEnd)
	if !open {
		return false
	}
	fixed := pattern
	if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
		fixed = pattern[:i]
	}
	return strings.HasPrefix(fixed, known) || len(fixed) < len(pattern) && strings.HasPrefix(known, fixed)
}

package event

import (
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// AnyEnd ends a part's ID or a label's value where a survey cannot know the rest: an
// operation's parameters or the moment say it.
const AnyEnd = "*"

// Match looks for what of the part a glob pattern matches: its ID, or a label as
// key=value. In the pattern, * stands for any characters and ? for any one, slashes too:
// parts are named by paths and addresses, of which a guard may leave no depth out. Where
// an ID or a label ends with AnyEnd, a pattern that could match matches, and one that
// cannot be read, which is a problem of its own, matches the ID.
func (p Part) Match(pattern string) (by string, ok bool) {
	if _, err := path.Match(pattern, ""); err != nil {
		return p.ID, true
	}
	signs := signsOf(pattern)
	if matches(signs, p.ID) {
		return p.ID, true
	}
	for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
		if label := k + "=" + p.Labels[k]; matches(signs, label) {
			return label, true
		}
	}
	return "", false
}

// signsOf cuts a pattern into what stands for one character each, and its stars.
func signsOf(pattern string) []string {
	var out []string
	for pattern != "" {
		_, n := utf8.DecodeRuneInString(pattern)
		switch pattern[0] {
		case '[':
			for pattern[n] != ']' {
				if pattern[n] == '\\' {
					n++
				}
				n++
			}
			n++
		case '\\':
			_, escaped := utf8.DecodeRuneInString(pattern[1:])
			n += escaped
		}
		out, pattern = append(out, pattern[:n]), pattern[n:]
	}
	return out
}

// matches follows all the ways at once in which the signs may stand for the text so far.
func matches(signs []string, text string) bool {
	known, open := strings.CutSuffix(text, AnyEnd)
	at := make([]bool, len(signs)+1) // how many signs may be used up
	at[0] = true
	skipStars(signs, at)
	for known != "" {
		_, n := utf8.DecodeRuneInString(known)
		var one string
		one, known = known[:n], known[n:]
		next := make([]bool, len(at))
		for i, sign := range signs {
			switch {
			case !at[i]:
			case sign == "*":
				next[i] = true
			case sign == "?":
				next[i+1] = true // path.Match's leaves slashes out
			default:
				ok, _ := path.Match(sign, one) // the whole pattern can be read
				next[i+1] = next[i+1] || ok
			}
		}
		at = next
		skipStars(signs, at)
	}
	return at[len(signs)] || open && slices.Contains(at, true)
}

// skipStars adds that a star may stand for nothing.
func skipStars(signs []string, at []bool) {
	for i, sign := range signs {
		at[i+1] = at[i+1] || at[i] && sign == "*"
	}
}

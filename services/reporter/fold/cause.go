package fold

import (
	"strings"
	"unicode/utf8"
)

// Ellipsis ends a text that was cut.
const Ellipsis = "…"

// maxCause bounds a cause, in characters.
const maxCause = 80

// ShowCause writes what an error comes down to, for people, in a line of at most some
// 80 characters. The last part of a Go error is its cause, because each caller puts
// what it was doing in front: "doing this: doing that: cause". A cause of a single
// word takes what stands before it along, and a part that was cut off in its middle
// says less than the one before it.
func ShowCause(text string) string {
	parts := strings.Split(strings.Join(strings.Fields(text), " "), ": ")
	end := ""
	if n := len(parts) - 1; n > 0 && strings.HasSuffix(parts[n], Ellipsis) {
		parts, end = parts[:n], " "+Ellipsis
	}
	i := len(parts) - 1
	for i > 0 && !strings.Contains(strings.Join(parts[i:], ": "), " ") {
		i--
	}
	return ShowUnits(CutText(strings.Join(parts[i:], ": "), maxCause) + end)
}

// CutText cuts a text that is longer than most characters after a word.
func CutText(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	cut := string([]rune(text)[:most])
	if i := strings.LastIndexByte(cut, ' '); i > 0 {
		cut = cut[:i]
	}
	return cut + " " + Ellipsis
}

// Package meant finds the name that was probably meant by one that is not known, for
// errors that say how to mend it.
package meant

import (
	"fmt"
	"strings"
)

// One returns the known name that was most likely meant, or "" where that is anybody's
// guess: the same but for case and separators; else the nearest by changed, lacking or
// surplus letters, of which a third of the name and one more may be; else the only one
// that begins with it. Of equally likely ones it is the first.
func One(name string, known []string) string {
	lower, plain := strings.ToLower(name), Plain(name)
	best, least := "", 1+len(lower)/3
	for _, k := range known {
		if Plain(k) == plain {
			return k
		}
		of := strings.ToLower(k)
		if d := distance(lower, of); d <= least && d < len(of) {
			best, least = k, d-1
		}
	}
	if best == "" {
		best = onlyBeginning(lower, known)
	}
	return best
}

// Fix ends the fix of an unknown name: with the one that was probably meant, else with
// the known ones, in their order.
func Fix(name string, known []string) string {
	if one := One(name, known); one != "" {
		return fmt.Sprintf("did you mean %q?", one)
	}
	const most = 30
	switch {
	case len(known) == 0:
		return "there is none"
	case len(known) == 1:
		return "known is only " + known[0]
	case len(known) > most:
		return fmt.Sprintf("known are %s and %d more", strings.Join(known[:most], ", "), len(known)-most)
	}
	return "known are " + strings.Join(known, ", ")
}

// Plain drops what spellings of one name differ in: case and separators.
func Plain(name string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "", ".", "").Replace(name))
}

// onlyBeginning returns the one known name that begins with lower, whatever its case; ""
// if there are several, or none.
func onlyBeginning(lower string, known []string) string {
	only := ""
	for _, k := range known {
		switch {
		case lower == "" || !strings.HasPrefix(strings.ToLower(k), lower):
		case only != "":
			return ""
		default:
			only = k
		}
	}
	return only
}

// distance counts the single-byte edits from a to b; names longer than any real one are
// far from everything.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

package drill

import (
	"fmt"
	"slices"
	"strings"
)

// nearest returns the known name that was most likely meant, or "".
func nearest(name string, known []string) string {
	best, least := "", 1+len(name)/3
	for _, k := range known {
		if strings.EqualFold(flat(k), flat(name)) {
			return k
		}
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d <= least && d < len(k) {
			best, least = k, d-1
		}
	}
	return best
}

// suggest ends a fix: the name that was probably meant, else the known ones.
func suggest(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(known) == 0 {
		return "there is none"
	}
	sorted := slices.Sorted(slices.Values(known))
	const most = 30
	if len(sorted) > most {
		return fmt.Sprintf("known are %s and %d more", strings.Join(sorted[:most], ", "), len(sorted)-most)
	}
	if len(sorted) == 1 {
		return "known is only " + sorted[0]
	}
	return "known are " + strings.Join(sorted, ", ")
}

// flat drops the separators in which spellings of one name differ.
func flat(s string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "").Replace(s)
}

// distance counts the single-character edits from a to b; names longer than any
// real field are far from everything.
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

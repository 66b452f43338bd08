package postgres

import (
	"fmt"
	"strconv"
	"strings"
)

// lsn is a position in the write-ahead log.
type lsn uint64

// parseLSN reads "16/B374D848"; "" is 0.
func parseLSN(s string) (lsn, error) {
	if s == "" {
		return 0, nil
	}
	hi, lo, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("log position %q: want a form such as 16/B374D848", s)
	}
	return lsn(h<<32 | l), nil
}

// String is the form that PostgreSQL uses.
func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint64(l)&0xffffffff) }

// fork is one line of a timeline's history: timeline Parent was left at At.
type fork struct {
	Parent int
	At     lsn
}

// parseHistory reads a timeline history file.
func parseHistory(text string) ([]fork, error) {
	var out []fork
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return nil, fmt.Errorf("timeline history line %q: want a timeline and a position", line)
		}
		tl, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, fmt.Errorf("timeline history line %q: %w", line, err)
		}
		at, err := parseLSN(f[1])
		if err != nil {
			return nil, fmt.Errorf("timeline history: %w", err)
		}
		out = append(out, fork{Parent: tl, At: at})
	}
	return out, nil
}

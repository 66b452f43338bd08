package plan

import (
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// alike finds names of one directory that are equal in Unicode's normal form C
// and not equal as bytes. Such names may lie far apart in the order, so that all
// names of a directory which are not ASCII are remembered while it is merged.
type alike struct {
	// sides is how many of the sides take part: in one-way runs the source only,
	// since what the destination holds of another spelling is about to be deleted.
	sides int
	dirs  []alikeDir
}

type alikeDir struct {
	dir string
	// names are keys by their normal form; nil until the first that is not ASCII.
	names map[string]string
}

// lookAlike reports the key at hand if a name like it was seen before.
func (m *merger) lookAlike(f *found) error {
	if !Present(f.source) && (m.alike.sides == 1 || !Present(f.dest)) {
		return nil
	}
	twin := m.alike.twin(f.key)
	if twin == "" {
		return nil
	}
	a := f.because(Conflict, Dest, ConflictUnicode)
	a.Twin = twin
	return m.emit(a)
}

// twin remembers the key, and gives one seen before that looks like it, or "".
func (l *alike) twin(key string) string {
	body := strings.TrimSuffix(key, "/")
	dir := body[:strings.LastIndexByte(body, '/')+1]
	for n := len(l.dirs); n > 0 && !within(dir, l.dirs[n-1].dir); n-- {
		l.dirs = l.dirs[:n-1]
	}
	if ascii(body[len(dir):]) {
		return ""
	}
	if n := len(l.dirs); n == 0 || l.dirs[n-1].dir != dir {
		l.dirs = append(l.dirs, alikeDir{dir: dir, names: map[string]string{}})
	}
	names := l.dirs[len(l.dirs)-1].names
	form := entry.Fold(body[len(dir):])
	if seen, ok := names[form]; ok && strings.TrimSuffix(seen, "/") != body {
		return seen
	}
	names[form] = key
	return ""
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

package filter

import (
	"encoding/binary"
	"slices"
	"unicode"
)

// Placed is a filter with where the paths that it is asked about begin.
type Placed struct {
	*Filter
	// Dir is the directory, in what the filter is for, that paths are relative to; "" is its
	// root.
	Dir string
}

// Samples gives paths that stand for all paths: any other one is to each pattern of the
// filters, as a file and as a directory, what one of these is. The shortest come first. all is
// false where that would take more than most, or where names that are no UTF-8 would have to
// be among them.
func Samples(most int, filters ...Placed) (paths []string, all bool) {
	s := sampling{seen: map[string]bool{}}
	var root sample
	for _, f := range filters {
		if f.Filter == nil {
			continue
		}
		for i := range f.rules {
			p := &f.rules[i].pattern
			set, _ := p.run(f.Dir, f.Dir != "")
			s.patterns, root.sets = append(s.patterns, p), append(root.sets, set)
		}
	}
	var runes []rune
	runes, all = alphabet(s.patterns)
	s.add(root)
	for n := 0; n < len(s.found); n++ {
		if n == most {
			return paths, false
		}
		at := s.found[n]
		if at.ends() {
			paths = append(paths, at.path)
		}
		for _, r := range runes {
			if r != '/' || at.ends() {
				s.add(s.after(at, r))
			}
		}
	}
	return paths, all
}

// sampling looks for everything that paths can be to patterns.
type sampling struct {
	patterns []*pattern
	found    []sample
	seen     map[string]bool
}

// sample is what a path, or the beginning of one, is to the patterns.
type sample struct {
	path string
	sets []states
	// name is how long its last name is, as far as that matters: "", "." and ".." are none.
	name int
}

const plainName = 3

// ends reports whether a path may end there.
func (s sample) ends() bool { return s.name == plainName }

func (s *sampling) after(at sample, r rune) sample {
	next := sample{path: at.path + string(r), sets: slices.Clone(at.sets), name: plainName}
	switch {
	case r == '/':
		next.name = 0
	case r == '.' && at.name < plainName:
		next.name = at.name + 1 // three dots are a name
	}
	for i, p := range s.patterns {
		p.step(&next.sets[i], r)
	}
	return next
}

func (s *sampling) add(one sample) {
	key := []byte{byte(one.name)}
	for i, p := range s.patterns {
		for _, word := range one.sets[i][:len(p.tokens)/64+1] {
			key = binary.BigEndian.AppendUint64(key, word)
		}
	}
	if !s.seen[string(key)] {
		s.seen[string(key)] = true
		s.found = append(s.found, one)
	}
}

// alphabet has a character for all that the patterns do not tell apart, and the slash; false
// where one of them names a byte that is no character.
func alphabet(patterns []*pattern) (out []rune, all bool) {
	from := []rune{1, '.', '.' + 1, '/', '/' + 1} // where other characters begin
	for _, p := range patterns {
		for _, t := range p.tokens {
			switch t.kind {
			case literal:
				from = append(from, t.r, t.r+1)
			case class:
				for _, s := range t.ranges {
					from = append(from, s.from, s.to+1)
				}
			}
		}
	}
	slices.Sort(from)
	from = slices.Compact(from)
	for i, r := range from {
		end := notUTF8
		if i+1 < len(from) {
			end = from[i+1]
		}
		if 0 < r && r < notUTF8 {
			out = append(out, legible(r, end))
		}
	}
	slices.SortStableFunc(out, func(a, b rune) int { return odd(a) - odd(b) })
	return out, from[len(from)-1] <= notUTF8
}

// odd is 0 for what names are mostly made of: of two samples that are the same to all patterns
// people are to read that.
func odd(r rune) int {
	if unicode.IsLetter(r) || unicode.IsDigit(r) {
		return 0
	}
	return 1
}

// legible is a character from r up to, and without, end, which people can read if there is one.
func legible(r, end rune) rune {
	for _, c := range "xa0XA-_é" {
		if r <= c && c < end {
			return c
		}
	}
	return r
}

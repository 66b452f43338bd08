package filter

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"
)

// A pattern is matched by simulating its automaton, one state a token: time is
// linear in the path whatever the pattern, where backtracking over several
// stars would not be.
type pattern struct {
	tokens   []token
	anchored bool
	// rest is the first state from which every later token may match nothing
	// and the first of them is "**": from there on all paths are accepted.
	rest int
}

type tokenKind uint8

const (
	literal  tokenKind = iota // r
	anyOne                    // one character but '/'
	class                     // one character of a set, never '/'
	star                      // any run without '/'
	starStar                  // any run
)

type token struct {
	kind   tokenKind
	r      rune
	negate bool
	ranges []span
}

type span struct{ from, to rune }

// maxTokens is how many states the simulation's fixed sets have room for.
const maxTokens = 1023

// notUTF8 lifts the bytes of names that are no UTF-8 out of the runes' range, so
// that such a byte matches itself and nothing else.
const notUTF8 rune = utf8.MaxRune + 1

// next splits the first character off s.
func next(s string) (rune, string) {
	r, size := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && size == 1 {
		return notUTF8 + rune(s[0]), s[1:]
	}
	return r, s[size:]
}

func compile(text string) (pattern, *RuleError) {
	bad := func(fix, problem string, args ...any) (pattern, *RuleError) {
		return pattern{}, &RuleError{Field: "pattern", Problem: fmt.Sprintf(problem, args...), Fix: fix}
	}
	var p pattern
	body, anchored := strings.CutPrefix(text, "/")
	p.anchored = anchored
	switch {
	case text == "":
		return bad("write one, such as *.tmp or /cache/", "there is none")
	case body == "":
		return bad("write /** for everything", "%q matches no path", text)
	case strings.HasPrefix(body, "/"), strings.Contains(body, "//"):
		return bad("write single slashes", "no path holds two slashes in a row")
	}
	for s := body; s != ""; {
		t, rest, fault := nextToken(s)
		if fault != nil {
			return pattern{}, fault
		}
		if n := len(p.tokens); t.kind != starStar || n == 0 || p.tokens[n-1].kind != starStar {
			p.tokens = append(p.tokens, t)
		}
		s = rest
	}
	if last := p.tokens[len(p.tokens)-1]; last.kind == literal && last.r == '/' {
		p.tokens = append(p.tokens, token{kind: starStar})
	}
	if dots := p.dots(); dots != "" {
		return bad("write the path as it is below the mirror's root", "no path holds the name %q", dots)
	}
	if len(p.tokens) > maxTokens {
		return bad("write a shorter one", "it has %d characters, and at most %d can be matched", len(p.tokens), maxTokens)
	}
	p.rest = len(p.tokens)
	for i, t := range slices.Backward(p.tokens) {
		if t.kind == starStar {
			p.rest = i
		} else if t.kind != star {
			break
		}
	}
	return p, nil
}

// dots is a name of the pattern that no path has, "." or ".."; "" if there is none.
func (p *pattern) dots() string {
	name, plain := "", true
	for i := 0; i <= len(p.tokens); i++ {
		switch {
		case i == len(p.tokens) || p.tokens[i].kind == literal && p.tokens[i].r == '/':
			if plain && (name == "." || name == "..") {
				return name
			}
			name, plain = "", true
		case p.tokens[i].kind == literal:
			name += string(p.tokens[i].r)
		default:
			plain = false
		}
	}
	return ""
}

func nextToken(s string) (token, string, *RuleError) {
	fault := func(problem, fix string) (token, string, *RuleError) {
		return token{}, "", &RuleError{Field: "pattern", Problem: problem, Fix: fix}
	}
	switch s[0] {
	case '*':
		if rest, ok := strings.CutPrefix(s, "**"); ok {
			return token{kind: starStar}, rest, nil
		}
		return token{kind: star}, s[1:], nil
	case '?':
		return token{kind: anyOne}, s[1:], nil
	case '[':
		return nextClass(s[1:])
	case ']':
		return fault("] without [", `write \] for the character itself`)
	case '{', '}':
		return fault("alternatives in braces are not known here", `write one rule for each, or \{ for the character itself`)
	case '\\':
		if len(s) == 1 {
			return fault(`\ at the end escapes nothing`, `write \\ for the character itself`)
		}
		s = s[1:]
	}
	r, rest := next(s)
	return token{kind: literal, r: r}, rest, nil
}

// nextClass reads a set after its '['.
func nextClass(s string) (token, string, *RuleError) {
	fault := func(problem, fix string) (token, string, *RuleError) {
		return token{}, "", &RuleError{Field: "pattern", Problem: problem, Fix: fix}
	}
	t := token{kind: class}
	if s != "" && (s[0] == '!' || s[0] == '^') {
		t.negate, s = true, s[1:]
	}
	for first := true; ; first = false {
		switch {
		case s == "":
			return fault("[ is not closed", `close it with ], or write \[ for the character itself`)
		case s[0] == ']' && !first:
			return t, s[1:], nil
		case s[0] == ']':
			return fault("the set is empty", `write \] for a ] in it`)
		}
		from, rest := classChar(s)
		to := from
		if strings.HasPrefix(rest, "-") && len(rest) > 1 && rest[1] != ']' {
			to, rest = classChar(rest[1:])
		}
		switch {
		case from == '/' || to == '/':
			return fault("a slash stands in a set, and no name holds one", "write the slash outside of it")
		case from > to:
			return fault(fmt.Sprintf("the range %q-%q is empty", from, to), "write its lower end first")
		}
		t.ranges = append(t.ranges, span{from, to})
		s = rest
	}
}

func classChar(s string) (rune, string) {
	if s[0] == '\\' && len(s) > 1 {
		s = s[1:]
	}
	return next(s)
}

func (t *token) takes(r rune) bool {
	switch t.kind {
	case literal:
		return r == t.r
	case starStar:
		return true
	case class:
		in := slices.ContainsFunc(t.ranges, func(s span) bool { return s.from <= r && r <= s.to })
		return r != '/' && in != t.negate
	default: // anyOne, star
		return r != '/'
	}
}

// states is a set of the automaton's states; state len(tokens) accepts.
type states [maxTokens/64 + 1]uint64

// add puts state i into the set, and with it those that follow it when runs
// match nothing.
func (p *pattern) add(set *states, i int) {
	for ; ; i++ {
		set[i/64] |= 1 << (i % 64)
		if i == len(p.tokens) || p.tokens[i].kind < star {
			return
		}
	}
}

// step goes on to the states reached by one more character. False means that there are none.
func (p *pattern) step(set *states, r rune) (alive bool) {
	var after states
	for w := range len(p.tokens)/64 + 1 {
		for b := set[w]; b != 0; b &= b - 1 {
			i := w*64 + bits.TrailingZeros64(b)
			if i == len(p.tokens) || !p.tokens[i].takes(r) {
				continue
			}
			alive = true
			if p.tokens[i].kind < star {
				i++
			}
			p.add(&after, i)
		}
	}
	if r == '/' && !p.anchored {
		alive = true
		p.add(&after, 0)
	}
	*set = after
	return alive
}

// run consumes s and returns the states reached. False means that there are none.
func (p *pattern) run(s string, dir bool) (set states, alive bool) {
	p.add(&set, 0)
	for s != "" {
		var r rune
		r, s = next(s)
		if alive = p.step(&set, r); !alive && p.anchored {
			return set, false
		}
	}
	if dir {
		alive = p.step(&set, '/')
	}
	return set, alive
}

func (s *states) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

// accepts reports whether the pattern matches the path of what is no directory.
func (p *pattern) accepts(path string) bool {
	set, _ := p.run(path, false)
	return set.has(len(p.tokens))
}

// below reports whether the pattern may match something below the directory, and
// whether it matches the directory with all that lies below it.
func (p *pattern) below(dir string) (some, all bool) {
	set, alive := p.run(dir, true)
	if p.rest == len(p.tokens) {
		return alive, false
	}
	return alive, set.has(p.rest)
}

// Package filter decides by ordered rules, as rclone writes them, which paths
// take part in a mirror.
//
// A rule is a line "+ pattern" (include) or "- pattern" (exclude). The first
// rule whose pattern matches decides; a path that none matches is included.
//
//   - any run of characters within one name
//     **     any run of characters, slashes too
//     ?      one character of a name
//     [a-z]  one character of a set; [!a-z] or [^a-z] one that is not in it
//     \x     the character x itself
//
// A pattern with a leading slash begins at the root; any other may begin at any
// name of the path. A pattern with a trailing slash is about directories, and
// takes all that lies below one with it; any other is about what is not a
// directory, as in rclone.
package filter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// ErrRule is what every *RuleError wraps.
var ErrRule = errors.New("not a filter rule")

// RuleError says which rule cannot be understood, why, and what to write.
type RuleError struct {
	// Line counts from 1.
	Line int
	// Field is the part that is wrong: "sign" or "pattern".
	Field string
	// Value is the line as given.
	Value string
	// Problem says what is wrong, Fix what to write instead.
	Problem string
	Fix     string
}

// Error describes the rule's fault.
func (e *RuleError) Error() string {
	return fmt.Sprintf("filter rule %d: %s of %q: %s; %s", e.Line, e.Field, e.Value, e.Problem, e.Fix)
}

// Unwrap returns ErrRule.
func (e *RuleError) Unwrap() error { return ErrRule }

// Filter is an ordered list of rules. Its zero value includes everything. It is
// immutable and safe for concurrent use.
type Filter struct{ rules []rule }

type rule struct {
	include bool
	pattern pattern
}

// Parse reads rules, one a line. Empty lines and lines that begin with # or ;
// are left out. Its errors are *RuleError.
func Parse(lines []string) (*Filter, error) {
	f := &Filter{}
	for i, line := range lines {
		text := strings.TrimSpace(line)
		if text == "" || text[0] == '#' || text[0] == ';' {
			continue
		}
		r, fault := parseRule(text)
		if fault != nil {
			fault.Line, fault.Value = i+1, line
			return nil, fault
		}
		f.rules = append(f.rules, r)
	}
	return f, nil
}

func parseRule(text string) (rule, *RuleError) {
	if len(text) < 2 || text[1] != ' ' || (text[0] != '+' && text[0] != '-') {
		return rule{}, &RuleError{Field: "sign", Problem: "a rule begins with a sign and a space",
			Fix: `write "+ pattern" to include or "- pattern" to exclude`}
	}
	p, fault := compile(strings.TrimLeft(text[2:], " "))
	if fault != nil {
		return rule{}, fault
	}
	return rule{include: text[0] == '+', pattern: p}, nil
}

// Match reports whether the entry at path takes part. The path is raw, relative
// and without a slash at either end; the root itself, "", always takes part.
//
// For a directory, false means that nothing below it takes part either, so that
// a walk may pass it by. A directory in which something might take part is
// itself included.
func (f *Filter) Match(path string, kind entry.Kind) bool {
	if f == nil || path == "" {
		return true
	}
	for i := range f.rules {
		r := &f.rules[i]
		if kind != entry.Dir {
			if r.pattern.accepts(path) {
				return r.include
			}
			continue
		}
		below, all := r.pattern.below(path)
		switch {
		case r.include && below:
			return true
		case !r.include && all:
			return false
		}
	}
	return true
}

// Below is the rule that leaves out a directory with all that lies in it.
func Below(path string) string {
	var b strings.Builder
	b.WriteString("- /")
	for i := range len(path) {
		if strings.IndexByte(`*?[]{}\`, path[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(path[i])
	}
	return b.String() + "/**"
}

package drill

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/firedrill/firedrill/pkg/meant"
)

// MaxProblems is how many problems one answer lists at most. The rest is only
// counted, so that an answer to a bad request stays small.
const MaxProblems = 100

// maxValue is how much of a refused value is quoted, in bytes.
const maxValue = 60

// Problem is one mistake in a drill or a request: where it stands, what it is
// and what to do about it. It never holds a secret. In JSON it is part of the
// answer to a rejected request.
type Problem struct {
	// Line and Column count from 1, columns in characters. Both are 0 where no
	// position is known, as when a drill was checked without its text.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Field is a path such as "spec.phases[0].faults[1].fault". It is empty when
	// the document as a whole is meant.
	Field string `json:"field,omitempty"`
	// Value is what was found, shortened; empty when there is nothing to show or
	// it could be a secret.
	Value string `json:"value,omitempty"`
	// Fix says in a sentence what is wrong and what to write instead.
	Fix string `json:"fix"`
}

// Error is the problem on one line.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d: ", p.Line, p.Column)
	}
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	if p.Value != "" {
		fmt.Fprintf(&b, "%q: ", p.Value)
	}
	return b.String() + p.Fix
}

// Problems are all that is wrong with a drill or a request, sorted by position.
// Parse and Read return it as a pointer; it encodes to JSON as a list.
type Problems []Problem

// Error is one line for each problem, after a line that counts them.
func (p *Problems) Error() string {
	if len(*p) == 1 {
		return "it has a problem:\n  " + (*p)[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "it has %d problems:", len(*p))
	for i := range *p {
		b.WriteString("\n  " + (*p)[i].Error())
	}
	return b.String()
}

// AsProblems returns the problems that err carries. Another error becomes one
// problem without a position; nil gives none.
func AsProblems(err error) Problems {
	var ps *Problems
	var p *Problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ps):
		return *ps
	case errors.As(err, &p):
		return Problems{*p}
	}
	return Problems{{Fix: err.Error()}}
}

// position is a place in the text; both count from 1.
type position struct{ line, column int }

// findings collects problems. The first problem of a field is kept: what
// follows from it would only distract.
type findings struct {
	list []Problem
	// places maps each path of the document to where its value stands.
	places map[string]position
	more   int
	// decoded is true once the document was read into its Go type, however many
	// of its fields are wrong.
	decoded bool
	// kind is what the document says that it is.
	kind string
}

// add notes a problem of the value at path.
func (f *findings) add(path, value, fix string) {
	f.addAt(f.where(path), path, value, fix)
}

// addf is add with a formatted fix.
func (f *findings) addf(path, value, fix string, args ...any) {
	f.add(path, value, fmt.Sprintf(fix, args...))
}

func (f *findings) addAt(at position, path, value, fix string) {
	if f.covered(path) {
		return
	}
	if len(f.list) >= MaxProblems {
		f.more++
		return
	}
	f.list = append(f.list, Problem{
		Line: at.line, Column: at.column, Field: path, Value: showable(path, value), Fix: fix,
	})
}

// where finds the value at path, or the nearest enclosing one.
func (f *findings) where(path string) position {
	for {
		if at, ok := f.places[path]; ok {
			return at
		}
		if path == "" {
			return position{}
		}
		path = parentOf(path)
	}
}

// given reports whether the document has a value at path.
func (f *findings) given(path string) bool {
	_, ok := f.places[path]
	return ok
}

// covered reports whether path, or something that encloses it, is known to be wrong.
func (f *findings) covered(path string) bool {
	for i := range f.list {
		if within(path, f.list[i].Field) && f.list[i].Field != "" {
			return true
		}
	}
	return false
}

// below reports whether anything at or under path is known to be wrong.
func (f *findings) below(path string) bool {
	for i := range f.list {
		if within(f.list[i].Field, path) {
			return true
		}
	}
	return false
}

// unnamed reports whether a name of the list at path may have been lost to a
// mistake, so that what refers to it cannot be judged.
func (f *findings) unnamed(path string) bool {
	for i := range f.list {
		rest, ok := strings.CutPrefix(f.list[i].Field, path)
		if ok && (!strings.Contains(rest, ".") || strings.HasSuffix(rest, "].name")) {
			return true
		}
	}
	return false
}

// err returns the problems sorted by position, or nil.
func (f *findings) err() error {
	if len(f.list) == 0 {
		return nil
	}
	out := Problems(f.list)
	slices.SortStableFunc(out, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if f.more > 0 {
		last := out[len(out)-1]
		out = append(out, Problem{Line: last.Line, Column: last.Column,
			Fix: fmt.Sprintf("%d more problems are not listed: mend these first", f.more)})
	}
	return &out
}

// within reports whether path is outer or lies in it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
}

// parentOf cuts the last step off a path.
func parentOf(path string) string {
	i := len(path) - 1
	if i >= 0 && path[i] == ']' {
		// A quoted key may hold any character, so its opening bracket is looked
		// for with the quote.
		if strings.HasSuffix(path, `"]`) {
			return path[:max(strings.LastIndex(path, `["`), 0)]
		}
		return path[:max(strings.LastIndexByte(path, '['), 0)]
	}
	return path[:max(strings.LastIndexByte(path, '.'), 0)]
}

// showable shortens a value for a message and withholds what may be a secret.
func showable(path, value string) string {
	if secretPath(path) || holdsSecret(value) {
		return ""
	}
	return clip(value, maxValue)
}

// clip shortens s to n bytes at a character's border.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// suggest ends the fix of an unknown name, whatever order the known ones come in.
func suggest(name string, known []string) string {
	return meant.Fix(name, slices.Sorted(slices.Values(known)))
}

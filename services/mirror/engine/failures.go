package engine

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Cause is why some actions failed, all alike.
type Cause struct {
	Op plan.Op
	// Why is the failure without the entry's name, for "it" stands where that is needed.
	Why string
	// Count is how many there are, Keys are the first of them.
	Count int64
	Keys  []string
}

// String names what failed, the first of it, and why.
func (c *Cause) String() string {
	names := make([]string, len(c.Keys))
	for i, key := range c.Keys {
		names[i] = entry.Quote(key)
	}
	more := ""
	if n := c.Count - int64(len(c.Keys)); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%s %s%s: %s", c.Op, strings.Join(names, ", "), more, c.Why)
}

const (
	// keepCauses is how many causes a report tells apart: with more, each has few failures.
	keepCauses = 100
	// keepKeys is how many names each cause has.
	keepKeys = 5
)

// Fail notes that an action failed, and why.
func (r *Report) Fail(key string, op plan.Op, err error) {
	f := Failure{key, op, once(key, err)}
	r.Failed++
	if len(r.Failures) < keepFirst {
		r.Failures = append(r.Failures, f)
	}
	why := f.Err.Error()
	for i := range r.Causes {
		if c := &r.Causes[i]; c.Op == op && c.Why == why {
			c.Count++
			if len(c.Keys) < keepKeys {
				c.Keys = append(c.Keys, key)
			}
			return
		}
	}
	if len(r.Causes) < keepCauses {
		r.Causes = append(r.Causes, Cause{Op: op, Why: why, Count: 1, Keys: []string{key}})
	}
}

// once is an error in words that leave out what whoever tells of it has said before: what
// was to be done, and with what.
func once(key string, err error) error { return &failure{reason(key, err), err} }

type failure struct {
	why string
	error
}

// Error is the reason.
func (f *failure) Error() string { return f.why }

// Unwrap gives the error with all its words.
func (f *failure) Unwrap() error { return f.error }

// openings are how places begin to say what they could not do, before the entry's name.
var openings = []string{
	"cannot write ", "cannot make the directory ", "cannot set the attributes of ", "cannot remove ",
	"make the directory ", "set the attributes of ", "set the metadata of ", "finish the parts of ", "finish ", "put ", "remove ", "delete ",
}

// reason is an error of an action without its name, so that equal ones are equal.
func reason(key string, err error) string {
	text := err.Error()
	for _, name := range []string{strconv.Quote(key), strconv.Quote(strings.TrimSuffix(key, "/")), entry.Quote(key), entry.Quote(strings.TrimSuffix(key, "/"))} {
		if !strings.Contains(text, name) {
			continue
		}
		for _, what := range openings {
			text = strings.ReplaceAll(text, what+name+": ", "")
			text = strings.ReplaceAll(text, what+name+" ", "")
		}
		text = strings.ReplaceAll(text, name, "it")
	}
	// AWS names the object's resource, which ends with its key.
	return strings.ReplaceAll(text, "/"+key+`"`, `/…"`)
}

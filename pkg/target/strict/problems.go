package strict

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/firedrill/firedrill/pkg/control"
	"github.com/firedrill/firedrill/pkg/target"
)

// Problems collects the mistakes in a configuration; errors.Join of it is nil when
// there are none. It is not safe for concurrent use.
type Problems []error

// Add adds a mistake: where it is, what stands there, and what to do. The value is
// shown, so it must be no secret.
func (p *Problems) Add(field, value, fix string) {
	*p = append(*p, &target.FieldError{Field: field, Value: value, Fix: fix})
}

// Gather calls the looks at once, and gives what each of them found, in their order. It
// returns when all have.
func Gather(looks ...func(*Problems)) Problems {
	found := make([]Problems, len(looks))
	var wg sync.WaitGroup
	for i, look := range looks {
		wg.Go(func() { look(&found[i]) })
	}
	wg.Wait()
	return slices.Concat(found...)
}

// Scrubbed joins what was found; nil when that is nothing. Each problem is scrubbed by
// itself, so that it keeps its field; scrub gives nil for nil.
func (p Problems) Scrubbed(scrub func(error) error) error {
	out := make([]error, len(p))
	for i, err := range p {
		out[i] = scrub(err)
	}
	return errors.Join(out...)
}

// Need wants a value; what says what it is.
func (p *Problems) Need(field, value, what string) {
	if value == "" {
		p.Add(field, "", "missing: "+what)
	}
}

// OneOf wants one of the allowed values.
func (p *Problems) OneOf(field, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.Add(field, value, "use "+strings.Join(allowed, ", "))
	}
}

// Port wants a port.
func (p *Problems) Port(field string, port uint16) {
	if port == 0 {
		p.Add(field, "", "missing: give the port, 1 to 65535")
	}
}

// Secret wants a reference that points at one place at most.
func (p *Problems) Secret(field string, r target.SecretRef) {
	if r.Env != "" && r.File != "" {
		p.Add(field, "", "set either env or file, not both")
	}
}

// Place wants a way to a machine.
func (p *Problems) Place(field string, c control.Config) {
	if e, ok := errors.AsType[*control.ConfigError](c.Validate()); ok {
		p.Add(field+"."+e.Field, e.Value, e.Fix)
	}
}

// Absolute wants the absolute path of a directory or file other than /.
func (p *Problems) Absolute(field, path string) {
	switch {
	case path == "":
		p.Add(field, "", "missing: give an absolute path")
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/":
		p.Add(field, path, "give an absolute path without . or .. and other than /")
	}
}

// Within reports whether a clean path is dir or lies below it.
func Within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

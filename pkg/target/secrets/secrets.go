// Package secrets reads the secrets that a driver's configuration refers to, and
// hides them in what the driver says.
package secrets

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/firedrill/firedrill/pkg/target"
)

// Shortest is the shortest secret that is taken, in bytes. A shorter one, such as
// "a", stands everywhere: hidden wherever it stands, no text could be read any more,
// and left where it might be a word, it would be given away where it is not.
const Shortest = 4

// Set is what a target knows of secrets. Resolve is called while the target is
// opened, from one goroutine; after that a Set is safe for concurrent use. The zero
// value is ready.
type Set struct{ known []string }

// Resolve reads the secret and remembers it; field is where the reference stands.
// No secret is no error. The error is the reference's, or a *target.FieldError for
// a secret that is too short.
func (s *Set) Resolve(field string, r target.SecretRef) (string, error) {
	v, err := r.Resolve()
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	switch {
	case v == "":
	case len(v) < Shortest:
		return "", &target.FieldError{Field: field, Fix: fmt.Sprintf(
			"the secret has fewer than %d characters, which cannot be hidden in texts without garbling them: choose a longer one", Shortest)}
	default:
		s.known = append(s.known, v)
		// Of a secret that holds another one the rest would be left to read.
		slices.SortFunc(s.known, func(a, b string) int { return len(b) - len(a) })
	}
	return v, nil
}

// Text is the text without the secrets.
func (s *Set) Text(text string) string {
	for _, secret := range s.known {
		text = strings.ReplaceAll(text, secret, "[secret]")
	}
	return text
}

// Error is err without the secrets in its text; errors.Is and errors.As still find
// its causes. One without a secret is returned as it is.
func (s *Set) Error(err error) error {
	if err == nil {
		return nil
	}
	if clean := s.Text(err.Error()); clean != err.Error() {
		return &scrubbed{text: clean, err: err}
	}
	return err
}

// scrubbed is an error whose text had secrets in it.
type scrubbed struct {
	text string
	err  error
}

func (e *scrubbed) Error() string { return e.text }

// Is and As look through to the cause without giving its text away.
func (e *scrubbed) Is(t error) bool { return errors.Is(e.err, t) }
func (e *scrubbed) As(t any) bool   { return errors.As(e.err, t) }

package secrets_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/target"
	"github.com/firedrill/firedrill/pkg/target/secrets"
)

func resolve(t *testing.T, s *secrets.Set, value string) error {
	t.Helper()
	t.Setenv("FIREDRILL_TEST_SECRET", value)
	got, err := s.Resolve("key", target.SecretRef{Env: "FIREDRILL_TEST_SECRET"})
	if err == nil && got != value {
		t.Errorf("%q is read as %q", value, got)
	}
	return err
}

func TestSecretsAreHidden(t *testing.T) {
	var s secrets.Set
	for _, value := range []string{"hunter", "hunter2000", ""} {
		if err := resolve(t, &s, value); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Text("hunter2000 and hunter"); got != "[secret] and [secret]" {
		t.Errorf("a secret within another gives %q", got)
	}
	cause := &target.FieldError{Field: "f", Fix: "not hunter2000"}
	err := s.Error(fmt.Errorf("%w, %w", cause, context.Canceled))
	if strings.Contains(err.Error(), "hunter") || !errors.Is(err, context.Canceled) || !errors.As(err, new(*target.FieldError)) {
		t.Errorf("%v", err)
	}
	if clean := errors.New("clean"); s.Error(clean) != clean || s.Error(nil) != nil {
		t.Error("an error without a secret was changed")
	}
}

func TestShortSecretsAreRefused(t *testing.T) {
	var s secrets.Set
	err := resolve(t, &s, "abc")
	if e, ok := errors.AsType[*target.FieldError](err); !ok || e.Field != "key" || e.Value != "" {
		t.Errorf("%v", err)
	}
	if _, err := s.Resolve("key", target.SecretRef{File: "/no/such/file"}); err == nil || !strings.HasPrefix(err.Error(), "key: ") {
		t.Errorf("a missing one: %v", err)
	}
}

package postgres

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/target"
)

// withSecrets opens a target whose client's and admin's passwords are given.
func withSecrets(t *testing.T, client, admin string) (*servers, error) {
	t.Helper()
	t.Setenv("FIREDRILL_TEST_CLIENT", client)
	t.Setenv("FIREDRILL_TEST_ADMIN", admin)
	node := func(name, role, port string) string {
		return `{"name": "` + name + `", "host": "127.0.0.1", "port": ` + port + `, "role": "` + role + `", "dataDir": "/d", "binDir": "/b", "osUser": "postgres", "logFile": "/l"}`
	}
	cfg, err := parseConfig(json.RawMessage(`{"database": "app", "user": "app", "password": {"env": "FIREDRILL_TEST_CLIENT"},
		"admin": {"user": "root", "password": {"env": "FIREDRILL_TEST_ADMIN"}}, "service": {"host": "127.0.0.1", "port": 1},
		"endpoint": {"kind": "relay", "control": "http://127.0.0.1:2"}, "failback": {"evidenceDir": "/e"},
		"nodes": [` + node("a", "primary", "3") + `, ` + node("b", "standby", "4") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	return newServers(cfg, target.Config{Name: "orders"})
}

// TestSecretsThatCannotBeHiddenAreRefused: a password of one character made every
// text unreadable.
func TestSecretsThatCannotBeHiddenAreRefused(t *testing.T) {
	_, err := withSecrets(t, "a", "longer")
	var field *target.FieldError
	if !errors.As(err, &field) || field.Field != "password" || field.Value != "" || !strings.Contains(field.Fix, "fewer than 4 characters") {
		t.Errorf("a secret of one character: %v", err)
	}
	if _, err := withSecrets(t, "", "four"); err != nil {
		t.Errorf("no password, and one of four characters: %v", err)
	}
}

// TestASecretWithinAnotherHidesNothingLess: the longer one is hidden whole.
func TestASecretWithinAnotherHidesNothingLess(t *testing.T) {
	s, err := withSecrets(t, "hunter", "hunter2000")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.scrubText("as root with hunter2000, as app with hunter"); got != "as root with [secret], as app with [secret]" {
		t.Error(got)
	}
}

package targettest

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/firedrill/firedrill/pkg/clock"
	"github.com/firedrill/firedrill/pkg/target"
)

// identity checks that every configuration of the system tells the same name,
// and keeps it for the faults.
func (s suite) identity(t *testing.T) {
	if len(s.Faults) > 0 && len(s.Aliases) == 0 {
		t.Error("no Aliases: give another configuration of the same system")
	}
	s.sameIdentity(t, s.ctx(t))
}

// sameIdentity asks for the identity in every way there is, whatever state the
// system is in, and returns it.
func (s suite) sameIdentity(t *testing.T, ctx context.Context) string {
	t.Helper()
	id := ""
	for _, config := range append([]json.RawMessage{s.Config, s.Config}, s.Aliases...) {
		tg, err := s.Driver.Open(t.Context(), target.Config{Name: "alias", Raw: config, Clock: clock.System()})
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		if tg.Identity == nil {
			t.Fatal("the driver has no Identity: two drills must not run on one system")
		}
		got, err := tg.Identity.Identify(ctx)
		if cerr := tg.Close(); cerr != nil {
			t.Errorf("close: %v", cerr)
		}
		switch {
		case err != nil:
			t.Fatalf("identify: %v", err)
		case got == "":
			t.Fatal("the identity is empty")
		case id != "" && got != id:
			t.Fatalf("one system is called %q and %q", id, got)
		}
		id = got
	}
	s.noSecrets(t, "identity", id)
	return id
}

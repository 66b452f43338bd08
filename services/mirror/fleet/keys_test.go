package fleet_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/fleet"
)

// Whoever starts without a key is told so before a run fails, of which mirror it is and what
// to do; the others run.
func TestAMissingKeyIsToldAtTheStart(t *testing.T) {
	w := newWorld(t,
		drill.Mirror{Name: "vaulted", From: "dir:DIR/src", To: "s3:vault/bucket/out"},
		drill.Mirror{Name: "filed", From: "s3:safe/bucket/out", To: "dir:DIR/other"},
		drill.Mirror{Name: "fine", From: "dir:DIR/src", To: "dir:DIR/dst"})
	file := filepath.Join(w.dir, "no.secret")
	w.inv.Spec.Stores = []drill.Store{
		{Name: "vault", Endpoint: "http://127.0.0.1:1", AccessKey: &drill.SecretSource{Env: "FIREDRILL_TEST_NO_KEY"}, SecretKey: &drill.SecretSource{Env: "FIREDRILL_TEST_KEY"}},
		{Name: "safe", Endpoint: "http://127.0.0.1:1", AccessKey: &drill.SecretSource{Env: "FIREDRILL_TEST_KEY"}, SecretKey: &drill.SecretSource{File: file}},
		{Name: "unused", Endpoint: "http://127.0.0.1:1", AccessKey: &drill.SecretSource{Env: "FIREDRILL_TEST_UNUSED"}, SecretKey: &drill.SecretSource{File: file}},
	}
	t.Setenv("FIREDRILL_TEST_KEY", "hush hush")
	w.tree("src", 1)
	var log lines
	w.start(logged(&log, slog.LevelWarn))
	w.ask("fine", "")
	w.await("fine", 0, fleet.KindFinished)
	text := log.String()
	for _, part := range []string{
		"level=WARN", "mirror=vaulted", "store vault: accessKey.env:", "FIREDRILL_TEST_NO_KEY", "this environment variable is not set: set it where firedrill is started",
		"mirror=filed", "store safe: secretKey.file:", file, "write the key into it",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("no word of %q in:\n%s", part, text)
		}
	}
	if strings.Count(text, "\n") != 2 || strings.Contains(text, "hush") {
		t.Errorf("it says more than that:\n%s", text)
	}
}

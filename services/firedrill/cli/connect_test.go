package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/pkg/keys"
	"github.com/firedrill/firedrill/pkg/run"
)

// TestLoginAndCertificatesAreUsed: both ways to NATS servers take the seed and the
// certificates, from flags and from the environment.
func TestLoginAndCertificatesAreUsed(t *testing.T) {
	dir := t.TempDir()
	if _, err := keys.LoadOrCreate(dir); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.pem")
	for _, command := range []string{"list", "bootstrap"} {
		for flag, env := range map[string]string{
			"--nkey-seed-file": "FIREDRILL_NKEY_SEED_FILE", "--ca-file": "FIREDRILL_CA_FILE",
			"--client-cert-file": "FIREDRILL_CLIENT_CERT_FILE", "--client-key-file": "FIREDRILL_CLIENT_KEY_FILE",
		} {
			t.Run(command+flag, func(t *testing.T) {
				args := []string{"--keyring", filepath.Join(dir, keys.KeyringFile), "--nats-url", "tls://127.0.0.1:1", command}
				refused := func(args ...string) {
					t.Helper()
					if code, _, errs := invoke(t, "", args...); code != run.Crash || !strings.Contains(errs, missing) {
						t.Errorf("exit %d, %q; want %d and a word on %s", code, errs, run.Crash, missing)
					}
				}
				refused(append(args, flag, missing)...)
				t.Setenv(env, missing)
				refused(args...)
			})
		}
	}
}

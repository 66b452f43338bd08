package keys_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/keys"
)

func TestLoadOrCreateIsStableAndPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	first, err := keys.LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := keys.LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first.Keyring, second.Keyring) {
		t.Fatalf("the keyring changed: %v, then %v", first.Keyring, second.Keyring)
	}
	for _, service := range event.Services() {
		info, err := os.Stat(keys.SeedFile(dir, service))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o, want 0600", info.Name(), info.Mode().Perm())
		}
		s, err := second.Signer(service)
		if err != nil {
			t.Fatal(err)
		}
		if !second.Keyring.Allows(service, s.Public()) {
			t.Errorf("the keyring does not allow the %s its own key", service)
		}
		sig, err := s.Sign([]byte("text"))
		if err != nil {
			t.Fatal(err)
		}
		pub, err := nkeys.FromPublicKey(s.Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := pub.Verify([]byte("text"), sig); err != nil {
			t.Errorf("signature of the %s: %v", service, err)
		}
	}
	ring, err := os.ReadFile(filepath.Join(dir, keys.KeyringFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(ring), `"SU`) {
		t.Error("the keyring holds a seed")
	}
}

func TestRotationKeepsOldPublicKeys(t *testing.T) {
	dir := t.TempDir()
	before, err := keys.LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	old, err := before.Signer(event.Observer)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(keys.SeedFile(dir, event.Observer)); err != nil {
		t.Fatal(err)
	}
	after, err := keys.LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := after.Signer(event.Observer)
	if err != nil {
		t.Fatal(err)
	}
	if fresh.Public() == old.Public() {
		t.Fatal("the key was not replaced")
	}
	for _, p := range []string{old.Public(), fresh.Public()} {
		if !after.Keyring.Allows(event.Observer, p) {
			t.Errorf("the keyring lost %s", p)
		}
	}
}

func TestConcurrentCreationAgrees(t *testing.T) {
	dir := t.TempDir()
	const n = 8
	public := make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			set, err := keys.LoadOrCreate(dir)
			if err != nil {
				t.Error(err)
				return
			}
			s, err := set.Signer(event.Injector)
			if err != nil {
				t.Error(err)
				return
			}
			public[i] = s.Public()
		})
	}
	wg.Wait()
	for _, p := range public {
		if p != public[0] {
			t.Fatalf("two processes hold different keys of one service: %v", public)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := keys.LoadOrCreate(dir); err != nil {
		t.Fatal(err)
	}
	path := keys.SeedFile(dir, event.Injector)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Load(path); !errors.Is(err, keys.ErrUnsafe) {
		t.Errorf("a world-readable seed: %v, want ErrUnsafe", err)
	}
	if _, err := keys.Load(filepath.Join(dir, "none.nk")); !errors.Is(err, keys.ErrNoSeed) {
		t.Errorf("no file: %v, want ErrNoSeed", err)
	}
	secret := "SUNOTASEEDBUTSECRET"
	_, err := keys.Parse([]byte(secret))
	if !errors.Is(err, keys.ErrBadSeed) || strings.Contains(err.Error(), secret) {
		t.Errorf("bad seed: %v, want ErrBadSeed without the text", err)
	}
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := account.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Parse(seed); !errors.Is(err, keys.ErrBadSeed) {
		t.Errorf("an account's seed: %v, want ErrBadSeed", err)
	}
}

func TestFromEnv(t *testing.T) {
	dir := t.TempDir()
	set, err := keys.LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	want, err := set.Signer(event.Mirror)
	if err != nil {
		t.Fatal(err)
	}
	path := keys.SeedFile(dir, event.Mirror)
	seed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEYS_TEST_A", string(seed))
	t.Setenv("KEYS_TEST_B_FILE", path)
	for _, name := range []string{"KEYS_TEST_A", "KEYS_TEST_B"} {
		got, err := keys.FromEnv(name)
		if err != nil {
			t.Fatal(err)
		}
		if got.Public() != want.Public() {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if _, err := keys.FromEnv("KEYS_TEST_C"); !errors.Is(err, keys.ErrNoSeed) {
		t.Errorf("nothing set: %v, want ErrNoSeed", err)
	}
	text := strings.TrimSpace(string(seed))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if out := fmt.Sprintf(verb, want); strings.Contains(out, text) {
			t.Errorf("%s prints the seed", verb)
		}
	}
}

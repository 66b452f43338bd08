// Package keys makes, stores and loads the nkeys by which services sign their
// events and log in to NATS. Seeds never leave this package except through
// Signer, which does not show them.
package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/pkg/inherit"
)

// KeyringFile is the name of the file of public keys in a key directory.
const KeyringFile = "keyring.json"

// Errors that callers tell apart.
var (
	// ErrUnsafe means that a seed file may be read by others than its owner.
	ErrUnsafe = errors.New("the seed file is readable by others")
	// ErrNoSeed means that there is no seed for the service.
	ErrNoSeed = errors.New("no signing seed")
	// ErrBadSeed means that the text is no user seed (SU…).
	ErrBadSeed = errors.New("not a user nkey seed (SU…)")
)

// Signer signs with one nkey. It is immutable and safe for concurrent use, and
// it never prints its seed.
type Signer struct {
	public string
	pair   nkeys.KeyPair
}

// New makes a signer with a fresh random key.
func New() (*Signer, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("make an nkey: %w", err)
	}
	return fromPair(pair)
}

// Parse makes a signer of a user seed. The error does not repeat the text.
func Parse(seed []byte) (*Signer, error) {
	pair, err := nkeys.FromSeed([]byte(strings.TrimSpace(string(seed))))
	if err != nil {
		return nil, ErrBadSeed
	}
	return fromPair(pair)
}

func fromPair(pair nkeys.KeyPair) (*Signer, error) {
	public, err := pair.PublicKey()
	if err != nil || !nkeys.IsValidPublicUserKey(public) {
		return nil, ErrBadSeed
	}
	return &Signer{public: public, pair: pair}, nil
}

// Public is the public nkey (U…).
func (s *Signer) Public() string { return s.public }

// Sign returns the raw Ed25519 signature over data.
func (s *Signer) Sign(data []byte) ([]byte, error) { return s.pair.Sign(data) }

// String shows the public key only.
func (s *Signer) String() string { return s.public }

// GoString shows the public key only.
func (s *Signer) GoString() string { return "keys.Signer(" + s.public + ")" }

// SeedFile is where a service's seed lies in a key directory.
func SeedFile(dir, service string) string { return filepath.Join(dir, service+".nk") }

// Load reads a seed file, which nobody but its owner may be able to read.
func Load(path string) (*Signer, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load nkey seed %s: %w", path, ErrNoSeed)
	}
	if err != nil {
		return nil, fmt.Errorf("load nkey seed: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("load nkey seed %s: mode is %04o: %w; run chmod 600 on it", path, info.Mode().Perm(), ErrUnsafe)
	}
	seed, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load nkey seed: %w", err)
	}
	s, err := Parse(seed)
	if err != nil {
		return nil, fmt.Errorf("load nkey seed %s: %w", path, err)
	}
	return s, nil
}

// FromEnv makes a signer of the seed in an environment variable, or of the seed
// in the file that <variable>_FILE names, for services started one by one.
func FromEnv(variable string) (*Signer, error) {
	if seed := os.Getenv(variable); seed != "" {
		s, err := Parse([]byte(seed))
		if err != nil {
			return nil, fmt.Errorf("nkey seed in $%s: %w", variable, err)
		}
		return s, nil
	}
	if path := os.Getenv(variable + "_FILE"); path != "" {
		return Load(path)
	}
	return nil, fmt.Errorf("neither $%s nor $%s_FILE is set: %w", variable, variable, ErrNoSeed)
}

// Set is a key directory: a seed for each service, and everybody's public keys.
type Set struct {
	// Keyring holds the public keys of the file, those of Signers included.
	Keyring event.Keyring
	signers map[string]*Signer
}

// Signer returns a service's signer.
func (s *Set) Signer(service string) (*Signer, error) {
	signer, ok := s.signers[service]
	if !ok {
		return nil, fmt.Errorf("service %q: %w", service, ErrNoSeed)
	}
	return signer, nil
}

// LoadOrCreate opens the key directory, making the directory, the five
// services' seeds (<service>.nk, mode 0600) and keyring.json where they are
// missing. Keys that the keyring holds already stay in it: old events remain
// verifiable after a rotation. Several processes may call it at once.
func LoadOrCreate(dir string) (*Set, error) {
	if err := inherit.MkdirAll(dir, 0o700, nil); err != nil {
		return nil, fmt.Errorf("make key directory: %w", inherit.Explain(dir, err))
	}
	set := &Set{signers: map[string]*Signer{}}
	own := event.Keyring{}
	for _, service := range event.Services() {
		s, err := loadOrCreate(SeedFile(dir, service))
		if err != nil {
			return nil, fmt.Errorf("key of the %s: %w", service, err)
		}
		set.signers[service] = s
		own[service] = []string{s.Public()}
	}
	path := filepath.Join(dir, KeyringFile)
	known, err := ReadKeyring(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	set.Keyring = known.Merge(own)
	if !maps.EqualFunc(known, set.Keyring, slices.Equal) {
		if err := writeKeyring(path, set.Keyring); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// ReadKeyring reads a file of public keys: a JSON object of service name to a
// list of public user nkeys.
func ReadKeyring(path string) (event.Keyring, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read keyring: %w", err)
	}
	var k event.Keyring
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, fmt.Errorf("read keyring %s: want {\"<service>\": [\"U…\"]}: %w", path, err)
	}
	for service, public := range k {
		for _, p := range public {
			if !nkeys.IsValidPublicUserKey(p) {
				return nil, fmt.Errorf("read keyring %s: %s: %q is not a public user nkey (U…)", path, service, p)
			}
		}
	}
	return k, nil
}

func loadOrCreate(path string) (*Signer, error) {
	s, err := Load(path)
	if !errors.Is(err, ErrNoSeed) {
		return s, err
	}
	if s, err = New(); err != nil {
		return nil, err
	}
	seed, err := s.pair.Seed()
	if err != nil {
		return nil, fmt.Errorf("make an nkey: %w", err)
	}
	// Link instead of rename: of two processes that start at once, the first
	// one's seed stays, and the other loads it.
	err = writeWhole(path, append(seed, '\n'), 0o600, os.Link)
	if errors.Is(err, fs.ErrExist) {
		return Load(path)
	}
	if err != nil {
		return nil, fmt.Errorf("store nkey seed: %w", err)
	}
	return s, nil
}

func writeKeyring(path string, k event.Keyring) error {
	raw, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return fmt.Errorf("write keyring: %w", err)
	}
	if err := writeWhole(path, append(raw, '\n'), 0o644, os.Rename); err != nil {
		return fmt.Errorf("write keyring: %w", err)
	}
	return nil
}

// writeWhole writes a file that is either whole or not there, and puts it in
// place with put.
func writeWhole(path string, data []byte, mode fs.FileMode, put func(from, to string) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	inherit.File(tmp, filepath.Dir(path))
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return put(tmp.Name(), path)
}

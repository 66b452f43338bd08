package event

import (
	"slices"
)

// Signer signs events with one service's private key. Implementations must be
// safe for concurrent use.
type Signer interface {
	// Public is the public nkey (a "U…" user key) that verifies the signatures.
	Public() string
	// Sign returns the raw 64-byte Ed25519 signature over data.
	Sign(data []byte) ([]byte, error)
}

// Keyring says which public nkeys may sign for which service. Several keys of
// one service allow rotation and several instances. It is read-only once in
// use, and then safe for concurrent use.
type Keyring map[string][]string

// Allows reports whether the public key may sign for the service.
func (k Keyring) Allows(service, public string) bool {
	return public != "" && slices.Contains(k[service], public)
}

// Merge returns a new keyring with the keys of both.
func (k Keyring) Merge(o Keyring) Keyring {
	out := Keyring{}
	for _, from := range []Keyring{k, o} {
		for service, keys := range from {
			for _, key := range keys {
				if !slices.Contains(out[service], key) {
					out[service] = append(out[service], key)
				}
			}
		}
	}
	return out
}

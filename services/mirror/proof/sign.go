package proof

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/nats-io/nkeys"
)

// ErrSignature means that a signature does not vouch for a root.
var ErrSignature = errors.New("the signature does not vouch for the root")

// Signer signs with one private key. That of the events, event.Signer, is one.
type Signer interface {
	// Public is the public nkey (a "U…" user key) that verifies the signatures.
	Public() string
	// Sign returns the raw 64-byte Ed25519 signature over data.
	Sign(data []byte) ([]byte, error)
}

// Signed is a root with the signature of who vouches for it.
type Signed struct {
	Root Root `json:"root"`
	// Subject says of what and when, in the signer's words, so that the root of
	// one location, or of last year, cannot be shown for another.
	Subject string `json:"subject"`
	// Signer is the public nkey.
	Signer string `json:"signer"`
	// Signature is in base64url without padding, as in events.
	Signature string `json:"signature"`
}

// signedBytes is what is signed. It cannot be taken for an event, which begins
// with a brace.
func (s Signed) signedBytes() ([]byte, error) {
	if !utf8.ValidString(s.Subject) {
		return nil, fmt.Errorf("%w: the subject is no UTF-8", ErrSignature)
	}
	raw, err := json.Marshal(struct {
		Root    Root   `json:"root"`
		Subject string `json:"subject"`
		Signer  string `json:"signer"`
	}{s.Root, s.Subject, s.Signer})
	if err != nil {
		return nil, err
	}
	return append([]byte(format+" root "), raw...), nil
}

// Sign vouches for a root as that of the subject.
func Sign(root Root, subject string, with Signer) (Signed, error) {
	s := Signed{Root: root, Subject: subject, Signer: with.Public()}
	raw, err := s.signedBytes()
	if err != nil {
		return Signed{}, fmt.Errorf("sign the manifest's root: %w", err)
	}
	sig, err := with.Sign(raw)
	if err != nil {
		return Signed{}, fmt.Errorf("sign the manifest's root with %s: %w", s.Signer, err)
	}
	if len(sig) != ed25519.SignatureSize {
		return Signed{}, fmt.Errorf("sign the manifest's root with %s: the signer gave %d bytes, not %d", s.Signer, len(sig), ed25519.SignatureSize)
	}
	s.Signature = base64.RawURLEncoding.EncodeToString(sig)
	return s, nil
}

// Verify reports why the signature does not vouch for root, as that of the
// subject; trusted says which public nkeys may. The error is ErrSignature.
func (s Signed) Verify(root Root, subject string, trusted func(public string) bool) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("verify the manifest's root: %w: %s", ErrSignature, fmt.Sprintf(format, args...))
	}
	switch {
	case s.Root != root:
		return refuse("it is for the root %v, not %v", s.Root.Hash, root.Hash)
	case s.Subject != subject:
		return refuse("it is for %q, not %q", s.Subject, subject)
	case !nkeys.IsValidPublicUserKey(s.Signer) || !trusted(s.Signer):
		return refuse("the key %q is not trusted", s.Signer)
	}
	raw, err := s.signedBytes()
	if err != nil {
		return refuse("%v", err)
	}
	sig, err := base64.RawURLEncoding.Strict().DecodeString(s.Signature)
	if err != nil || len(sig) != ed25519.SignatureSize {
		return refuse("it is not %d bytes in base64url", ed25519.SignatureSize)
	}
	public, err := nkeys.FromPublicKey(s.Signer)
	if err != nil {
		return refuse("the key %q: %v", s.Signer, err)
	}
	if err := public.Verify(raw, sig); err != nil {
		return refuse("it is not the signer's over this root")
	}
	return nil
}

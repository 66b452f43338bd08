package lab

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// verifierRounds is how often a login hashes the password. PostgreSQL's 4096 are there to
// slow down who guesses what people thought up; a lab's passwords are 24 random bytes. Each
// connection of a probe would pay for them, and on few cores the probes' schedule would.
const verifierRounds = 64

// verifier is what PostgreSQL stores of a password, in its own notation.
func verifier(password string) (string, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // which never fails
	salted, err := pbkdf2.Key(sha256.New, password, salt, verifierRounds, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive a password's verifier: %w", err)
	}
	of := func(word string) []byte {
		m := hmac.New(sha256.New, salted)
		_, _ = m.Write([]byte(word)) // which never fails
		return m.Sum(nil)
	}
	stored := sha256.Sum256(of("Client Key"))
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", verifierRounds, text(salt), text(stored[:]), text(of("Server Key"))), nil
}

// Package canary is what drivers' canaries have alike: what a canary holds, so that one
// that is damaged or not itself shows; where it lies, in a system that gives things
// names; what was found of a ledger; and the lanes through which probes write and read
// them. How a system is asked is the driver's own.
package canary

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// ErrDamaged says that a canary is not what was written.
var ErrDamaged = errors.New("it is not what was written")

// sumSize is how many bytes the hash takes that a body ends with.
const sumSize = 2 * sha256.Size

// Body is what a canary holds: which one of which ledger it is, filling, and a hash of
// all that, so that a body of another canary, a mixture of two and a part of one are
// each seen. It has size bytes, or few more. It is text, and compresses well.
func Body(ledger string, seq int64, size int) []byte {
	b := begin(ledger, seq)
	// Each line differs: one that is missing or twice there shows.
	for line := 0; b.Len() < size-sumSize; line++ {
		fmt.Fprintf(b, "%d %d\n", seq, line)
	}
	return end(b)
}

// DenseBody is Body with filling that no compression makes smaller, so that it lies on
// a disk as it is.
func DenseBody(ledger string, seq int64, size int) []byte {
	b := begin(ledger, seq)
	if fill := size - sumSize - b.Len(); fill > 0 {
		noise := make([]byte, fill)
		// It never fails, and always fills.
		_, _ = rand.NewChaCha8(sha256.Sum256(b.Bytes())).Read(noise)
		b.Write(noise)
	}
	return end(b)
}

func begin(ledger string, seq int64) *bytes.Buffer {
	b := new(bytes.Buffer)
	fmt.Fprintf(b, "firedrill canary %s %d\n", ledger, seq)
	return b
}

func end(b *bytes.Buffer) []byte {
	sum := sha256.Sum256(b.Bytes())
	return hex.AppendEncode(b.Bytes(), sum[:])
}

// Read checks what a canary of a ledger holds, filled in either way, and returns its
// number. Every error is an ErrDamaged.
func Read(ledger string, body []byte) (int64, error) {
	at := len(body) - sumSize
	if at < 0 {
		return 0, fmt.Errorf("%d bytes: %w", len(body), ErrDamaged)
	}
	sum := sha256.Sum256(body[:at])
	if hex.EncodeToString(sum[:]) != string(body[at:]) {
		return 0, fmt.Errorf("its hash differs: %w", ErrDamaged)
	}
	first, _, _ := bytes.Cut(body[:at], []byte("\n"))
	number, ok := strings.CutPrefix(string(first), "firedrill canary "+ledger+" ")
	seq, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || seq < 0 {
		return 0, fmt.Errorf("it is another ledger's: %w", ErrDamaged)
	}
	return seq, nil
}

package zfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
)

// canaryName is where a canary lies. Later ones sort before earlier ones, so that the
// first names of a ledger are its latest, and a thousand lie in a directory.
func canaryName(prefix, ledger string, seq int64) string {
	down := fmt.Sprintf("%019d", math.MaxInt64-seq)
	return prefix + "/" + ledger + "/" + down[:16] + "/" + down[16:]
}

// seqOf reads a canary's number from its name in a ledger.
func seqOf(prefix, ledger, name string) (int64, bool) {
	down, ok := strings.CutPrefix(name, prefix+"/"+ledger+"/")
	if !ok || len(down) != 20 || down[16] != '/' {
		return 0, false
	}
	n, err := strconv.ParseInt(down[:16]+down[17:], 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	return math.MaxInt64 - n, true
}

// errDamaged says that a canary is not what was written.
var errDamaged = errors.New("it is not what was written")

// canaryBody is what a canary holds: who it is, filling up to size bytes that no
// compression makes smaller, so that it lies on the disk as it is, and a hash of all
// that, so that another canary, a mixture of two and a part of one are each seen.
func canaryBody(ledger string, seq int64, size int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "firedrill canary %s %d\n", ledger, seq)
	if fill := size - sha256.Size*2 - b.Len(); fill > 0 {
		noise := make([]byte, fill)
		// It never fails, and always fills.
		_, _ = rand.NewChaCha8(sha256.Sum256(b.Bytes())).Read(noise)
		b.Write(noise)
	}
	sum := sha256.Sum256(b.Bytes())
	b.WriteString(hex.EncodeToString(sum[:]))
	return b.Bytes()
}

// readCanary checks a canary's body and returns its number.
func readCanary(ledger string, body []byte) (int64, error) {
	at := len(body) - sha256.Size*2
	if at < 0 {
		return 0, fmt.Errorf("%d bytes: %w", len(body), errDamaged)
	}
	sum := sha256.Sum256(body[:at])
	if hex.EncodeToString(sum[:]) != string(body[at:]) {
		return 0, fmt.Errorf("its hash differs: %w", errDamaged)
	}
	first, _, _ := bytes.Cut(body[:at], []byte("\n"))
	number, ok := strings.CutPrefix(string(first), "firedrill canary "+ledger+" ")
	seq, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("it is another ledger's: %w", errDamaged)
	}
	return seq, nil
}

package pace

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// ErrBytes says that a text is no number of bytes.
var ErrBytes = errors.New("this is no number of bytes")

// ParseBytes reads a number of bytes as people write it: 1500, 500K, 10M (10,000,000) or
// 10Mi (10,485,760). The error is ErrBytes.
func ParseBytes(text string) (int64, error) {
	number := strings.TrimRight(text, "KMGTi")
	unit, ok := map[string]float64{
		"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
	}[text[len(number):]]
	n, err := strconv.ParseFloat(number, 64)
	if n *= unit; !ok || err != nil || !(n >= 0 && n < math.MaxInt64) || n > 0 && n < 1 {
		return 0, ErrBytes
	}
	return int64(n), nil
}

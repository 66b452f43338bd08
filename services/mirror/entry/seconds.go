package entry

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const second = 1_000_000_000

// formatSeconds writes nanoseconds as seconds with nine decimals. Times before
// the epoch have a sign before the whole.
func formatSeconds(ns int64) string {
	sign, abs := "", uint64(ns)
	if ns < 0 {
		sign, abs = "-", -abs
	}
	return fmt.Sprintf("%s%d.%09d", sign, abs/second, abs%second)
}

// parseSeconds reads seconds with any number of decimals; those after the ninth
// are cut.
func parseSeconds(s string) (ns int64, ok bool) {
	s, negative := strings.CutPrefix(s, "-")
	whole, fraction, _ := strings.Cut(s, ".")
	if !digits(whole) || fraction != "" && !digits(fraction) {
		return 0, false
	}
	secs, err := strconv.ParseUint(whole, 10, 64)
	if err != nil || secs > math.MaxInt64/second {
		return 0, false
	}
	nanos, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return 0, false
	}
	switch abs := secs*second + nanos; {
	case negative && abs <= 1<<63:
		return int64(-abs), true
	case !negative && abs <= math.MaxInt64:
		return int64(abs), true
	}
	return 0, false
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

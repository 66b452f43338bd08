package verify

import (
	"errors"
	"strconv"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/pace"
)

// Amount is how much of the contents is read: Bytes of them, or a share of all in
// percent. The zero value is what the time since the last check makes due.
type Amount struct {
	Bytes   int64
	Percent float64
}

// String is the amount as ParseAmount reads it; "" for the zero value.
func (a Amount) String() string {
	switch {
	case a.Percent > 0:
		return strconv.FormatFloat(a.Percent, 'f', -1, 64) + "%"
	case a.Bytes > 0:
		return strconv.FormatInt(a.Bytes, 10)
	}
	return ""
}

// ParseAmount reads an amount such as 5% or 10Gi. The error says what to write.
func ParseAmount(text string) (Amount, error) {
	if share, ok := strings.CutSuffix(text, "%"); ok {
		n, err := strconv.ParseFloat(share, 64)
		if err != nil || !(n > 0 && n <= 100) { // NaN too
			return Amount{}, errors.New("write a share above 0% and up to 100%, such as 5%")
		}
		return Amount{Percent: n}, nil
	}
	n, err := pace.ParseBytes(text)
	if err != nil || n == 0 {
		return Amount{}, errors.New("write a share such as 5%, or bytes such as 500M or 10Gi")
	}
	return Amount{Bytes: n}, nil
}

package job

import (
	"fmt"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/stores"
)

// Keyless notes the buckets of a mirror that are reached without keys, as nobody named any:
// who meant to would else only see what the server refuses to strangers.
func (e Env) Keyless(m drill.Mirror) (notes []string) {
	for _, text := range []string{m.From, m.To} {
		l, err := location.Parse(text)
		if err != nil {
			continue // It was refused.
		}
		if why := stores.Keyless(l, e.Stores); why != "" {
			notes = append(notes, fmt.Sprintf("%s is used without keys, as anybody may: %s", l, why))
		}
	}
	return notes
}

package job

import (
	"errors"
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

// Unresolved finds which of the keys and certificates that a mirror's buckets need this
// process cannot read. The errors are *stores.StoreError or wrap *stores.KeyError.
func (e Env) Unresolved(m drill.Mirror) (out []error) {
	said := map[string]bool{}
	for _, text := range []string{m.From, m.To} {
		l, err := location.Parse(text)
		if err != nil || !l.IsBucket() || said[l.Store] {
			continue
		}
		said[l.Store] = true
		_, err = stores.Config(l, e.Stores, e.OwnKeys)
		_, store := errors.AsType[*stores.StoreError](err)
		if _, key := errors.AsType[*stores.KeyError](err); store || key {
			out = append(out, err)
		}
	}
	return out
}

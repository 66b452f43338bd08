package cli

import (
	"fmt"

	"github.com/firedrill/firedrill/pkg/drill"
)

// movedJSON are places that a mirror of the inventory had, and has no more.
type movedJSON struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// moved gives the places of the run that left what is remembered of a mirror, if the mirror
// has others now; nil if it has these.
func moved(now, then drill.Mirror) *movedJSON {
	if then.From == "" || then.From == now.From && then.To == now.To {
		return nil
	}
	return &movedJSON{then.From, then.To}
}

func (m *movedJSON) words() string {
	return fmt.Sprintf("%s -> %s when it last came to its end: what is told of that run and of checks is of these places", m.From, m.To)
}

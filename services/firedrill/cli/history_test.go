package cli

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/schemas"
)

// exampleHistory is the golden examples as an export, a line an event.
func exampleHistory(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, info := range event.Table() {
		raw, ok := schemas.Example(string(info.Type))
		if !ok {
			t.Fatalf("no example of %s", info.Type)
		}
		if err := json.Compact(&out, raw); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

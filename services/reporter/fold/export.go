package fold

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds a line of an export; NATS messages are smaller.
const maxLine = 64 << 20

// Export writes messages as lines, in order: an event as the very bytes that
// were stored and signed, anything that cannot be a line of its own as a JSON
// string with its base64. Import reads them back.
func Export(w io.Writer, raws [][]byte) error {
	out := bufio.NewWriter(w)
	for _, raw := range raws {
		line := raw
		if len(raw) == 0 || raw[0] != '{' || bytes.ContainsAny(raw, "\r\n") {
			line = []byte(`"` + base64.StdEncoding.EncodeToString(raw) + `"`)
		}
		if _, err := out.Write(append(bytes.Clone(line), '\n')); err != nil {
			return fmt.Errorf("export %d messages: %w", len(raws), err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("export %d messages: %w", len(raws), err)
	}
	return nil
}

// Import reads an export, as far as it goes: Fold says what is wrong with the
// messages themselves.
func Import(r io.Reader) ([][]byte, error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	var raws [][]byte
	for in.Scan() {
		line := in.Bytes()
		if len(line) == 0 || line[0] != '"' {
			raws = append(raws, bytes.Clone(line))
			continue
		}
		var text string
		if err := json.Unmarshal(line, &text); err != nil {
			return nil, fmt.Errorf("line %d of the export is neither an event nor a JSON string: %w", len(raws)+1, err)
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("line %d of the export: the string is not base64: %w", len(raws)+1, err)
		}
		raws = append(raws, raw)
	}
	if err := in.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d of the export is longer than %d bytes", len(raws)+1, maxLine)
	} else if err != nil {
		return nil, fmt.Errorf("read the export: %w", err)
	}
	return raws, nil
}

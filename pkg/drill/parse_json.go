package drill

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// JSON writes a drill in its canonical form and returns it with the hex SHA-256
// of its bytes. Equal drills give equal bytes: mappings are sorted, also within
// config and params, and the bytes survive being embedded in another JSON
// document by encoding/json. It fails only for a drill that did not come from
// Parse and whose config or params are not JSON.
func JSON(d Drill) (raw json.RawMessage, hash string, err error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, "", fmt.Errorf("write drill %s as JSON: %w", d.Metadata.Name, err)
	}
	b, err = canonical(b)
	if err != nil {
		return nil, "", fmt.Errorf("write drill %s as JSON: %w", d.Metadata.Name, err)
	}
	sum := sha256.Sum256(b)
	return b, hex.EncodeToString(sum[:]), nil
}

// canonical sorts the mappings of a JSON text and keeps its numbers as written.
func canonical(raw []byte) (json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// readJSON builds the nodes of a JSON document. It stands beside the YAML
// reader because YAML refuses some JSON: surrogate pairs, which Python writes
// for every emoji, and long keys. ok is false when the text is no JSON object.
func readJSON(raw []byte) (root *yaml.Node, ok bool) {
	if text := bytes.TrimLeft(raw, " \t\r\n"); len(text) == 0 || text[0] != '{' || !json.Valid(raw) {
		return nil, false
	}
	r := &jsonReader{raw: raw, dec: json.NewDecoder(bytes.NewReader(raw)), line: 1, column: 1}
	r.dec.UseNumber()
	root = r.node(0)
	return root, root != nil
}

// jsonReader follows the tokens of a valid JSON text and knows where each begins.
type jsonReader struct {
	raw          []byte
	dec          *json.Decoder
	done         int
	line, column int
}

// node reads one value. The text is known to be valid, so nil means only that
// it nests far deeper than any drill may; the screening names that problem from
// the part that was built.
func (r *jsonReader) node(depth int) *yaml.Node {
	at := r.begin()
	tok, err := r.dec.Token()
	if err != nil {
		return nil
	}
	n := &yaml.Node{Line: at.line, Column: at.column}
	switch v := tok.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if v == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		for r.dec.More() {
			// One level beyond the limit is enough for it to be seen.
			if depth > MaxDepth {
				n.Content = append(n.Content, &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: at.line, Column: at.column})
				return n
			}
			child := r.node(depth + 1)
			if child == nil {
				return nil
			}
			n.Content = append(n.Content, child)
		}
		r.dec.Token() // the closing bracket; the text is valid
	case string:
		n.Kind, n.Tag, n.Value, n.Style = yaml.ScalarNode, "!!str", v, yaml.DoubleQuotedStyle
	case json.Number:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!int", v.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case bool:
		n.Kind, n.Tag, n.Value = yaml.ScalarNode, "!!bool", fmt.Sprint(v)
	default:
		n.Kind, n.Tag = yaml.ScalarNode, "!!null"
	}
	return n
}

// begin moves to where the next token begins.
func (r *jsonReader) begin() position {
	end := int(r.dec.InputOffset())
	for end < len(r.raw) && strings.IndexByte(" \t\r\n,:", r.raw[end]) >= 0 {
		end++
	}
	for r.done < end {
		c, size := utf8.DecodeRune(r.raw[r.done:])
		r.done += size
		r.column++
		if c == '\n' {
			r.line, r.column = r.line+1, 1
		}
	}
	return position{r.line, r.column}
}

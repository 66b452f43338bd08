package bucket

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// tags reads the XML that S3 servers write: elements, attributes that nobody
// needs, text with entities. What they do not write (comments, CDATA, name
// spaces with prefixes, document types) is refused rather than guessed at.
// encoding/xml reads the same, at a tenth of the speed.
type tags struct {
	data []byte
	at   int
	// closing is the name of an element that was closed where it was opened.
	closing []byte
}

// maxDepth bounds the nesting of elements.
const maxDepth = 32

// syntaxError says what is wrong with XML, and where.
type syntaxError struct {
	at   int
	what string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("byte %d: %s", e.at, e.what) }

func (t *tags) errorf(format string, args ...any) error {
	return &syntaxError{t.at, fmt.Sprintf(format, args...)}
}

// newTags checks what concerns every byte, and skips the declaration.
func newTags(data []byte) (*tags, error) {
	t := &tags{data: data}
	t.space()
	switch {
	case !utf8.Valid(data):
		return nil, t.errorf("not UTF-8")
	case hasControl(data), bytes.Contains(data, []byte("\uFFFE")), bytes.Contains(data, []byte("\uFFFF")):
		return nil, t.errorf("a character that XML does not have")
	case bytes.Contains(data, []byte("]]>")):
		return nil, t.errorf("CDATA is not expected")
	}
	if bytes.HasPrefix(t.rest(), []byte("<?xml ")) {
		end := bytes.Index(t.rest(), []byte("?>"))
		if end < 0 {
			return nil, t.errorf("the declaration has no end")
		}
		t.at += end + 2
	}
	t.space()
	return t, nil
}

// hasControl looks for control characters, eight bytes at a time.
func hasControl(data []byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	for len(data) >= 8 {
		// A byte below 0x20 borrows into its own high bit, which it did not have. A
		// borrow may also run into the next byte: the bytes are then looked at.
		x := binary.LittleEndian.Uint64(data)
		if (x-0x20*ones) & ^x & highs != 0 && controlIn(data[:8]) {
			return true
		}
		data = data[8:]
	}
	return controlIn(data)
}

func controlIn(data []byte) bool {
	for _, c := range data {
		if c < 0x20 && c != '\n' && c != '\t' && c != '\r' {
			return true
		}
	}
	return false
}

func (t *tags) rest() []byte { return t.data[t.at:] }

func (t *tags) space() {
	for t.at < len(t.data) {
		switch t.data[t.at] {
		case ' ', '\n', '\t', '\r':
			t.at++
		default:
			return
		}
	}
}

// text returns what is before the next tag, as it is written.
func (t *tags) text() ([]byte, error) {
	if t.closing != nil {
		return nil, nil
	}
	n := bytes.IndexByte(t.rest(), '<')
	if n < 0 {
		return nil, t.errorf("it ends within an element")
	}
	out := t.rest()[:n]
	t.at += n
	return out, nil
}

// tag reads a tag and returns its name and whether it closes an element.
func (t *tags) tag() (name []byte, closes bool, err error) {
	if t.closing != nil {
		name, t.closing = t.closing, nil
		return name, true, nil
	}
	if t.at >= len(t.data) || t.data[t.at] != '<' {
		return nil, false, t.errorf("a tag is expected")
	}
	t.at++
	if t.at < len(t.data) && t.data[t.at] == '/' {
		t.at++
		closes = true
	}
	if name, err = t.name(); err != nil {
		return nil, false, err
	}
	if !closes {
		if err := t.attributes(); err != nil {
			return nil, false, err
		}
		if t.at < len(t.data) && t.data[t.at] == '/' {
			t.at++
			t.closing = name
		}
	} else {
		t.space()
	}
	if t.at >= len(t.data) || t.data[t.at] != '>' {
		return nil, false, t.errorf("the tag %s has no end", name)
	}
	t.at++
	return name, closes, nil
}

// nameByte reports the characters of names: MinIO writes names of user metadata
// as names of elements, which may hold all that names of HTTP headers do.
func nameByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	case c == '>', c == '/':
		return false
	}
	return strings.IndexByte("-_.!#$%&'*+^`|~", c) >= 0
}

func (t *tags) name() ([]byte, error) {
	from := t.at
	for t.at < len(t.data) && nameByte(t.data[t.at]) {
		t.at++
	}
	name := t.data[from:t.at]
	if len(name) == 0 || (name[0]|0x20 < 'a' || name[0]|0x20 > 'z') && name[0] != '_' {
		return nil, t.errorf("a name is expected")
	}
	return name, nil
}

// attributes skips the attributes of a tag.
func (t *tags) attributes() error {
	for {
		from := t.at
		t.space()
		if t.at >= len(t.data) {
			return t.errorf("a tag has no end")
		}
		if c := t.data[t.at]; c == '>' || c == '/' {
			return nil
		}
		if t.at == from {
			return t.errorf("a space is expected")
		}
		eq := bytes.IndexByte(t.rest(), '=')
		if eq <= 0 || eq+1 >= len(t.rest()) {
			return t.errorf("an attribute has no value")
		}
		for i, c := range t.rest()[:eq] {
			if !('a' <= c|0x20 && c|0x20 <= 'z' || i > 0 && (c == ':' && i+1 < eq || c == '-')) {
				return t.errorf("an attribute has an unexpected name")
			}
		}
		t.at += eq + 1
		quote := t.data[t.at]
		t.at++
		end := bytes.IndexByte(t.rest(), quote)
		if quote != '"' && quote != '\'' || end < 0 || bytes.ContainsAny(t.rest()[:end], "<&") {
			return t.errorf("an attribute has an unexpected value")
		}
		t.at += end + 1
	}
}

// children calls each for every element in the one that was just opened. each
// must read to that element's end.
func (t *tags) children(name []byte, each func(child []byte) error) error {
	for {
		text, err := t.text()
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(text)) > 0 {
			return t.errorf("text where only elements are expected, in %s", name)
		}
		child, closes, err := t.tag()
		switch {
		case err != nil:
			return err
		case closes && bytes.Equal(child, name):
			return nil
		case closes:
			return t.errorf("%s is closed within %s", child, name)
		}
		if err := each(child); err != nil {
			return err
		}
	}
}

// leaf returns the text of the element that was just opened, which holds no others.
func (t *tags) leaf(name []byte) ([]byte, error) {
	raw, err := t.text()
	if err != nil {
		return nil, err
	}
	end, closes, err := t.tag()
	if err != nil {
		return nil, err
	}
	if !closes || !bytes.Equal(end, name) {
		return nil, t.errorf("%s holds more than text", name)
	}
	return t.unescape(raw)
}

// skip reads to the end of the element that was just opened.
func (t *tags) skip(name []byte, depth int) error {
	if depth > maxDepth {
		return t.errorf("elements are nested deeper than %d", maxDepth)
	}
	for {
		text, err := t.text()
		if err != nil {
			return err
		}
		if _, err := t.unescape(text); err != nil {
			return err
		}
		child, closes, err := t.tag()
		switch {
		case err != nil:
			return err
		case closes && bytes.Equal(child, name):
			return nil
		case closes:
			return t.errorf("%s is closed within %s", child, name)
		}
		if err := t.skip(child, depth+1); err != nil {
			return err
		}
	}
}

// unescape replaces entities and normalises line ends. It returns its argument
// where there are none.
func (t *tags) unescape(raw []byte) ([]byte, error) {
	if bytes.IndexByte(raw, '&') < 0 && bytes.IndexByte(raw, '\r') < 0 {
		return raw, nil
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '\r':
			out = append(out, '\n')
			if i+1 < len(raw) && raw[i+1] == '\n' {
				i++
			}
		case '&':
			// The longest is &#1114111; or &#x10FFFF;
			end := bytes.IndexByte(raw[i:min(i+11, len(raw))], ';')
			if end < 0 {
				return nil, t.errorf("an entity has no end")
			}
			r, ok := entity(string(raw[i+1 : i+end]))
			if !ok {
				return nil, t.errorf("unknown entity %q", raw[i:i+end+1])
			}
			out = utf8.AppendRune(out, r)
			i += end
		default:
			out = append(out, raw[i])
		}
	}
	return out, nil
}

func entity(name string) (rune, bool) {
	switch name {
	case "amp":
		return '&', true
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	if len(name) < 2 || name[0] != '#' {
		return 0, false
	}
	digits, base := name[1:], 10
	if digits[0] == 'x' {
		digits, base = digits[1:], 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || n > utf8.MaxRune || digits[0] == '+' {
		return 0, false
	}
	r := rune(n)
	xmlChar := r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000
	return r, xmlChar
}

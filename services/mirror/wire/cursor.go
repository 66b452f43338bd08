package wire

import (
	"encoding/binary"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// zigzag makes small numbers of small distances in either direction.
func zigzag(n int64) uint64 { return uint64(n)<<1 ^ uint64(n>>63) }

func appendNear(b []byte, n int64) []byte { return binary.AppendUvarint(b, zigzag(n)) }

// appendText writes how much of base the text begins with, and the rest.
func appendText(b []byte, s, base string) []byte {
	n := 0
	for n < len(s) && n < len(base) && s[n] == base[n] {
		n++
	}
	b = binary.AppendUvarint(b, uint64(n))
	return appendBytes(b, s[n:])
}

func appendBytes[T string | []byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// cursor reads an item. After the first error it gives zero values only, so that
// the error needs to be looked at once, in the end.
type cursor struct {
	b []byte
	// item and field say, in errors, what is being read.
	item  item
	field string
	err   *Error
}

func (c *cursor) fail(problem string) {
	if c.err == nil {
		c.err = &Error{Item: c.item.String(), Problem: c.field + ": " + problem, Err: ErrFormat}
		c.b = nil
	}
}

func (c *cursor) byte() byte {
	if len(c.b) == 0 {
		c.fail("a byte is missing")
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail("a number is cut off or too large")
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) uint32() uint32 {
	v := c.uvarint()
	if v > 1<<32-1 {
		c.fail("a number is too large")
		return 0
	}
	return uint32(v)
}

func (c *cursor) near() int64 {
	v := c.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// bytes gives n bytes of the input, not a copy; nil if they are not there.
func (c *cursor) bytes(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail("it is longer than what is there")
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) text(base string, t *entry.Texts) string {
	n := c.uvarint()
	rest := c.bytes(c.uvarint())
	if n > uint64(len(base)) {
		c.fail("it has more in common with the text before than that has")
	}
	switch {
	case c.err != nil:
		return ""
	case len(rest) == 0:
		return base[:n]
	}
	return t.Join(base[:n], rest)
}

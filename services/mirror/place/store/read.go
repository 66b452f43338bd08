package store

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// Open opens the content of a file. A whole content is checked on its way: its
// last byte is held back, with [place.ErrCorrupt], if it does not match the
// server's CRC32C, or else what its metadata or its ETag says.
func (p *Place) Open(ctx context.Context, e entry.Entry, off, n int64) (place.Content, error) {
	key := e.Key()
	if e.Kind != entry.File || off < 0 {
		return nil, fmt.Errorf("open the %s %q in %s from byte %d on: only files have content", e.Kind, key, p, off)
	}
	if n >= e.Size-off {
		n = -1
	}
	if off >= e.Size && e.Size > 0 {
		n = 0
	}
	r, o, err := p.b.Get(ctx, key, off, n)
	if errors.Is(err, bucket.ErrNotFound) || codeOf(err) == "InvalidRange" {
		return nil, fmt.Errorf("%w: %w", place.ErrChanged, err)
	}
	if err != nil {
		return nil, err
	}
	if why := p.differs(e, o); why != "" {
		return nil, errors.Join(p.changed("open", key, why), r.Close())
	}
	if off > 0 || n >= 0 {
		return &content{body: r}, nil
	}
	return p.checked(r, e, o), nil
}

// differs says why an object is not the entry that was seen; "" if it is. An
// entry that does not know its ETag is told by what else it knows.
func (p *Place) differs(seen entry.Entry, o bucket.Object) string {
	if seen.Sum.Contains(entry.HasETag) {
		if o.ETag != seen.Sum.ETag {
			return fmt.Sprintf("its ETag was %q and is %q", seen.Sum.ETag, o.ETag)
		}
		return ""
	}
	now, err := p.entryOf(o)
	switch {
	case err != nil:
		return err.Error()
	case now.Kind != seen.Kind || now.Size != seen.Size:
		return fmt.Sprintf("it was a %s of %d bytes and is a %s of %d", seen.Kind, seen.Size, now.Kind, now.Size)
	case now.MTime != seen.MTime && !isForeign(o):
		return "it has another time"
	}
	return ""
}

// check is what a whole content must sum up to.
type check struct {
	sum  hash.Hash
	want []byte
	what string
}

// newCheck takes the cheapest checksum that is known; nil if there is none.
func newCheck(e entry.Entry, o bucket.Object) *check {
	castagnoli := func(sum uint32) *check {
		return &check{crc32.New(crc32.MakeTable(crc32.Castagnoli)), binary.BigEndian.AppendUint32(nil, sum), "CRC32C"}
	}
	switch {
	case o.Size == 0:
		return nil
	case o.CRC32C != nil:
		return castagnoli(*o.CRC32C)
	case e.Sum.Contains(entry.HasCRC32C):
		return castagnoli(e.Sum.CRC32C)
	case len(o.ETag) == 2*md5.Size && (o.Encryption == "" || o.Encryption == "AES256"):
		if want, err := hex.DecodeString(o.ETag); err == nil {
			return &check{md5.New(), want, "MD5"}
		}
	}
	return nil
}

var _ place.Summed = (*content)(nil)

// content is the content of an object, or a range of it.
type content struct {
	body  io.ReadCloser
	check *check
	left  int64
	key   string
	place *Place
	err   error
}

// checked is the whole content of an object, which is checked on its way.
func (p *Place) checked(body io.ReadCloser, e entry.Entry, o bucket.Object) *content {
	return &content{body: body, check: newCheck(e, o), left: o.Size, key: o.Key, place: p}
}

// Read implements [io.Reader].
func (c *content) Read(into []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.body.Read(into)
	if c.check == nil {
		return n, err
	}
	c.check.sum.Write(into[:n])
	if c.left -= int64(n); c.left > 0 || n == 0 {
		return n, err
	}
	if got := c.check.sum.Sum(nil); !bytes.Equal(got, c.check.want) {
		c.err = fmt.Errorf("read %q in %s: %w: its %s is %x and should be %x; read it again, and if it stays, restore it from another copy", c.key, c.place, place.ErrCorrupt, c.check.what, got, c.check.want)
		return n - 1, c.err
	}
	return n, err
}

// CRC32C gives the sum that the content is checked by; nil where it is checked by an MD5, or
// not at all.
func (c *content) CRC32C() func() uint32 {
	if c.check == nil {
		return nil
	}
	if sum, is := c.check.sum.(hash.Hash32); is {
		return sum.Sum32
	}
	return nil
}

// Close implements [io.Closer].
func (c *content) Close() error { return c.body.Close() }

// Unchanged is always nil: what is read of an object is what it was when it was
// opened.
func (c *content) Unchanged() error { return nil }

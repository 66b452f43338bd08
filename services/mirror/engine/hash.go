package engine

import (
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag is an MD5; nothing is trusted because of it.
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/zeebo/blake3"
	"golang.org/x/time/rate"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// blakes are hashers that no content uses: each has ten kilobytes, more than all else
// that a small file takes.
var blakes = sync.Pool{New: func() any { return blake3.New() }}

// hasher computes, in one pass, what is to be known of a content.
type hasher struct {
	blake *blake3.Hasher
	crc   uint32
	// summed tells the CRC32C, where the content itself sums it up.
	summed func() uint32
	etag   *etag
}

// newHasher begins a content, of which nothing was read yet. withETag asks for the ETag
// that it would have as an object; partSize is that of its parts, 0 if it was put at once.
func newHasher(c place.Content, withETag bool, partSize int64) *hasher {
	h := &hasher{blake: blakes.Get().(*blake3.Hasher)}
	h.blake.Reset()
	if s, is := c.(place.Summed); is {
		h.summed = s.CRC32C()
	}
	if withETag {
		h.etag = &etag{partSize: partSize, part: md5.New(), all: md5.New()}
	}
	return h
}

// Write never fails.
func (h *hasher) Write(p []byte) (int, error) {
	_, _ = h.blake.Write(p)
	if h.summed == nil {
		h.crc = crc32.Update(h.crc, castagnoli, p)
	}
	if h.etag != nil {
		h.etag.write(p)
	}
	return len(p), nil
}

// sum gives the hashes of what was written, and ends the hasher's use.
func (h *hasher) sum() entry.Sum {
	s := entry.Sum{Has: entry.HasBLAKE3 | entry.HasCRC32C, CRC32C: h.crc}
	if h.summed != nil {
		s.CRC32C = h.summed()
	}
	h.blake.Sum(s.BLAKE3[:0])
	blakes.Put(h.blake)
	h.blake = nil // Whoever writes on must not write into another content's.
	if h.etag != nil {
		s.ETag, s.Has = h.etag.sum(), s.Has|entry.HasETag
		if h.etag.partSize > 0 {
			s.PartSize, s.Has = h.etag.partSize, s.Has|entry.HasPartSize
		}
	}
	return s
}

// etag computes what S3 calls the ETag: the MD5 of the content, or of the MD5s of
// its parts with their number.
type etag struct {
	partSize   int64
	part, all  hash.Hash
	in, number int64
}

func (t *etag) write(p []byte) {
	for len(p) > 0 {
		n := int64(len(p))
		if t.partSize > 0 {
			n = min(n, t.partSize-t.in)
		}
		_, _ = t.part.Write(p[:n])
		t.in += n
		p = p[n:]
		if t.partSize > 0 && t.in == t.partSize {
			t.close()
		}
	}
}

func (t *etag) close() {
	_, _ = t.all.Write(t.part.Sum(nil))
	t.part.Reset()
	t.in = 0
	t.number++
}

func (t *etag) sum() string {
	if t.partSize == 0 {
		return hex.EncodeToString(t.part.Sum(nil))
	}
	if t.in > 0 || t.number == 0 {
		t.close()
	}
	return fmt.Sprintf("%x-%d", t.all.Sum(nil), t.number)
}

// buffer is how much of a content is read at once.
const buffer = 256 << 10

// Hash reads the content of a file in a place and gives its hashes, as far as they
// can be compared with like. limit bounds the bytes per second; nil does not. read, if not
// nil, is told how many bytes were read, again and again.
func Hash(ctx context.Context, p place.Place, e entry.Entry, like entry.Sum, limit *rate.Limiter, read func(int)) (entry.Sum, error) {
	c, err := p.Open(ctx, e, 0, e.Size)
	if err != nil {
		return entry.Sum{}, err
	}
	// An ETag costs an MD5: only where nothing better can be compared.
	etag := like.Contains(entry.HasETag) && !like.Contains(entry.HasBLAKE3)
	h := newHasher(c, etag, like.PartSize)
	r := &stream{ctx: ctx, content: c, hash: h, limit: limit, read: read, left: e.Size}
	_, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{r}, make([]byte, min(buffer, max(e.Size, 1))))
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return entry.Sum{}, fmt.Errorf("read %q in %s: %w", e.Key(), p, err)
	}
	return h.sum(), nil
}

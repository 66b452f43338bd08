package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// field says, as a set of bits, what of an entry differs from what it is written
// as a difference to. Those that often do come first: each 7 bits take a byte.
type field uint64

const (
	// fromNothing: the difference is to the zero Entry, as which what a side does
	// not hold takes one byte.
	fromNothing field = 1 << iota
	hasSize
	hasMTime
	hasInode
	// hasCTime is the distance to the ctime of the other entry, hasOwnCTime to the
	// entry's own mtime. The shorter one is written.
	hasCTime
	hasBLAKE3
	hasCRC32C

	hasETag
	hasOwnCTime
	hasPath
	hasKind
	hasMode
	hasOwner
	hasFS

	// noSum: the difference of the hashes is to none. Without it, 32 zero bytes
	// would say that a hash is not known.
	noSum
	hasHas
	hasTarget
	hasDevice
	hasXattrs
	hasPartSize

	allFields = hasPartSize<<1 - 1
)

// differences compares e with base, from which noSum must already be taken.
func differences(e, base *entry.Entry) (f field) {
	mark := func(bit field, differs bool) {
		if differs {
			f |= bit
		}
	}
	mark(hasSize, e.Size != base.Size)
	mark(hasMTime, e.MTime != base.MTime)
	mark(hasInode, e.Change.Inode != base.Change.Inode)
	if e.Change.CTime != base.Change.CTime {
		near := zigzag(e.Change.CTime-e.MTime) <= zigzag(e.Change.CTime-base.Change.CTime)
		mark(hasOwnCTime, near)
		mark(hasCTime, !near)
	}
	mark(hasBLAKE3, e.Sum.BLAKE3 != base.Sum.BLAKE3)
	mark(hasCRC32C, e.Sum.CRC32C != base.Sum.CRC32C)
	mark(hasETag, e.Sum.ETag != base.Sum.ETag)
	mark(hasPath, e.Path != base.Path)
	mark(hasKind, e.Kind != base.Kind)
	mark(hasMode, e.Mode != base.Mode)
	mark(hasOwner, e.UID != base.UID || e.GID != base.GID)
	mark(hasFS, e.Change.FS != base.Change.FS)
	mark(hasHas, e.Sum.Has != base.Sum.Has)
	mark(hasTarget, e.Target != base.Target)
	mark(hasDevice, e.Device != base.Device)
	mark(hasXattrs, !maps.EqualFunc(e.Xattrs, base.Xattrs, bytes.Equal))
	mark(hasPartSize, e.Sum.PartSize != base.Sum.PartSize)
	return f
}

// appendEntry writes e as a difference to base, which it may change.
func appendEntry(b []byte, e, base *entry.Entry) []byte {
	var f field
	if e.Path == "" {
		*base, f = entry.Entry{}, fromNothing
	}
	if e.Sum.BLAKE3 == [32]byte{} && base.Sum.BLAKE3 != [32]byte{} {
		base.Sum = entry.Sum{}
		f |= noSum
	}
	f |= differences(e, base)
	b = binary.AppendUvarint(b, uint64(f))
	if f&hasPath != 0 {
		b = appendText(b, e.Path, base.Path)
	}
	if f&hasSize != 0 {
		b = binary.AppendUvarint(b, uint64(e.Size))
	}
	if f&hasMTime != 0 {
		b = appendNear(b, e.MTime-base.MTime)
	}
	if f&hasInode != 0 {
		b = appendNear(b, int64(e.Change.Inode-base.Change.Inode))
	}
	if f&hasCTime != 0 {
		b = appendNear(b, e.Change.CTime-base.Change.CTime)
	}
	if f&hasOwnCTime != 0 {
		b = appendNear(b, e.Change.CTime-e.MTime)
	}
	if f&(hasKind|hasMode|hasOwner|hasFS|hasTarget|hasDevice|hasXattrs) != 0 {
		b = appendRare(b, e, base, f)
	}
	return appendSum(b, &e.Sum, f)
}

// appendRare writes what neighbours mostly have in common.
func appendRare(b []byte, e, base *entry.Entry, f field) []byte {
	if f&hasKind != 0 {
		b = append(b, byte(e.Kind))
	}
	if f&hasMode != 0 {
		b = binary.AppendUvarint(b, uint64(e.Mode))
	}
	if f&hasOwner != 0 {
		b = binary.AppendUvarint(b, uint64(e.UID))
		b = binary.AppendUvarint(b, uint64(e.GID))
	}
	if f&hasFS != 0 {
		b = append(b, e.Change.FS[:]...)
	}
	if f&hasTarget != 0 {
		b = appendText(b, e.Target, base.Target)
	}
	if f&hasDevice != 0 {
		b = binary.AppendUvarint(b, e.Device)
	}
	if f&hasXattrs != 0 {
		b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			b = appendBytes(b, name)
			b = appendBytes(b, e.Xattrs[name])
		}
	}
	return b
}

func appendSum(b []byte, s *entry.Sum, f field) []byte {
	if f&hasHas != 0 {
		b = append(b, byte(s.Has))
	}
	if f&hasBLAKE3 != 0 {
		b = append(b, s.BLAKE3[:]...)
	}
	if f&hasCRC32C != 0 {
		b = binary.LittleEndian.AppendUint32(b, s.CRC32C)
	}
	if f&hasETag != 0 {
		b = appendETag(b, s.ETag)
	}
	if f&hasPartSize != 0 {
		b = binary.AppendUvarint(b, uint64(s.PartSize))
	}
	return b
}

// md5Size is the length of an MD5, as which nearly every ETag begins.
const md5Size = 16

// appendETag halves an ETag that is an MD5, of an object or of its parts: the
// lowest bit of the length says so, and the length is that of what follows it.
func appendETag(b []byte, etag string) []byte {
	var sum [md5Size]byte
	if len(etag) < 2*md5Size || !unhex(&sum, etag) {
		b = binary.AppendUvarint(b, uint64(len(etag))<<1)
		return append(b, etag...)
	}
	etag = etag[2*md5Size:]
	b = binary.AppendUvarint(b, uint64(len(etag))<<1|1)
	b = append(b, sum[:]...)
	return append(b, etag...)
}

// unhex reads lower-case digits; upper-case ones would not come back.
func unhex(sum *[md5Size]byte, s string) bool {
	for i := range sum {
		high, low := nibble(s[2*i]), nibble(s[2*i+1])
		if high|low > 15 {
			return false
		}
		sum[i] = high<<4 | low
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 16
}

// entry reads what appendEntry wrote with the same base, which is in e.
func (c *cursor) entry(side string, e *entry.Entry, t *entry.Texts) {
	c.field = side
	f := field(c.uvarint())
	if f > allFields {
		c.fail("it has fields that are not known")
	}
	if f&fromNothing != 0 {
		*e = entry.Entry{}
	}
	if f&noSum != 0 {
		e.Sum = entry.Sum{}
	}
	if f&hasPath != 0 {
		e.Path = c.text(e.Path, t)
	}
	if f&hasSize != 0 {
		e.Size = int64(c.uvarint())
	}
	if f&hasMTime != 0 {
		e.MTime += c.near()
	}
	if f&hasInode != 0 {
		e.Change.Inode += uint64(c.near())
	}
	if f&hasCTime != 0 {
		e.Change.CTime += c.near()
	}
	if f&hasOwnCTime != 0 {
		e.Change.CTime = e.MTime + c.near()
	}
	if f&(hasKind|hasMode|hasOwner|hasFS|hasTarget|hasDevice|hasXattrs) != 0 {
		c.rare(e, f, t)
	}
	c.sum(&e.Sum, f, t)
}

func (c *cursor) rare(e *entry.Entry, f field, t *entry.Texts) {
	if f&hasKind != 0 {
		e.Kind = entry.Kind(c.byte())
	}
	if f&hasMode != 0 {
		e.Mode = c.uint32()
	}
	if f&hasOwner != 0 {
		e.UID, e.GID = c.uint32(), c.uint32()
	}
	if f&hasFS != 0 {
		copy(e.Change.FS[:], c.bytes(uint64(len(e.Change.FS))))
	}
	if f&hasTarget != 0 {
		e.Target = c.text(e.Target, t)
	}
	if f&hasDevice != 0 {
		e.Device = c.uvarint()
	}
	if f&hasXattrs != 0 {
		e.Xattrs = c.xattrs()
	}
}

func (c *cursor) xattrs() map[string][]byte {
	n := c.uvarint()
	if n > uint64(len(c.b)/2) { // each takes two bytes at least
		c.fail("more extended attributes than bytes")
	}
	if n == 0 || c.err != nil {
		return nil
	}
	m := make(map[string][]byte)
	for range n {
		name := string(c.bytes(c.uvarint()))
		m[name] = bytes.Clone(c.bytes(c.uvarint()))
		if c.err != nil {
			return nil
		}
	}
	return m
}

func (c *cursor) sum(s *entry.Sum, f field, t *entry.Texts) {
	if f&hasHas != 0 {
		s.Has = entry.Has(c.byte())
	}
	if f&hasBLAKE3 != 0 {
		copy(s.BLAKE3[:], c.bytes(uint64(len(s.BLAKE3))))
	}
	if f&hasCRC32C != 0 {
		if raw := c.bytes(4); raw != nil {
			s.CRC32C = binary.LittleEndian.Uint32(raw)
		}
	}
	if f&hasETag != 0 {
		s.ETag = c.etag(t)
	}
	if f&hasPartSize != 0 {
		s.PartSize = int64(c.uvarint())
	}
}

func (c *cursor) etag(t *entry.Texts) string {
	n := c.uvarint()
	if n&1 == 0 {
		return t.Join("", c.bytes(n>>1))
	}
	var digits [2 * md5Size]byte
	hex.Encode(digits[:], c.bytes(md5Size))
	rest := c.bytes(n >> 1)
	if len(rest) == 0 {
		return t.Join("", digits[:])
	}
	return t.Join(string(digits[:]), rest)
}

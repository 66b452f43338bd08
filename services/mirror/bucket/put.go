package bucket

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
)

// PutOptions say what is written beside the content.
type PutOptions struct {
	// Meta is user metadata by names without X-Amz-Meta-, which have no case. Values
	// are printable ASCII without outer or double spaces. Servers take about 2 KiB.
	Meta map[string]string
	// MTime becomes LastModified where Capabilities.SetMTime, in milliseconds
	// rounded up so that it is never before the true one; otherwise it is not used.
	// Servers know no times up to 1970: those are not used either.
	MTime time.Time
	// Headers are as in Object.
	Headers map[string]string
	// IfNoneMatch writes only if there is no such object, IfMatch only if its ETag
	// is this one; else the error wraps ErrPrecondition, or ErrNotFound if IfMatch
	// finds none. Such a write is not repeated when its outcome is not known.
	IfNoneMatch bool
	IfMatch     string
	// CRC32C is that of the content, if known. The server refuses other content.
	CRC32C *uint32
}

// Written is what the server said of what it stored.
type Written struct {
	ETag string
	// Size is the number of bytes of content.
	Size int64
	// CRC32C is that of the bytes that were sent.
	CRC32C uint32
	// Confirmed says that the server's own checksum was compared: its CRC32C, or
	// for an item of a batch the MD5 in its ETag.
	Confirmed bool
	// VersionID is the new version's, in a bucket with versions.
	VersionID string
	// Found says that FinishParts found the object there, joined by a request whose answer
	// it did not get, or of the same parts by somebody else: then the upload may be left.
	Found bool
}

// smallBody is the size up to which a body is read before it is sent: the
// checksum then goes in front, without a buffer for each request, and the
// request can be repeated whatever it is read from.
const smallBody = 128 << 10

// errSource marks an error of reading what is to be written.
var errSource = errors.New("its source failed")

// Put writes an object of exactly size bytes from r; if r has fewer nothing is
// stored, and what it has beyond is not read. The body is sent without a signature
// of its content, guarded by its CRC32C, which is also compared with what the
// server answers. It is repeated after passing errors if it is small or r is an
// io.Seeker, from where r then was. r is neither closed nor used after the
// return, which waits for a read of it that is under way. With an error, what is
// returned tells the size and the CRC32C of what was read of the body for the last
// attempt, which the server may have stored.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (Written, error) {
	full, opts, err := b.prepare("put", key, o.Meta)
	if err != nil {
		return Written{}, err
	}
	maps.Copy(opts.UserMetadata, o.Headers)
	opts.Internal.SourceMTime = b.LastModified(o.MTime)
	keeps, err := b.KeepsCRC32C(ctx)
	if err != nil {
		return Written{}, err
	}
	src, err := newSource(r, size, o.CRC32C)
	if err != nil {
		return Written{}, b.explain("put", key, &exchange{}, err)
	}
	when := src.again()
	if o.IfNoneMatch || o.IfMatch != "" {
		when = min(when, refused)
		if o.IfNoneMatch {
			opts.SetMatchETagExcept("*")
		} else {
			opts.SetMatchETag(o.IfMatch)
		}
	}
	if src.crc != nil {
		opts.UserMetadata[crcHeader] = encodeCRC(*src.crc)
	}
	var w Written
	err = b.do(ctx, "put", key, when, func(ctx context.Context, _ *exchange) error {
		body, err := src.open()
		if err != nil {
			return err
		}
		var told minio.UploadInfo
		if keeps {
			told, err = b.send(ctx, b.urlOf(full), opts.Header(), body)
		} else {
			told, err = b.core.PutObject(ctx, b.name, full, body, size, "", "", opts)
		}
		body.stop()
		w = Written{Size: size - body.left, CRC32C: body.crc}
		if err != nil {
			return body.blame(err)
		}
		w.ETag, w.VersionID = told.ETag, told.VersionID
		w.Confirmed, err = body.compare(told.ChecksumCRC32C)
		return err
	})
	return w, err
}

// writable checks what every change needs, and returns the whole key.
func (b *Bucket) writable(op, key string) (string, error) {
	full, err := b.full(key)
	if err == nil && b.readOnly {
		err = fmt.Errorf("%w: the bucket was opened for reading only", ErrUnsupported)
	}
	if err != nil {
		return "", &RequestError{Op: op, Where: b.String(), Key: key, Err: err}
	}
	return full, nil
}

// prepare is writable, with the metadata of what will be written.
func (b *Bucket) prepare(op, key string, meta map[string]string) (full string, opts minio.PutObjectOptions, err error) {
	if full, err = b.writable(op, key); err != nil {
		return "", opts, err
	}
	if err := checkMeta(meta); err != nil {
		return "", opts, &RequestError{Op: op, Where: b.String(), Key: key, Err: err}
	}
	opts.UserMetadata = make(map[string]string, len(meta)+2)
	for name, value := range meta {
		// Without it minio-go takes a name such as Expires for the header itself.
		opts.UserMetadata[metaPrefix+name] = value
	}
	return full, opts, nil
}

// crcHeader is the header of a checksum that goes in front of the body.
const crcHeader = "X-Amz-Checksum-Crc32c"

// wholeCRC32C are the headers that ask for a checksum of a whole object that is
// written in parts.
func wholeCRC32C() map[string]string {
	return map[string]string{"X-Amz-Checksum-Algorithm": "CRC32C", "X-Amz-Checksum-Type": "FULL_OBJECT"}
}

// LastModified is the time with which listings show what is written with a time: zero
// where that is left to the server. MinIO fails with an internal error for one before
// 1970, and ignores conditions on an object that it takes for one of the very second.
func (b *Bucket) LastModified(mtime time.Time) time.Time {
	if !b.caps.SetMTime || mtime.UnixMilli() <= 0 {
		return time.Time{}
	}
	return mtime.Add(time.Millisecond - 1).Truncate(time.Millisecond)
}

func encodeCRC(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// decodeCRC reads a CRC32C as headers have it. A checksum of checksums, which
// ends with the number of parts, is none of the content.
func decodeCRC(text string) *uint32 {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != 4 {
		return nil
	}
	return new(binary.BigEndian.Uint32(raw))
}

// castagnoli is the table of CRC32C, of which the standard library keeps one.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// source is what a body is read from, once for each attempt.
type source struct {
	r     io.Reader
	size  int64
	small []byte
	// seeker and start are where to begin again; nil if that cannot be done.
	seeker io.Seeker
	start  int64
	// crc is what is known before the body is sent.
	crc *uint32
}

func newSource(r io.Reader, size int64, crc *uint32) (*source, error) {
	if size < 0 {
		return nil, fmt.Errorf("%w: a size of %d", errSource, size)
	}
	s := &source{r: r, size: size, crc: crc}
	if size <= smallBody {
		s.small = make([]byte, size)
		if n, err := io.ReadFull(r, s.small); err != nil {
			return nil, fmt.Errorf("%w after %d of %d bytes: %w", errSource, n, size, err)
		}
		sum := crc32.Checksum(s.small, castagnoli())
		if crc != nil && *crc != sum {
			return nil, fmt.Errorf("%w: CRC32C %08x was expected of the content, and it is %08x: it changed since", ErrChecksum, *crc, sum)
		}
		s.crc = &sum
		return s, nil
	}
	if seeker, ok := r.(io.Seeker); ok {
		// A pipe is an *os.File and cannot seek.
		if start, err := seeker.Seek(0, io.SeekCurrent); err == nil {
			s.seeker, s.start = seeker, start
		}
	}
	return s, nil
}

func (s *source) again() again {
	if s.small != nil || s.seeker != nil {
		return repeatable
	}
	return once
}

// open begins the body.
func (s *source) open() (*body, error) {
	out := &body{left: s.size, table: castagnoli()}
	if s.small != nil {
		out.small, out.r = s.small, nil
		return out, nil
	}
	if s.seeker != nil {
		if _, err := s.seeker.Seek(s.start, io.SeekStart); err != nil {
			return nil, fmt.Errorf("%w: %w", errSource, err)
		}
	}
	out.r = s.r
	return out, nil
}

// body is what is sent: size bytes and no more, summed on their way. It hides
// whether its source can seek or be closed: minio-go would rewind it to its very
// start, and close it.
type body struct {
	// mu is held while the source is read: the transport may go on reading after an
	// answer that came early.
	mu      sync.Mutex
	r       io.Reader
	small   []byte
	left    int64
	crc     uint32
	table   *crc32.Table
	err     error
	stopped bool
}

// errStopped ends a body that nobody waits for.
var errStopped = errors.New("the request is over")

// stop keeps the transport from the source from now on, and waits for a read that
// is under way. Only then may the fields be looked at.
func (b *body) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return 0, errStopped
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), b.left)]
	if b.r == nil {
		n = copy(p, b.small[int64(len(b.small))-b.left:])
	} else if n, err = b.r.Read(p); err != nil && b.left > int64(n) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		b.err = fmt.Errorf("%w, %d bytes before its end: %w", errSource, b.left-int64(n), err)
		err = b.err
	} else {
		err = nil
	}
	b.left -= int64(n)
	b.crc = crc32.Update(b.crc, b.table, p[:n])
	return n, err
}

// sum is the CRC32C of what was read so far.
func (b *body) sum() uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.crc
}

// blame returns the source's error, if it has one: the transport's is its echo.
func (b *body) blame(err error) error {
	if b.err != nil {
		return b.err
	}
	return err
}

// compare compares what was sent with what the server says it has.
func (b *body) compare(told string) (confirmed bool, err error) {
	sum := decodeCRC(told)
	if sum == nil {
		return false, nil
	}
	if *sum != b.crc {
		return false, fmt.Errorf("%w: CRC32C %08x was sent, and the server has %08x", ErrChecksum, b.crc, *sum)
	}
	return true, nil
}

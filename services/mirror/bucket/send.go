package bucket

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"
)

const (
	// unsigned and trailed are said instead of the hash of a body that is not signed; the
	// second of one whose checksum comes behind it.
	unsigned = "UNSIGNED-PAYLOAD"
	trailed  = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// send sends a body to a server that checks the CRC32C: one that is in the header already,
// or the one that comes behind the body. minio-go would sum the body up once more and copy
// it twice, which together is a fifth of what sending costs.
func (b *Bucket) send(ctx context.Context, url string, header http.Header, body *body) (got minio.UploadInfo, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPut, url, nil)
	if err != nil {
		return got, err
	}
	maps.Copy(q.Header, header)
	kind, content := unsigned, io.Reader(body)
	q.ContentLength = body.left
	if q.Header.Get(crcHeader) == "" {
		kind, content, q.ContentLength = trailed, newChunked(body, body.left), chunkedLength(body.left)
		// The server takes off what stands in front, and keeps the content's own.
		encoding := []string{"aws-chunked"}
		if own := q.Header.Get("Content-Encoding"); own != "" {
			encoding = append(encoding, own)
		}
		q.Header.Set("Content-Encoding", strings.Join(encoding, ","))
		q.Header.Set("X-Amz-Trailer", strings.ToLower(crcHeader))
		q.Header.Set("X-Amz-Decoded-Content-Length", strconv.FormatInt(body.left, 10))
	}
	if q.ContentLength > 0 {
		q.Body = io.NopCloser(content)
	}
	answer, err := b.roundTrip(q, kind)
	if err != nil {
		return got, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return got, objectError(answer)
	}
	// Only what was read to its end leaves a connection for the next.
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)); err != nil {
		return got, err
	}
	return minio.UploadInfo{
		ETag:           strings.Trim(answer.Header.Get("Etag"), `"`),
		VersionID:      answer.Header.Get("X-Amz-Version-Id"),
		ChecksumCRC32C: answer.Header.Get(crcHeader),
	}, nil
}

// chunk is how much of a body goes into one chunk, in bytes. S3 wants 8 KiB at least, and
// MinIO takes 16 MiB at most.
const chunk = 64 << 10

// chunked is a body in chunks, each behind its length, with the CRC32C behind the last, which
// is empty: what S3 calls aws-chunked, without signatures. See
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
type chunked struct {
	body *body
	// left is what is left of the body, and inChunk of this chunk.
	left, inChunk int64
	// frame is what is to go out before more of the body.
	frame []byte
	done  bool
}

func newChunked(body *body, size int64) *chunked {
	c := &chunked{body: body, left: size}
	c.begin()
	return c
}

// begin begins the next chunk, or ends the body.
func (c *chunked) begin() {
	if c.inChunk = min(c.left, chunk); c.inChunk > 0 {
		c.frame = append(strconv.AppendInt(c.frame, c.inChunk, 16), "\r\n"...)
		return
	}
	c.frame, c.done = fmt.Appendf(c.frame, "0\r\n%s:%s\r\n\r\n", strings.ToLower(crcHeader), encodeCRC(c.body.sum())), true
}

// Read implements io.Reader.
func (c *chunked) Read(p []byte) (int, error) {
	if len(c.frame) > 0 {
		n := copy(p, c.frame)
		c.frame = c.frame[:copy(c.frame, c.frame[n:])]
		return n, nil
	}
	if c.done {
		return 0, io.EOF
	}
	n, err := c.body.Read(p[:min(int64(len(p)), c.inChunk)])
	c.left -= int64(n)
	if c.inChunk -= int64(n); c.inChunk == 0 && err == nil {
		c.frame = append(c.frame, "\r\n"...)
		c.begin()
	}
	return n, err
}

// chunkedLength is how many bytes a body of a size becomes in chunks.
func chunkedLength(size int64) int64 {
	framed := func(n int64) int64 { return int64(len(strconv.FormatInt(n, 16))) + 2 + n + 2 }
	n := size / chunk * framed(chunk)
	if rest := size % chunk; rest > 0 {
		n += framed(rest)
	}
	return n + int64(len("0\r\n")+len(crcHeader)+len(":")+len(encodeCRC(0))+len("\r\n\r\n"))
}

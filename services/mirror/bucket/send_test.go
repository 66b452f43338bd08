package bucket

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// unchunk reads a body in chunks as a server does, and gives its content and its trailer.
func unchunk(raw []byte) (content []byte, trailer string, err error) {
	r := bufio.NewReader(bytes.NewReader(raw))
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, "", err
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(line, "\r\n"), 16, 64)
		if err != nil {
			return nil, "", err
		}
		if n == 0 {
			rest, err := io.ReadAll(r)
			return content, string(rest), err
		}
		piece := make([]byte, n+2)
		if _, err := io.ReadFull(r, piece); err != nil || string(piece[n:]) != "\r\n" {
			return nil, "", fmt.Errorf("a chunk of %d bytes ends with %q: %w", n, piece[n:], err)
		}
		content = append(content, piece[:n]...)
	}
}

// TestChunked reads bodies of all sizes around those of chunks, in reads of all sizes: what
// comes out is as long as was said, and holds the content with its checksum behind it.
func TestChunked(t *testing.T) {
	raw := randomBytes(3*chunk + 10)
	rapid.Check(t, func(r *rapid.T) {
		size := rapid.IntRange(0, 3).Draw(r, "chunks")*chunk + rapid.IntRange(0, 9).Draw(r, "bytes")
		src := io.Reader(bytes.NewReader(raw[:size]))
		if rapid.Bool().Draw(r, "halves") {
			src = iotest.HalfReader(src)
		}
		c := newChunked(&body{r: src, left: int64(size), table: castagnoli()}, int64(size))
		out, err := io.ReadAll(iotest.DataErrReader(readerFunc(func(p []byte) (int, error) {
			return c.Read(p[:min(len(p), rapid.SampledFrom([]int{1, 2, 7, 4096, chunk, len(p)}).Draw(r, "read"))])
		})))
		if err != nil || int64(len(out)) != chunkedLength(int64(size)) {
			r.Fatalf("%d bytes of a body of %d, not %d: %v", len(out), size, chunkedLength(int64(size)), err)
		}
		content, trailer, err := unchunk(out)
		if err != nil || !bytes.Equal(content, raw[:size]) || trailer != "x-amz-checksum-crc32c:"+encodeCRC(crcOf(raw[:size]))+"\r\n\r\n" {
			r.Fatalf("of a body of %d bytes a server reads %d, and %q: %v", size, len(content), trailer, err)
		}
	})
}

// TestChunkedOfABrokenSource gives the source's error, and no trailer.
func TestChunkedOfABrokenSource(t *testing.T) {
	for size, have := range map[int]int{10: 9, chunk: chunk - 1, 2*chunk + 1: chunk, 3 * chunk: 3*chunk - 1} {
		b := &body{r: bytes.NewReader(make([]byte, have)), left: int64(size), table: castagnoli()}
		out, err := io.ReadAll(newChunked(b, int64(size)))
		wants(t, err, errSource)
		wants(t, err, io.ErrUnexpectedEOF)
		if bytes.Contains(out, []byte("x-amz-")) {
			t.Errorf("%d of %d bytes: it ends as if it were whole", have, size)
		}
	}
}

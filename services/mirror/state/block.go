package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A block is a kind, the length of the payload, a CRC-32C of both, of the block's
// number and of the payload, and the payload. The number, from 0, shows when whole
// blocks are missing or have changed places.
const blockHead = 1 + 4 + 4

// maxBlock bounds what a reader takes memory for, in bytes, packed and unpacked.
const maxBlock = 64 << 20

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// blockWriter writes blocks. It is used by one goroutine.
type blockWriter struct {
	w      io.Writer
	number uint64
	// size is how many bytes were written.
	size int64
	head [blockHead + 8]byte
}

func (w *blockWriter) write(kind byte, payload []byte) error {
	if len(payload) > maxBlock {
		return fmt.Errorf("%w: a block of %d bytes is more than the %d that are read", ErrNote, len(payload), maxBlock)
	}
	head := w.head[:blockHead]
	head[0] = kind
	binary.LittleEndian.PutUint32(head[1:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[5:], blockSum(&w.head, w.number, payload))
	w.number++
	w.size += blockHead + int64(len(payload))
	if _, err := w.w.Write(head); err != nil {
		return err
	}
	_, err := w.w.Write(payload)
	return err
}

// blockSum is the checksum of a block whose head begins with kind and length. It
// uses the rest of head.
func blockSum(head *[blockHead + 8]byte, number uint64, payload []byte) uint32 {
	binary.LittleEndian.PutUint64(head[5:], number)
	return crc32.Update(crc32.Checksum(head[:5+8], castagnoli()), castagnoli(), payload)
}

// blockReader reads the blocks of a part of a file. It is used by one goroutine.
type blockReader struct {
	in *io.SectionReader
	// path and at are the file's, for errors: at is where the next block begins.
	path string
	at   int64
	left int64
	// fix is what errors say is to be done.
	fix    string
	number uint64
	head   [blockHead + 8]byte
	buf    []byte
}

// newBlockReader reads the n bytes of f from at on. It is meant for what this
// process wrote itself.
func newBlockReader(f io.ReaderAt, path string, at, n int64) *blockReader {
	return &blockReader{
		in: io.NewSectionReader(f, at, n), path: path, at: at, left: n,
		fix: "it was written a moment ago, so check the disk and the memory of this machine, and run again",
	}
}

// next gives the payload of the next block, valid until the call after; io.EOF
// after the last one, and a [*CorruptError] where it is not what was written.
func (r *blockReader) next() (kind byte, payload []byte, err error) {
	if r.left == 0 {
		return 0, nil, io.EOF
	}
	if r.left < blockHead {
		return 0, nil, r.corrupt("it is cut off", nil)
	}
	if err := r.read(r.head[:blockHead]); err != nil {
		return 0, nil, err
	}
	kind = r.head[0]
	n, sum := binary.LittleEndian.Uint32(r.head[1:]), binary.LittleEndian.Uint32(r.head[5:])
	if n > maxBlock || int64(n) > r.left-blockHead {
		return 0, nil, r.corrupt("it is cut off, or the length of a block is damaged", nil)
	}
	if uint32(cap(r.buf)) < n {
		r.buf = make([]byte, n+n/4)
	}
	payload = r.buf[:n]
	if err := r.read(payload); err != nil {
		return 0, nil, err
	}
	if blockSum(&r.head, r.number, payload) != sum {
		return 0, nil, r.corrupt("the checksum of a block does not match", nil)
	}
	r.number++
	r.at += blockHead + int64(n)
	r.left -= blockHead + int64(n)
	return kind, payload, nil
}

func (r *blockReader) read(b []byte) error {
	_, err := io.ReadFull(r.in, b)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return r.corrupt("it became shorter while it was read", nil)
	case err != nil:
		return fmt.Errorf("read %s: %w", r.path, err)
	}
	return nil
}

func (r *blockReader) corrupt(problem string, err error) error {
	return &CorruptError{File: r.path, Offset: r.at, Problem: problem, Fix: r.fix, Err: err}
}

package state

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// The file of what the runs left: a mark, data blocks, and one block that ends it.
//
// A data block is the number of its records, the last key, and a zstd frame of the
// records, which were written by one [wire.Encoder]. So it can be carried over
// without being unpacked when nothing in it changes.
const (
	pastMark  = "fdpast1\n"
	blockData = 'd'
	blockEnd  = 'e'
	endSize   = blockHead + 8 // the number of records
)

// A block is written when it holds this much, so that a reader needs little memory.
const blockBytes = 512 << 10

// pastWriter writes such a file, in the order of the keys. It is used by one
// goroutine.
type pastWriter struct {
	out    *bufio.Writer
	blocks blockWriter
	// most is how many records are in a block at most.
	most  int
	pack  *zstd.Encoder
	enc   wire.Encoder
	raw   []byte
	buf   []byte
	count int
	last  string
	total uint64
}

func newPastWriter(w io.Writer, most int) (*pastWriter, error) {
	p := &pastWriter{out: bufio.NewWriterSize(w, 256<<10), most: most}
	p.blocks.w = p.out
	var err error
	if p.pack, err = newPacker(); err != nil {
		return nil, err
	}
	_, err = p.out.WriteString(pastMark)
	return p, err
}

// newPacker packs blocks at once, without goroutines. Blocks have a checksum of
// their own.
func newPacker() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(blockBytes))
}

func newUnpacker() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxBlock))
}

// add writes one record. Its key is behind that of the one before.
func (w *pastWriter) add(p *plan.Past) error {
	if w.total > 0 && p.Key <= w.last {
		return fmt.Errorf("write the state: key %q comes behind %q: this is a mistake in the program", p.Key, w.last)
	}
	w.raw = w.enc.AppendPast(w.raw, *p)
	w.last = p.Key
	w.count++
	w.total++
	if w.count >= w.most || len(w.raw) >= blockBytes {
		return w.flush()
	}
	return nil
}

// carry takes over a block of another file, whose records are behind those that
// were written, unless small blocks would come of it.
func (w *pastWriter) carry(b *dataBlock) (bool, error) {
	small := b.count < w.most/4 && len(b.payload) < blockBytes/4
	if small || w.count > 0 && !w.full() {
		return false, nil
	}
	if err := w.flush(); err != nil {
		return false, err
	}
	w.last = b.last
	w.total += uint64(b.count)
	return true, w.blocks.write(blockData, b.payload)
}

// endBlock ends the block at hand if it is large enough.
func (w *pastWriter) endBlock() error {
	if !w.full() {
		return nil
	}
	return w.flush()
}

// full reports whether the block at hand is large enough to end where a block of
// the file before ended, so that those behind it can be carried over.
func (w *pastWriter) full() bool { return w.count >= w.most/4 || len(w.raw) >= blockBytes/4 }

func (w *pastWriter) flush() error {
	if w.count == 0 {
		return nil
	}
	w.buf = binary.AppendUvarint(w.buf[:0], uint64(w.count))
	w.buf = binary.AppendUvarint(w.buf, uint64(len(w.last)))
	w.buf = append(w.buf, w.last...)
	w.buf = w.pack.EncodeAll(w.raw, w.buf)
	w.enc, w.raw, w.count = wire.Encoder{}, w.raw[:0], 0
	return w.blocks.write(blockData, w.buf)
}

// end writes what is left.
func (w *pastWriter) end() error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.blocks.write(blockEnd, binary.LittleEndian.AppendUint64(nil, w.total)); err != nil {
		return err
	}
	return w.out.Flush()
}

// dataBlock is a block that was read and not unpacked.
type dataBlock struct {
	count int
	last  string
	// frame is the records, packed, and payload all of the block.
	frame, payload []byte
}

// pastReader reads such a file. It is used by one goroutine.
type pastReader struct {
	f      *os.File
	blocks *blockReader
	unpack *zstd.Decoder
	buf    []byte
	block  dataBlock
	// rest is what is left of the block at hand, of which left records.
	dec   wire.Decoder
	rest  []byte
	left  int
	last  string
	total uint64
}

// openPast opens the file and sees whether it has its beginning and its end. It is
// an error of the kind [os.ErrNotExist] where there is none.
func openPast(path string) (*pastReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	r := &pastReader{f: f}
	if err := r.start(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

func (r *pastReader) start(path string) error {
	info, err := r.f.Stat()
	if err != nil {
		return fmt.Errorf("open the state: %w", err)
	}
	size := info.Size()
	if size < int64(len(pastMark))+endSize {
		return corrupt(path, size, "it is cut off", nil)
	}
	mark, end := make([]byte, len(pastMark)), make([]byte, blockHead)
	if err := errors.Join(readAt(r.f, mark, 0), readAt(r.f, end, size-endSize)); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if string(mark) != pastMark {
		return corrupt(path, 0, "it is no state, or one of another version", nil)
	}
	if end[0] != blockEnd || !bytes.Equal(end[1:5], []byte{8, 0, 0, 0}) {
		return corrupt(path, size, "its end is missing", nil)
	}
	r.blocks = newBlockReader(r.f, path, int64(len(pastMark)), size-int64(len(pastMark)))
	r.blocks.fix = fixFor(path)
	r.unpack, err = newUnpacker()
	return err
}

func readAt(f io.ReaderAt, b []byte, at int64) error {
	_, err := f.ReadAt(b, at)
	return err
}

func (r *pastReader) close() error {
	r.unpack.Close()
	return r.f.Close()
}

// nextBlock reads the next block, valid until the call after; io.EOF at the end.
// Either open or nothing is done with it.
func (r *pastReader) nextBlock() (*dataBlock, error) {
	at := r.blocks.at
	kind, payload, err := r.blocks.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, corrupt(r.blocks.path, at, "its end is missing", nil)
	case err != nil:
		return nil, err
	case kind == blockEnd:
		return nil, r.atEnd(at, payload)
	case kind != blockData:
		return nil, corrupt(r.blocks.path, at, "a block of an unknown kind", nil)
	}
	count, n := binary.Uvarint(payload)
	length, m := binary.Uvarint(payload[max(n, 0):])
	if n <= 0 || m <= 0 || count == 0 || count > maxBlock || length > uint64(len(payload)-n-m) {
		return nil, corrupt(r.blocks.path, at, "the beginning of a block makes no sense", nil)
	}
	key, frame := payload[n+m:][:length], payload[n+m+int(length):]
	last := string(key)
	if r.total > 0 && last <= r.block.last {
		return nil, corrupt(r.blocks.path, at, "the blocks are not sorted by key", nil)
	}
	r.last = r.block.last
	r.block = dataBlock{count: int(count), last: last, frame: frame, payload: payload}
	r.total += count
	return &r.block, nil
}

func (r *pastReader) atEnd(at int64, payload []byte) error {
	if len(payload) != 8 || binary.LittleEndian.Uint64(payload) != r.total {
		return corrupt(r.blocks.path, at, "it does not hold as many records as were written", nil)
	}
	if r.blocks.left > 0 {
		return corrupt(r.blocks.path, r.blocks.at, "something follows its end", nil)
	}
	return io.EOF
}

// open unpacks the block that was read last.
func (r *pastReader) open() (err error) {
	if r.buf, err = r.unpack.DecodeAll(r.block.frame, r.buf[:0]); err != nil {
		return r.blocks.corrupt("the block before cannot be unpacked", err)
	}
	r.dec, r.rest, r.left = wire.Decoder{}, r.buf, r.block.count
	return nil
}

// next reads the next record of the block that was opened into p; false at its end.
func (r *pastReader) next(p *plan.Past) (ok bool, err error) {
	if r.left == 0 {
		if len(r.rest) > 0 || r.last != r.block.last {
			err = r.blocks.corrupt("the block before holds other records than it says", nil)
		}
		return false, err
	}
	if r.rest, err = r.dec.PastInto(p, r.rest); err != nil {
		return false, r.blocks.corrupt("a record in the block before", err)
	}
	if p.Key <= r.last {
		return false, r.blocks.corrupt("the records in the block before are not sorted by key", nil)
	}
	r.last = p.Key
	r.left--
	return true, nil
}

// each gives every record to yield, valid until that returns, until it says false.
func (r *pastReader) each(yield func(*plan.Past) bool) error {
	var p plan.Past
	for {
		if _, err := r.nextBlock(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		if err := r.open(); err != nil {
			return err
		}
		for {
			ok, err := r.next(&p)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if !yield(&p) {
				return nil
			}
		}
	}
}

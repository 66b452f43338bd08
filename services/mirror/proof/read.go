package proof

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// Reader reads a manifest from beginning to end and verifies all of it. It is
// used by one goroutine, once.
type Reader struct {
	in   io.Reader
	root Root
	done bool
	used bool
}

// NewReader reads a manifest from r, which stays the caller's to close.
func NewReader(r io.Reader) *Reader { return &Reader{in: r} }

// Root is the manifest's root, once Entries has come to its end without an error.
func (r *Reader) Root() (root Root, ok bool) { return r.root, r.done }

// Entries yields the entries in the order of their keys. They are handed out
// before the end of their shard has been verified: what must not act on an altered
// entry waits for the end. An error, a [*CorruptError] or that of the reader below,
// ends the sequence.
func (r *Reader) Entries() iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		if r.used {
			yield(entry.Entry{}, errors.New("read manifest: it was read already; open it again"))
			return
		}
		r.used = true
		dec, err := newDecoder()
		if err != nil {
			yield(entry.Entry{}, err)
			return
		}
		defer dec.Close()
		if err := dec.Reset(r.in); err != nil {
			yield(entry.Entry{}, corrupt(-1, 0, "not zstd", err))
			return
		}
		s := newScan(dec)
		if err := r.read(s, yield); err != nil && !errors.Is(err, errStopped) {
			yield(entry.Entry{}, err)
		}
	}
}

// errStopped unwinds when the consumer breaks off.
var errStopped = errors.New("stopped")

// maxWindow is the largest window that a reader takes memory for: that of zstd's
// own default limit, in case somebody compressed a manifest again.
const maxWindow = 8 << 20

func newDecoder() (*zstd.Decoder, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return dec, nil
}

func corrupt(shard, line int64, problem string, err error) error {
	return &CorruptError{Shard: shard, Line: line, Problem: problem, Err: err}
}

func (r *Reader) read(s *scan, yield func(entry.Entry, error) bool) error {
	raw, err := s.next()
	if err != nil {
		return err
	}
	if !bytes.Equal(raw, mustLine(headerLine{format})) {
		return corrupt(-1, 1, fmt.Sprintf("not a manifest of the format %s", format), nil)
	}
	var index []shardInfo
	for {
		raw, err := s.next()
		switch {
		case err != nil:
			return err
		case bytes.HasPrefix(raw, []byte(`{"key":`)):
			e, err := s.entry(raw)
			if err != nil {
				return err
			}
			if !yield(e, nil) {
				return errStopped
			}
		case bytes.HasPrefix(raw, []byte(`{"shard":`)):
			info, err := s.seal(raw)
			if err != nil {
				return err
			}
			index = append(index, info)
		default:
			r.root, err = s.end(raw, index)
			r.done = err == nil
			return err
		}
	}
}

// mustLine is a line that is no entry. None of their types can fail to marshal,
// and what would is equal to no line.
func mustLine(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return raw
}

// scan is the state of reading shard after shard.
type scan struct {
	in     *bufio.Reader
	long   []byte
	number int64 // of the shard at hand
	line   int64 // in it
	lines  merkle
	first  string
	last   string
	any    bool // a key was read
	total  Root
	shards merkle
	leaves []Hash // of the lines of the shard at hand, where keep is set
	keep   bool
}

func newScan(r io.Reader) *scan { return &scan{in: bufio.NewReaderSize(r, 64<<10)} }

// next is the next line without its line feed. It is valid until the next call.
func (s *scan) next() ([]byte, error) {
	s.long = s.long[:0]
	for {
		part, err := s.in.ReadSlice('\n')
		switch {
		case err == nil && len(s.long) == 0:
			return part[:len(part)-1], nil
		case err == nil:
			s.long = append(s.long, part...)
			return s.long[:len(s.long)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, corrupt(s.number, s.line+1, "the line cannot be read", err)
		case len(s.long)+len(part) > maxLine:
			return nil, corrupt(s.number, s.line+1, fmt.Sprintf("the line has more than %d bytes", maxLine), nil)
		}
		s.long = append(s.long, part...)
	}
}

// entry reads a line that is one.
func (s *scan) entry(raw []byte) (entry.Entry, error) {
	s.line++
	e, err := parseLine(raw)
	if err != nil {
		return e, corrupt(s.number, s.line, "not an entry", err)
	}
	key := e.Key()
	if s.any && key <= s.last {
		return e, corrupt(s.number, s.line, fmt.Sprintf("the key %q does not come behind %q", key, s.last), nil)
	}
	if starts := startsShard(key); s.any && starts != (s.line == 1) {
		return e, corrupt(s.number, s.line, "a shard begins at another key", nil)
	}
	if s.line == 1 {
		s.first = key
	}
	s.any, s.last = true, key
	leaf := Hash(blake3.Sum256(append([]byte{0x00}, raw...)))
	s.lines.add(leaf)
	if s.keep {
		s.leaves = append(s.leaves, leaf)
	}
	s.total.Entries++
	s.total.Bytes += e.Size
	return e, nil
}

// seal reads the line that ends a shard, and goes on to the next.
func (s *scan) seal(raw []byte) (shardInfo, error) {
	info := shardInfo{Number: s.number, Entries: s.line, Hash: shardHash(s.line, s.lines.hash())}
	if s.line == 0 {
		return info, corrupt(s.number, 0, "the shard is empty", nil)
	}
	if !bytes.Equal(raw, mustLine(sealLine{info})) {
		return info, corrupt(s.number, 0, "the lines are not those that the shard was sealed with", nil)
	}
	first := s.first
	info.First = &first
	s.shards.add(info.Hash)
	s.total.Shards++
	s.number++
	s.line = 0
	s.lines.reset()
	return info, nil
}

// end reads the index, whose first line is at hand, and the root.
func (s *scan) end(raw []byte, index []shardInfo) (Root, error) {
	if s.line > 0 {
		return Root{}, corrupt(s.number, s.line+1, "the shard is not sealed", nil)
	}
	for i, want := range index {
		var got indexLine
		err := json.Unmarshal(raw, &got)
		want.At, want.Length = got.Index.At, got.Index.Length
		if err != nil || !bytes.Equal(raw, mustLine(indexLine{want})) {
			return Root{}, corrupt(-1, int64(i+1), "the index does not fit the shards", err)
		}
		if raw, err = s.next(); err != nil {
			return Root{}, err
		}
	}
	root := s.total.seal(s.shards.hash())
	if !bytes.Equal(raw, mustLine(rootLine{root})) {
		return Root{}, corrupt(-1, int64(len(index)+1), "the root does not fit the shards", nil)
	}
	if _, err := s.in.ReadByte(); !errors.Is(err, io.EOF) {
		return Root{}, corrupt(-1, int64(len(index)+2), "something follows the root", err)
	}
	return root, nil
}

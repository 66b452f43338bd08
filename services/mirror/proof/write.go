package proof

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// ErrOrder means that entries do not come sorted by key, each key once.
var ErrOrder = errors.New("the entries are not sorted by key")

// windowSize is that of the zstd frames, and with it most of a reader's memory.
const windowSize = 1 << 20

// shardInfo is what the index says of a shard, and the line that seals it.
type shardInfo struct {
	Number  int64 `json:"number"`
	Entries int64 `json:"entries"`
	Hash    Hash  `json:"hash"`
	// First is the first key; in the index only, as what follows.
	First *string `json:"first,omitempty"`
	// At and Length are the place of the shard's frame in the file, in bytes.
	At     int64 `json:"at,omitempty"`
	Length int64 `json:"length,omitempty"`
}

// The lines that are no entries: each is an object with one field.
type (
	headerLine struct {
		Manifest string `json:"manifest"`
	}
	sealLine struct {
		Shard shardInfo `json:"shard"`
	}
	indexLine struct {
		Index shardInfo `json:"index"`
	}
	rootLine struct {
		Root Root `json:"root"`
	}
)

// The trailer is a skippable frame: magic number, length of what follows, the
// offset of the index, and a mark; all numbers little endian.
const (
	trailerMagic = 0x184d2a5d
	trailerMark  = "fdmanif1"
	trailerSize  = 4 + 4 + 8 + len(trailerMark)
)

// Writer writes a manifest, entry by entry. It keeps one hash for each shard in
// memory, with its first key. It is used by one goroutine, and packs beside it what that
// has written: whoever does not Close it has to Abandon it, or something may be written yet.
type Writer struct {
	out    counter
	enc    *zstd.Encoder
	header int64 // where the header ends
	index  []shardInfo
	shard  merkle
	first  string
	root   Root
	shards merkle
	last   string
	buf    []byte
	err    error
}

// counter counts what it writes.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// NewWriter begins a manifest. What it is written to stays the caller's to close;
// nothing is written to it after Close or Abandon.
func NewWriter(w io.Writer) (*Writer, error) {
	m := &Writer{out: counter{w: w}}
	var err error
	// Most of it is hashes, which nothing packs: trying harder makes it no smaller. It takes
	// as long as hashing, which goes on meanwhile.
	m.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(windowSize), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	m.enc.Reset(&m.out)
	m.json(headerLine{format})
	m.endFrame()
	m.header = m.out.n
	return m, m.err
}

// Add writes an entry, whose key must be behind that of the one before. After an
// error the manifest cannot be finished.
func (m *Writer) Add(e entry.Entry) error {
	if m.err != nil {
		return m.err
	}
	key := e.Key()
	if m.root.Entries > 0 && key <= m.last {
		m.err = fmt.Errorf("write manifest: %w: %q behind %q", ErrOrder, key, m.last)
		return m.err
	}
	if m.shard.leaves > 0 && startsShard(key) {
		m.endShard()
	}
	if m.shard.leaves == 0 {
		m.first = key
	}
	m.buf = append(m.buf[:0], 0x00)
	if m.buf, m.err = appendLine(m.buf, e); m.err != nil {
		return fmt.Errorf("write manifest: %w", m.err)
	}
	if len(m.buf) > maxLine {
		m.err = fmt.Errorf("write manifest: %w: %q: its line has %d bytes, and at most %d are read", ErrEntry, key, len(m.buf), maxLine)
		return m.err
	}
	m.shard.add(blake3.Sum256(m.buf))
	m.last = key
	m.root.Entries++
	m.root.Bytes += e.Size
	m.write(append(m.buf[1:], '\n'))
	return m.err
}

func (m *Writer) write(p []byte) {
	if m.err == nil {
		if _, err := m.enc.Write(p); err != nil {
			m.err = fmt.Errorf("write manifest: %w", err)
		}
	}
}

func (m *Writer) json(v any) {
	raw, err := json.Marshal(v)
	if err != nil && m.err == nil {
		m.err = fmt.Errorf("write manifest: %w", err)
	}
	m.write(append(raw, '\n'))
}

func (m *Writer) endFrame() {
	if err := m.enc.Close(); err != nil && m.err == nil {
		m.err = fmt.Errorf("write manifest: %w", err)
	}
	m.enc.Reset(&m.out)
}

func (m *Writer) endShard() {
	if m.shard.leaves == 0 {
		return
	}
	at := m.start()
	info := shardInfo{Number: m.root.Shards, Entries: m.shard.leaves, Hash: shardHash(m.shard.leaves, m.shard.hash())}
	m.json(sealLine{info})
	m.endFrame()
	first := m.first
	info.First, info.At, info.Length = &first, at, m.out.n-at
	m.index = append(m.index, info)
	m.shards.add(info.Hash)
	m.root.Shards++
	m.shard.reset()
}

// start is where the frame at hand begins: the frames before it are written out.
func (m *Writer) start() int64 {
	if n := len(m.index); n > 0 {
		return m.index[n-1].At + m.index[n-1].Length
	}
	return m.header
}

// Close ends the manifest and gives its root. One that cannot be ended is abandoned.
func (m *Writer) Close() (Root, error) {
	if m.err != nil {
		m.Abandon()
		return Root{}, m.err
	}
	m.endShard()
	at := m.start()
	for _, info := range m.index {
		m.json(indexLine{info})
	}
	root := m.root.seal(m.shards.hash())
	m.json(rootLine{root})
	m.endFrame()
	trailer := binary.LittleEndian.AppendUint32(nil, trailerMagic)
	trailer = binary.LittleEndian.AppendUint32(trailer, uint32(trailerSize-8))
	trailer = binary.LittleEndian.AppendUint64(trailer, uint64(at))
	trailer = append(trailer, trailerMark...)
	if m.err == nil {
		if _, err := m.out.Write(trailer); err != nil {
			m.err = fmt.Errorf("write manifest: %w", err)
		}
	}
	if m.err != nil {
		m.Abandon()
		return Root{}, m.err
	}
	m.err = errClosed
	return root, nil
}

// Abandon gives the manifest up: nothing is written any more when it returns. After Close
// it does nothing.
func (m *Writer) Abandon() {
	if m.err == nil {
		m.err = errClosed
	}
	m.enc.Reset(nil) // which waits for what is being packed and written
}

var errClosed = errors.New("the manifest is closed")

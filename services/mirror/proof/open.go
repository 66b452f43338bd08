package proof

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// ErrNoEntry means that the manifest has no entry of the key.
var ErrNoEntry = errors.New("the manifest has no such entry")

// Manifest is a manifest of which only those shards are read that are needed. It
// is immutable and safe for concurrent use if the reader below is.
type Manifest struct {
	in     io.ReaderAt
	root   Root
	shards []shardInfo
}

// Open reads the index of a manifest of size bytes and verifies that it leads to
// the root that the manifest states. Whether that is the right root is for the
// caller to know, by a signature for instance.
func Open(r io.ReaderAt, size int64) (*Manifest, error) {
	at, err := readTrailer(r, size)
	if err != nil {
		return nil, err
	}
	dec, err := newDecoder()
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	if err := dec.Reset(io.NewSectionReader(r, at, size-at)); err != nil {
		return nil, corrupt(-1, 0, "the index is not zstd", err)
	}
	m := &Manifest{in: r}
	s := newScan(dec)
	for n := int64(1); ; n++ {
		raw, err := s.next()
		if err != nil {
			return nil, corrupt(-1, n, "the index cannot be read", err)
		}
		if !bytes.HasPrefix(raw, []byte(`{"index":`)) {
			if err := m.setRoot(s, raw, n); err != nil {
				return nil, err
			}
			return m, nil
		}
		var l indexLine
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, corrupt(-1, n, "not a line of an index", err)
		}
		if err := m.addShard(l.Index, at); err != nil {
			return nil, corrupt(-1, n, "the index contradicts itself", err)
		}
		s.shards.add(l.Index.Hash)
	}
}

func readTrailer(r io.ReaderAt, size int64) (index int64, err error) {
	var b [trailerSize]byte
	if size < int64(len(b)) {
		return 0, corrupt(-1, 0, fmt.Sprintf("%d bytes are no manifest", size), nil)
	}
	if _, err := r.ReadAt(b[:], size-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read manifest: trailer: %w", err)
	}
	if binary.LittleEndian.Uint32(b[:]) != trailerMagic || binary.LittleEndian.Uint32(b[4:]) != uint32(trailerSize-8) || string(b[16:]) != trailerMark {
		return 0, corrupt(-1, 0, "there is no trailer: the manifest is cut off, or none", nil)
	}
	at := binary.LittleEndian.Uint64(b[8:])
	if at >= uint64(size)-uint64(len(b)) {
		return 0, corrupt(-1, 0, "the trailer names a place outside of the manifest", nil)
	}
	return int64(at), nil
}

func (m *Manifest) addShard(info shardInfo, end int64) error {
	low := int64(0)
	if n := len(m.shards); n > 0 {
		last := m.shards[n-1]
		if low = last.At + last.Length; info.First != nil && *info.First <= *last.First {
			return fmt.Errorf("%w: shard %d", ErrOrder, info.Number)
		}
	}
	switch {
	case info.First == nil || info.Number != int64(len(m.shards)) || info.Entries < 1:
		return fmt.Errorf("not shard %d", len(m.shards))
	case info.Number > 0 && !startsShard(*info.First):
		return fmt.Errorf("no shard begins at %q", *info.First)
	case info.At < low || info.Length < 1 || info.Length > end-info.At:
		return fmt.Errorf("shard %d lies in another's place, or outside of the file", info.Number)
	}
	m.shards = append(m.shards, info)
	m.root.Entries += info.Entries
	m.root.Shards++
	return nil
}

func (m *Manifest) setRoot(s *scan, raw []byte, n int64) error {
	var stated rootLine
	if err := json.Unmarshal(raw, &stated); err != nil {
		return corrupt(-1, n, "not the line of a root", err)
	}
	m.root.Bytes = stated.Root.Bytes // which the hash covers
	m.root = m.root.seal(s.shards.hash())
	if !bytes.Equal(raw, mustLine(rootLine{m.root})) {
		return corrupt(-1, n, "the root does not fit the index", nil)
	}
	if _, err := s.in.ReadByte(); !errors.Is(err, io.EOF) {
		return corrupt(-1, n, "something follows the root", err)
	}
	return nil
}

// Root is what stands for the whole manifest.
func (m *Manifest) Root() Root { return m.root }

// Entries yields all entries. An error ends the sequence.
func (m *Manifest) Entries() iter.Seq2[entry.Entry, error] { return m.from(0, len(m.shards)) }

// from yields the entries of the shards from i up to, and without, end.
func (m *Manifest) from(i, end int) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		dec, err := newDecoder()
		if err != nil {
			yield(entry.Entry{}, err)
			return
		}
		defer dec.Close()
		for n := i; n < end; n++ {
			_, err := m.readShard(dec, n, false, func(e entry.Entry, _ []byte) bool { return yield(e, nil) })
			if errors.Is(err, errStopped) {
				return
			}
			if err != nil {
				yield(entry.Entry{}, err)
				return
			}
		}
	}
}

// readShard reads one shard, hands out its entries with their lines, and verifies
// it against the index. With keep it gives the hashes of the lines.
func (m *Manifest) readShard(dec *zstd.Decoder, i int, keep bool, yield func(entry.Entry, []byte) bool) ([]Hash, error) {
	info := m.shards[i]
	if err := dec.Reset(io.NewSectionReader(m.in, info.At, info.Length)); err != nil {
		return nil, corrupt(info.Number, 0, "not zstd", err)
	}
	s := newScan(dec)
	s.number, s.keep = info.Number, keep
	for {
		raw, err := s.next()
		if err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(raw, []byte(`{"key":`)) {
			got, err := s.seal(raw)
			if err == nil && (got.Hash != info.Hash || *got.First != *info.First) {
				err = corrupt(info.Number, 0, "it is not the shard of the index", nil)
			}
			if _, end := s.in.ReadByte(); err == nil && !errors.Is(end, io.EOF) {
				err = corrupt(info.Number, 0, "something follows its seal", end)
			}
			return s.leaves, err
		}
		e, err := s.entry(raw)
		if err != nil {
			return nil, err
		}
		if !yield(e, raw) {
			return nil, errStopped
		}
	}
}

// find is the shard in which the key would lie.
func (m *Manifest) find(key string) (int, bool) {
	i, exact := slices.BinarySearchFunc(m.shards, key, func(s shardInfo, key string) int { return strings.Compare(*s.First, key) })
	if !exact {
		i--
	}
	return i, i >= 0
}

// Inclusion proves, to whoever trusts a root, that its manifest has a line. It
// needs nothing else of the manifest.
type Inclusion struct {
	// Line is the entry's canonical line.
	Line string `json:"line"`
	// Index is the line's number in its shard, from 0, of Lines.
	Index int64 `json:"index"`
	Lines int64 `json:"lines"`
	// InShard are the hashes beside the way from the line to the shard's tree.
	InShard []Hash `json:"in_shard"`
	// Shard is the shard's number, from 0.
	Shard int64 `json:"shard"`
	// InRoot are the hashes beside the way from the shard to the tree of shards.
	InRoot []Hash `json:"in_root"`
}

// Prove proves that the manifest has an entry of the key, reading one shard. The
// error is ErrNoEntry where it has none.
func (m *Manifest) Prove(key string) (Inclusion, error) {
	i, ok := m.find(key)
	if !ok {
		return Inclusion{}, fmt.Errorf("prove %q: %w", key, ErrNoEntry)
	}
	dec, err := newDecoder()
	if err != nil {
		return Inclusion{}, err
	}
	defer dec.Close()
	p := Inclusion{Index: -1, Shard: int64(i), Lines: m.shards[i].Entries}
	n := int64(0)
	leaves, err := m.readShard(dec, i, true, func(e entry.Entry, raw []byte) bool {
		if e.Key() == key {
			p.Line, p.Index = string(raw), n
		}
		n++
		return true
	})
	switch {
	case err != nil:
		return Inclusion{}, err
	case p.Index < 0:
		return Inclusion{}, fmt.Errorf("prove %q: %w", key, ErrNoEntry)
	}
	p.InShard = path(leaves, int(p.Index))
	hashes := make([]Hash, len(m.shards))
	for j, s := range m.shards {
		hashes[j] = s.Hash
	}
	p.InRoot = path(hashes, i)
	return p, nil
}

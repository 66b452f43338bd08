package zfs

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// Changes is what a stream between two snapshots of a file system says of its
// objects. An object's number is the inode of its file or directory, but for the
// root directory of a mount that numbers its root itself, as FUSE does.
type Changes struct {
	// From and To are the guids of the snapshots; From is 0 for a whole stream.
	From, To uint64
	// Files had some of their content written; Dirs had entries added or removed.
	// Both are sorted.
	Files, Dirs []uint64
	// Touched are other files, links and directories that may have changed: in their
	// attributes, by being cut short, or not at all, as ZFS sends all that lies next
	// to what changed. Their attributes say. Sorted.
	Touched []uint64
	// Holes say of the files among Touched from which byte on, at the lowest, they hold
	// nothing that was ever written: most at their end, where nothing is. Sorted.
	Holes []Hole
	// Gone are the objects that are not there, sorted; most never were.
	Gone []Range
}

// Hole is where a file begins to have no content: at the byte From.
type Hole struct{ Object, From uint64 }

// MayDiffer reports whether a file that is there in both snapshots, with the same size,
// may hold other content in the later one, whatever its times say.
func (c *Changes) MayDiffer(inode uint64, size int64) bool {
	if _, written := slices.BinarySearch(c.Files, inode); written {
		return true
	}
	at, ok := slices.BinarySearchFunc(c.Holes, inode, func(h Hole, inode uint64) int { return cmp.Compare(h.Object, inode) })
	return ok && int64(c.Holes[at].From) < size
}

// Range is the numbers from First to Last, both included.
type Range struct{ First, Last uint64 }

// Changes finds what changed in a dataset between two of its snapshots by reading
// the stream between them, which ZFS makes from what changed alone. It has to read
// what was written, but none of what was not; the error wraps ErrTooMuch where the stream
// has more than so many bytes.
func (h *Host) Changes(ctx context.Context, from, to Snapshot, most int64) (Changes, error) {
	sending, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	var sender sync.WaitGroup
	var sent error
	sender.Go(func() {
		sent = h.run(sending, nil, w, sendArgv(&from, to)...)
		_ = w.CloseWithError(sent)
	})
	c, err := ParseChanges(&limited{r, most})
	if err == nil {
		// There is nothing more, but the command wants to end by itself.
		_, err = io.Copy(io.Discard, r)
	}
	if err != nil {
		cancel(errReceiverEnded)
	}
	_ = r.CloseWithError(errReceiverEnded)
	sender.Wait()
	if sent != nil && !errors.Is(sent, errReceiverEnded) {
		err = sent
	}
	if err == nil && (c.From != from.GUID || c.To != to.GUID) {
		err = fmt.Errorf("%w: the stream is from guid %d to %d", ErrCorrupt, c.From, c.To)
	}
	if err != nil {
		return Changes{}, fmt.Errorf("find what changed from %s to %s: %w", from, to, err)
	}
	return c, nil
}

// limited is what may be read of a stream.
type limited struct {
	from io.Reader
	left int64
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, ErrTooMuch
	}
	n, err := l.from.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// What a stream's records are, in the ABI of zfs send: a type, the length of what
// follows, and 304 bytes of which each type uses some.
const (
	recordSize = 312

	recordBegin         = 0
	recordObject        = 1
	recordFreeObjects   = 2
	recordWrite         = 3
	recordFree          = 4
	recordEnd           = 5
	recordWriteByRef    = 6
	recordSpill         = 7
	recordWriteEmbedded = 8

	beginMagic = 0x2F5bacbac
	// subStream is the kind of a stream of one snapshot.
	subStream = 1
	// The types of objects that have an inode's content.
	plainFile, directory = 19, 20
)

// ParseChanges reads a stream of zfs send, without -R, -I, -w or -D, up to its last
// record. The error wraps ErrCorrupt where it breaks off or makes no sense, and
// ErrUnsupported where it holds what is not known.
func ParseChanges(stream io.Reader) (Changes, error) {
	p := parser{in: bufio.NewReaderSize(stream, 256<<10), types: map[uint64]uint32{}, written: map[uint64]bool{}, holes: map[uint64]uint64{}}
	for {
		more, err := p.record()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: the stream breaks off in record %d: %w", ErrCorrupt, p.count, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return Changes{}, err
		}
		if !more {
			return p.changes(), nil
		}
	}
}

// parser collects what records say.
type parser struct {
	in    *bufio.Reader
	order binary.ByteOrder
	raw   [recordSize]byte
	count int64

	from, to uint64
	// types are those of the objects with inodes.
	types   map[uint64]uint32
	written map[uint64]bool
	// holes are where objects first have no content.
	holes map[uint64]uint64
	gone  []Range
}

func (p *parser) u32(at int) uint32 { return p.order.Uint32(p.raw[at:]) }
func (p *parser) u64(at int) uint64 { return p.order.Uint64(p.raw[at:]) }

// record reads one record with what follows it. more is false after the last.
func (p *parser) record() (more bool, err error) {
	if _, err := io.ReadFull(p.in, p.raw[:]); err != nil {
		return false, err
	}
	p.count++
	if p.count == 1 {
		return true, p.begin()
	}
	object := p.u64(8)
	switch kind := p.u32(0); kind {
	case recordObject:
		if t := p.u32(16); t == plainFile || t == directory {
			p.types[object] = t
		}
		// Only raw streams, which have payloads of their own, say a length there.
		bonus := uint64(p.u32(28))
		if raw := uint64(p.u32(36)); raw != 0 {
			bonus = raw
		}
		return true, p.skip((bonus + 7) &^ 7)
	case recordFreeObjects:
		if n := p.u64(16); n > 0 {
			last := object + n - 1
			if last < object { // all that could be
				last = ^uint64(0)
			}
			p.gone = append(p.gone, Range{First: object, Last: last})
		}
		return true, nil
	case recordWrite:
		p.written[object] = true
		size := p.u64(32)
		if compressed := p.raw[50]; compressed != 0 {
			size = p.u64(96)
		}
		return true, p.skip(size)
	case recordFree:
		// It comes with each object that has a hole, as with every link, whether that
		// is new or not, and for what lies behind the end of each.
		if from, ok := p.holes[object]; !ok || p.u64(16) < from {
			p.holes[object] = p.u64(16)
		}
		return true, nil
	case recordWriteByRef:
		p.written[object] = true
		return true, nil
	case recordSpill:
		size := p.u64(16)
		if compressed := p.raw[33]; compressed != 0 {
			size = p.u64(40)
		}
		return true, p.skip(size)
	case recordWriteEmbedded:
		p.written[object] = true
		return true, p.skip((uint64(p.u32(52)) + 7) &^ 7)
	case recordEnd:
		if guid := p.u64(40); guid != p.to {
			return false, fmt.Errorf("%w: the stream of guid %d ends with guid %d", ErrCorrupt, p.to, guid)
		}
		return false, nil
	default:
		return false, fmt.Errorf("%w: record %d of the stream has type %d", ErrUnsupported, p.count, kind)
	}
}

// begin reads the first record, which shows the byte order of all.
func (p *parser) begin() error {
	switch {
	case binary.LittleEndian.Uint64(p.raw[8:]) == beginMagic:
		p.order = binary.LittleEndian
	case binary.BigEndian.Uint64(p.raw[8:]) == beginMagic:
		p.order = binary.BigEndian
	default:
		return fmt.Errorf("%w: this is no stream of zfs send", ErrCorrupt)
	}
	if kind := p.u64(16) & 3; p.u32(0) != recordBegin || kind != subStream {
		return fmt.Errorf("%w: it is a stream of several snapshots or datasets (kind %d)", ErrUnsupported, kind)
	}
	p.to, p.from = p.u64(40), p.u64(48)
	return p.skip(uint64(p.u32(4)))
}

func (p *parser) skip(n uint64) error {
	const most = 1 << 30 // no block is larger than 16 MiB
	if n > most {
		return fmt.Errorf("%w: record %d of the stream says that %d bytes follow it", ErrCorrupt, p.count, n)
	}
	_, err := p.in.Discard(int(n))
	return err
}

func (p *parser) changes() Changes {
	c := Changes{From: p.from, To: p.to, Gone: p.gone}
	for _, object := range slices.Sorted(maps.Keys(p.types)) {
		switch {
		case !p.written[object]:
			c.Touched = append(c.Touched, object)
			if from, ok := p.holes[object]; ok && p.types[object] == plainFile {
				c.Holes = append(c.Holes, Hole{object, from})
			}
		case p.types[object] == directory:
			c.Dirs = append(c.Dirs, object)
		default:
			c.Files = append(c.Files, object)
		}
	}
	slices.SortFunc(c.Gone, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	return c
}

package zfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// open gives a point's stream to use, and returns what is wrong with the archive
// before what use makes of it.
func (a *Archive) open(ctx context.Context, p Point, use func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := a.openParts(ctx, p)
	defer parts.close()
	// With a concurrency of 1 it has no goroutines of its own.
	unpacker, err := zstd.NewReader(parts, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("archive of %s: %w", p.Name(), err)
	}
	defer unpacker.Close()
	sealed := newSealedReader(unpacker, p.Stream)
	err = use(sealed)
	switch {
	case parts.err != nil && parts.err != io.EOF:
		return parts.err
	case sealed.err != nil && !errors.Is(sealed.err, io.EOF):
		return fmt.Errorf("archive of %s: %w: %w", p.Name(), ErrCorrupt, sealed.err)
	}
	return err
}

// partReader is the parts of a point one after the other, each verified before its
// first byte is given. The next is fetched while one is used.
type partReader struct {
	ctx     context.Context
	cancel  context.CancelFunc
	fetcher sync.WaitGroup
	used    chan *bytes.Buffer
	ready   chan fetched
	current *bytes.Buffer
	// err is why there is no more; io.EOF after the last part.
	err error
}

type fetched struct {
	part *bytes.Buffer
	err  error
}

func (a *Archive) openParts(ctx context.Context, p Point) *partReader {
	ctx, cancel := context.WithCancel(ctx)
	r := &partReader{ctx: ctx, cancel: cancel, used: make(chan *bytes.Buffer, 2), ready: make(chan fetched), current: new(bytes.Buffer)}
	r.used <- new(bytes.Buffer)
	r.fetcher.Go(func() {
		defer close(r.ready)
		for i := range p.Parts {
			var f fetched
			select {
			case f.part = <-r.used:
			case <-ctx.Done():
				return
			}
			f.err = a.fetch(ctx, p, i, f.part)
			select {
			case r.ready <- f:
			case <-ctx.Done():
				return
			}
			if f.err != nil {
				return
			}
		}
	})
	return r
}

// Read implements io.Reader.
func (r *partReader) Read(p []byte) (int, error) {
	for r.err == nil && r.current.Len() == 0 {
		r.used <- r.current
		f, ok := <-r.ready
		switch {
		case ok:
			r.current, r.err = f.part, f.err
		case r.ctx.Err() != nil:
			r.err = context.Cause(r.ctx)
		default:
			r.err = io.EOF
		}
	}
	if r.err != nil {
		return 0, r.err
	}
	return r.current.Read(p)
}

func (r *partReader) close() {
	r.cancel()
	r.fetcher.Wait()
}

// fetchTries is how often a part is read until its hashes fit: what was damaged or
// broken off on its way is whole the next time.
const fetchTries = 3

// fetch reads a part and verifies it. On error the buffer is empty.
func (a *Archive) fetch(ctx context.Context, p Point, number int, into *bytes.Buffer) error {
	var err error
	for range fetchTries {
		into.Reset()
		if err = a.read(ctx, p.partKey(number), partSize, into); err == nil {
			err = p.Parts[number].verify(into.Bytes())
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || errors.Is(err, bucket.ErrNotFound) {
			break
		}
	}
	into.Reset()
	return partError(p, number, err)
}

func (p Part) verify(content []byte) error {
	if n := int64(len(content)); n != p.Size {
		return fmt.Errorf("%w: it has %d bytes and not %d", ErrCorrupt, n, p.Size)
	}
	if sum := crc32.Checksum(content, castagnoli()); sum != p.CRC32C {
		return fmt.Errorf("%w: its CRC32C is %08x and not %08x", ErrCorrupt, sum, p.CRC32C)
	}
	if sum := Hash(blake3.Sum256(content)); sum != p.BLAKE3 {
		return fmt.Errorf("%w: its BLAKE3 is %s and not %s", ErrCorrupt, sum, p.BLAKE3)
	}
	return nil
}

// sealedReader gives a stream, but for its end only when all of it has the right
// hash: ZFS keeps nothing of a stream that breaks off before its last record.
type sealedReader struct {
	from   io.Reader
	want   Stream
	hash   *blake3.Hasher
	count  int64
	buffer []byte
	// kept is what was read and not given yet, a part of buffer.
	kept []byte
	// err is why there is no more; io.EOF if all is right.
	err error
}

// seal is how much is held back. A stream's last record has 312 bytes.
const seal = 512

func newSealedReader(from io.Reader, want Stream) *sealedReader {
	return &sealedReader{from: from, want: want, hash: blake3.New(), buffer: make([]byte, 256<<10)}
}

// Read implements io.Reader.
func (s *sealedReader) Read(p []byte) (int, error) {
	for {
		free := len(s.kept) - seal
		if s.err == io.EOF {
			free = len(s.kept)
		}
		if free > 0 {
			n := copy(p, s.kept[:free])
			s.kept = s.kept[n:]
			return n, nil
		}
		if s.err != nil {
			return 0, s.err
		}
		s.fill()
	}
}

func (s *sealedReader) fill() {
	n := copy(s.buffer, s.kept)
	m, err := s.from.Read(s.buffer[n:])
	s.kept = s.buffer[:n+m]
	_, _ = s.hash.Write(s.buffer[n : n+m]) // it never fails
	s.count += int64(m)
	switch {
	case s.count > s.want.Bytes:
		s.err = fmt.Errorf("its stream has more than %d bytes", s.want.Bytes)
	case err == io.EOF && s.count < s.want.Bytes:
		s.err = fmt.Errorf("its stream has %d bytes and not %d", s.count, s.want.Bytes)
	case err == io.EOF:
		var sum Hash
		s.hash.Sum(sum[:0])
		if s.err = io.EOF; sum != s.want.BLAKE3 {
			s.err = fmt.Errorf("its stream has the BLAKE3 %s and not %s", sum, s.want.BLAKE3)
		}
	case err != nil:
		s.err = err
	}
}

package state

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// Spill is a [plan.Spill] that keeps any number of actions in a file without a
// name, which goes with the process at the latest. It is used by one goroutine.
type Spill struct {
	f      *os.File
	out    *bufio.Writer
	blocks blockWriter
	pack   *zstd.Encoder
	enc    wire.Encoder
	raw    []byte
	buf    []byte
	sealed bool
	err    error
}

var _ plan.Spill = (*Spill)(nil)

// spillBlock is how many bytes of actions are packed together.
const spillBlock = 256 << 10

// Spill makes an empty spill. The caller closes it.
func (s *Store) Spill() (*Spill, error) {
	if s.closed.Load() {
		return nil, fmt.Errorf("make a spill: %w", ErrClosed)
	}
	f, err := scratch(s.dir, "spill")
	if err != nil {
		return nil, err
	}
	p := &Spill{f: f, out: bufio.NewWriterSize(f, 64<<10)}
	p.blocks.w = p.out
	if p.pack, err = newPacker(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

var errSealed = errors.New("push to the spill: it was read already")

// Push adds an action behind those pushed before. Of its Err only the text is kept.
// After an error nothing more can be pushed.
func (s *Spill) Push(a plan.Action) error {
	switch {
	case s.err != nil:
		return s.err
	case s.sealed:
		return errSealed
	}
	before := len(s.raw)
	s.raw = s.enc.AppendAction(s.raw, a)
	if n := len(s.raw) - before; n > maxRecord {
		s.err = fmt.Errorf("spill the action on %.100q: %w: it has %d bytes, and at most %d are read: remove extended attributes", a.Key, ErrNote, n, maxRecord)
	}
	if s.err == nil && len(s.raw) >= spillBlock {
		s.flush()
	}
	return s.err
}

func (s *Spill) flush() {
	s.buf = s.pack.EncodeAll(s.raw, s.buf[:0])
	s.enc, s.raw = wire.Encoder{}, s.raw[:0]
	if err := s.blocks.write(blockData, s.buf); err != nil {
		s.err = fmt.Errorf("write the spill: %w", err)
	}
}

// All yields the actions in order, any number of times, also several at once. From
// the first iteration on nothing can be pushed.
func (s *Spill) All() iter.Seq2[plan.Action, error] {
	return func(yield func(plan.Action, error) bool) {
		if err := s.each(func(a plan.Action) bool { return yield(a, nil) }); err != nil {
			yield(plan.Action{}, err)
		}
	}
}

// seal writes what is left.
func (s *Spill) seal() error {
	if s.sealed || s.err != nil {
		return s.err
	}
	s.sealed = true
	if len(s.raw) > 0 {
		s.flush()
	}
	if err := s.out.Flush(); err != nil && s.err == nil {
		s.err = fmt.Errorf("write the spill: %w", err)
	}
	s.raw, s.buf, s.pack = nil, nil, nil
	return s.err
}

func (s *Spill) each(yield func(plan.Action) bool) error {
	if err := s.seal(); err != nil {
		return err
	}
	unpack, err := newUnpacker()
	if err != nil {
		return err
	}
	defer unpack.Close()
	blocks := newBlockReader(s.f, s.f.Name(), 0, s.blocks.size)
	var raw []byte
	for {
		_, payload, err := blocks.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if raw, err = unpack.DecodeAll(payload, raw[:0]); err != nil {
			return blocks.corrupt("the block before cannot be unpacked", err)
		}
		var dec wire.Decoder
		for rest := raw; len(rest) > 0; {
			var a plan.Action
			if a, rest, err = dec.ReadAction(rest); err != nil {
				return blocks.corrupt("an action in the block before", err)
			}
			if !yield(a) {
				return nil
			}
		}
	}
}

// Close frees the file. Nothing can be read any more.
func (s *Spill) Close() error { return s.f.Close() }

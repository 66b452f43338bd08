package state

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// Sorted takes any number of records in any order and gives them sorted by key, of equal
// keys the last. It keeps them in bounded memory and in files without a name, which go with
// the process at the latest. It is used by one goroutine.
type Sorted struct {
	sorter sorter
	buf    []byte
}

// Sorted makes an empty one. The caller closes it.
func (s *Store) Sorted() (*Sorted, error) {
	if s.closed.Load() {
		return nil, fmt.Errorf("sort in the state: %w", ErrClosed)
	}
	return &Sorted{sorter: sorter{dir: s.dir, most: s.sizes.sort, fan: s.sizes.fan}}, nil
}

// Add takes one record. The error is ErrNote for what is too large.
func (s *Sorted) Add(p plan.Past) error {
	s.buf = wire.AppendPast(append(s.buf[:0], recordNote), p)
	if len(s.buf) > maxRecord {
		return fmt.Errorf("sort %.100q: %w: it has %d bytes, and at most %d are read: remove extended attributes", p.Key, ErrNote, len(s.buf), maxRecord)
	}
	n, err := parseNote(s.buf)
	if err == nil {
		err = s.sorter.add(n, sortedAtFirst)
	}
	return err
}

// sortedAtFirst is for how many bytes there is memory at first.
const sortedAtFirst = 64 << 10

// All yields what was added, sorted strictly by key, any number of times. An error ends it.
func (s *Sorted) All() iter.Seq2[plan.Past, error] {
	return func(yield func(plan.Past, error) bool) {
		for all := s.sorter.all(); ; {
			n, err := all.next()
			if errors.Is(err, io.EOF) {
				return
			}
			var p plan.Past
			if err == nil {
				p, _, err = wire.ReadPast(n.body[1:])
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// Close frees the files.
func (s *Sorted) Close() error { return s.sorter.close() }

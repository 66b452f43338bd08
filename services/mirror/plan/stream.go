package plan

import (
	"errors"
	"fmt"
	"iter"
)

// ErrOrder means that a stream is not sorted by key. Nothing can be planned from
// it: what comes too late would have been taken for missing.
var ErrOrder = errors.New("the stream is not sorted by key")

// StreamError says what went wrong in which stream.
type StreamError struct {
	// Stream is "source", "destination" or "last run".
	Stream string
	// After is the last key before the error; "" at the beginning.
	After string
	Err   error
}

// Error describes the fault.
func (e *StreamError) Error() string {
	return fmt.Sprintf("read the %s after key %q: %v", e.Stream, e.After, e.Err)
}

// Unwrap returns the cause.
func (e *StreamError) Unwrap() error { return e.Err }

// stream is one of the plan's inputs with its next element at hand.
type stream[T any] struct {
	name string
	key  func(*T) string
	// skip reports what takes no part.
	skip func(*T) bool
	// again is told of an element whose key is that of the one before.
	again func(*T, string)
	// fault is told of errors that do not end the stream.
	fault func(error)

	pull func() ([]element[T], bool)
	stop func()
	// batch is what was pulled and not yet moved on to.
	batch []element[T]

	// head is valid until the stream moves on.
	head    *T
	headKey string
	last    string
	began   bool
	ended   bool
	failed  bool
}

// element is what a stream gives at once.
type element[T any] struct {
	value T
	err   error
}

// mostAtOnce is how many elements are pulled together: to pull each alone, and to hand
// it on as often as that takes, would cost as much as deciding about it.
const mostAtOnce = 128

// batches gives what seq gives, several at a time, each batch valid until the next is
// asked for. The first are small, so that work begins before much was read.
func batches[T any](seq iter.Seq2[T, error]) iter.Seq[[]element[T]] {
	return func(yield func([]element[T]) bool) {
		var batch []element[T]
		most := 1
		for value, err := range seq {
			if batch = append(batch, element[T]{value, err}); len(batch) < most {
				continue
			}
			if !yield(batch) {
				return
			}
			batch, most = batch[:0], min(2*most, mostAtOnce)
		}
		if len(batch) > 0 {
			yield(batch)
		}
	}
}

func (s *stream[T]) open(seq iter.Seq2[T, error]) {
	if seq == nil {
		s.ended = true
		s.stop = func() {}
		return
	}
	s.pull, s.stop = iter.Pull(batches(seq))
}

// next gives the next element, valid until the call after; false at the end.
func (s *stream[T]) next() (*element[T], bool) {
	if len(s.batch) == 0 {
		batch, ok := s.pull()
		if !ok {
			return nil, false
		}
		s.batch = batch
	}
	e := &s.batch[0]
	s.batch = s.batch[1:]
	return e, true
}

// advance moves to the next element. Its error is fatal.
func (s *stream[T]) advance() error {
	for !s.ended {
		got, ok := s.next()
		if !ok {
			s.head, s.headKey, s.ended = nil, "", true
			return nil
		}
		e := &got.value
		switch {
		case got.err != nil:
			s.failed = true
			s.fault(&StreamError{s.name, s.last, got.err})
			continue
		case s.skip(e):
			continue
		}
		key := s.key(e)
		switch {
		case s.began && key == s.last:
			s.again(e, key)
			continue
		case s.began && key < s.last:
			return &StreamError{s.name, s.last, fmt.Errorf("%w: %q follows", ErrOrder, key)}
		}
		s.head, s.headKey, s.last, s.began = e, key, key, true
		return nil
	}
	return nil
}

// take gives the head if it has the key, and moves on.
func (s *stream[T]) take(key string) (e T, err error) {
	if s.ended || s.headKey != key {
		return e, nil
	}
	e = *s.head
	return e, s.advance()
}

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
	key  func(T) string
	// skip reports what takes no part.
	skip func(T) bool
	// again is told of an element whose key is that of the one before.
	again func(T, string)
	// fault is told of errors that do not end the stream.
	fault func(error)

	pull func() (T, error, bool)
	stop func()

	head    T
	headKey string
	last    string
	began   bool
	ended   bool
	failed  bool
}

func (s *stream[T]) open(seq iter.Seq2[T, error]) {
	if seq == nil {
		s.ended = true
		s.stop = func() {}
		return
	}
	s.pull, s.stop = iter.Pull2(seq)
}

// advance moves to the next element. Its error is fatal.
func (s *stream[T]) advance() error {
	for !s.ended {
		e, err, ok := s.pull()
		switch {
		case !ok:
			var none T
			s.head, s.headKey, s.ended = none, "", true
			return nil
		case err != nil:
			s.failed = true
			s.fault(&StreamError{s.name, s.last, err})
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
	e = s.head
	return e, s.advance()
}

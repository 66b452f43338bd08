package engine

import (
	"context"
	"fmt"
	"io"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"golang.org/x/time/rate"
)

// stream is a content while it is copied: it may be hashed as it is read, and its last
// byte is handed out only when the source was seen to be unchanged, so that nothing
// torn is ever stored.
type stream struct {
	ctx     context.Context
	content place.Content
	hash    *hasher // nil makes none
	limit   *rate.Limiter
	// read, if not nil, is told of what was read.
	read   func(n int)
	left   int64
	failed error
}

// open opens n bytes from off on of what a side holds, for copying. Who wants hashes
// sets the stream's.
func (w *Worker) open(ctx context.Context, s plan.Side, e entry.Entry, off, n int64) (*stream, error) {
	c, err := w.Places[s].Open(ctx, e, off, n)
	if err != nil {
		return nil, &sourceError{err}
	}
	return &stream{ctx: ctx, content: c, limit: w.Limit, read: w.Read, left: n}, nil
}

// sourceError is why a source could not be read, whatever the place says about it that it
// was to be written to.
type sourceError struct{ error }

// Unwrap gives the source's error.
func (e *sourceError) Unwrap() error { return e.error }

// Read gives the content. An error stays.
func (s *stream) Read(p []byte) (int, error) {
	if s.failed != nil {
		return 0, s.failed
	}
	n, err := 0, error(nil)
	if s.left > 0 {
		n, err = s.content.Read(p[:min(int64(len(p)), s.left)])
		if err != nil && err != io.EOF {
			err = &sourceError{err}
		}
	}
	s.left -= int64(n)
	if s.hash != nil {
		_, _ = s.hash.Write(p[:n])
	}
	if s.read != nil && n > 0 {
		s.read(n)
	}
	switch {
	case err == io.EOF && s.left > 0:
		err = fmt.Errorf("the content ends %d bytes early: %w", s.left, place.ErrChanged)
	case err == io.EOF:
		err = nil
	}
	if err == nil {
		// What was read is paid for afterwards: how much a source gives at once is
		// not known before.
		err = s.wait(n)
	}
	if err == nil && s.left == 0 {
		// Before the last byte leaves: an error now keeps the whole from being stored.
		if err = s.content.Unchanged(); err == nil {
			err = io.EOF
		} else {
			err = &sourceError{err}
		}
	}
	if s.failed = err; err == nil || err == io.EOF && n > 0 {
		return n, nil
	}
	return 0, err
}

// whole reports that all was read, and that it is what was planned to be copied.
func (s *stream) whole() bool { return s.failed == io.EOF }

// wait keeps to the limit of bytes per second.
func (s *stream) wait(n int) error {
	if s.limit == nil {
		return nil
	}
	for burst := max(1, s.limit.Burst()); n > 0; n -= burst {
		if err := s.limit.WaitN(s.ctx, min(n, burst)); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the content.
func (s *stream) Close() error { return s.content.Close() }

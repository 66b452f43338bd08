package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/scan"
)

// Entries streams what lies below the root. What crashed runs left is not part of
// it, and is removed where the place may be written to.
func (p *Place) Entries(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	so := p.scanOptions()
	so.Xattrs = so.Xattrs && !o.Names
	so.Filter = func(path string, kind entry.Kind) bool {
		temp, made := p.temporary(path, kind)
		if made {
			p.sweep(path)
			return false
		}
		if o.Filter != nil && !o.Filter(path, kind) {
			return false
		}
		if temp {
			if o.LeftOut != nil {
				o.LeftOut(path)
			}
			return false
		}
		if isTrash(path) {
			p.leftOut(path, kind, o.LeftOut)
			return false
		}
		return true
	}
	return func(yield func(entry.Entry, error) bool) {
		for e, err := range scan.Walk(ctx, p.root, so) {
			if e.Path == "" && err == nil {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Open opens the content of a file.
func (p *Place) Open(ctx context.Context, e entry.Entry, off, n int64) (place.Content, error) {
	if ctx.Err() != nil {
		return nil, &Error{"read", e.Path, context.Cause(ctx)}
	}
	if off < 0 {
		return nil, &Error{"read", e.Path, fmt.Errorf("%w: it begins at byte %d", os.ErrInvalid, off)}
	}
	f, err := scan.OpenAt(p.at, e)
	if errors.Is(err, scan.ErrChanged) || gone(err) {
		err = changed(err.Error())
	}
	if err != nil {
		return nil, &Error{"read", e.Path, err}
	}
	c := &content{file: f, entry: e}
	if n < 0 {
		n = max(e.Size-off, 0)
	}
	c.left = io.NewSectionReader(f, off, n)
	return c, nil
}

// content is a file that is being read.
type content struct {
	file  *os.File
	left  io.Reader
	entry entry.Entry
}

// Read reads on.
func (c *content) Read(b []byte) (int, error) { return c.left.Read(b) }

// Close closes the file.
func (c *content) Close() error { return c.file.Close() }

// Unchanged looks at the file again.
func (c *content) Unchanged() error {
	touched, err := scan.Touched(c.file, c.entry)
	switch {
	case err != nil:
		return err
	case touched:
		return &Error{"read", c.entry.Path, place.ErrChanged}
	}
	return nil
}

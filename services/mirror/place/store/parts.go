package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// StartParts begins an upload. The size of its parts, in bytes, is recorded beside
// the entry's attributes, since nobody could compute the ETag again without it. The
// token is JSON.
func (p *Place) StartParts(ctx context.Context, w place.Write, partSize int64) ([]byte, error) {
	key := w.Entry.Key()
	switch {
	case w.Entry.Kind != entry.File:
		return nil, fmt.Errorf("write %q into %s in parts: it is a %s and no file", key, p, w.Entry.Kind)
	case partSize < bucket.MinPart || w.Entry.Size > partSize*bucket.MaxParts:
		return nil, fmt.Errorf("write %q into %s in parts of %d bytes: its %d bytes take up to %d parts of at least %d bytes; choose others", key, p, partSize, w.Entry.Size, bucket.MaxParts, bucket.MinPart)
	}
	e := inParts(w, partSize)
	if err := p.holds(e); err != nil {
		return nil, fmt.Errorf("put into %s: %w", p, err)
	}
	u, err := p.b.StartParts(ctx, key, bucket.PartsOptions{PartSize: partSize, Meta: e.Meta(), MTime: p.timeOf(e, w.Have)})
	if err != nil {
		return nil, explain(err)
	}
	return json.Marshal(u)
}

// inParts is what a write becomes that is made in parts.
func inParts(w place.Write, partSize int64) entry.Entry {
	e := stored(w.Entry)
	e.Sum.PartSize = partSize
	e.Sum.Has |= entry.HasPartSize
	return e
}

// PutPart writes a part; the result is JSON.
func (p *Place) PutPart(ctx context.Context, token []byte, number int, r io.Reader, size int64) ([]byte, error) {
	u, err := p.upload(token)
	if err != nil {
		return nil, err
	}
	part, err := p.b.PutPart(ctx, u, number, r, size, nil)
	if err != nil {
		// Without a condition nothing can have changed: the upload is gone.
		if errors.Is(err, bucket.ErrNotFound) {
			return nil, fmt.Errorf("%w: %w", place.ErrNoUpload, err)
		}
		return nil, explain(err)
	}
	return json.Marshal(part)
}

func (p *Place) upload(token []byte) (u bucket.Upload, err error) {
	if err = json.Unmarshal(token, &u); err == nil && (u.Key == "" || u.ID == "" || u.PartSize <= 0) {
		err = errors.New("it names no upload")
	}
	if err != nil {
		return u, fmt.Errorf("read the token of an upload to %s: %w; start the upload again", p, err)
	}
	return u, nil
}

// FinishParts joins the parts into the entry, under the condition that what is
// there is what was seen. Done twice it is done.
func (p *Place) FinishParts(ctx context.Context, w place.Write, token []byte, parts [][]byte) (entry.Entry, error) {
	key := w.Entry.Key()
	u, err := p.upload(token)
	if err == nil && u.Key != key {
		err = fmt.Errorf("finish %q in %s: the token is that of %q", key, p, u.Key)
	}
	if err != nil {
		return w.Entry, err
	}
	e := inParts(w, u.PartSize)
	joined := make([]bucket.Part, len(parts))
	var size int64
	for i, raw := range parts {
		if err := json.Unmarshal(raw, &joined[i]); err != nil {
			return e, fmt.Errorf("finish %q in %s: read part %d: %w; put it again", key, p, i+1, err)
		}
		size += joined[i].Size
	}
	if size != e.Size {
		return e, fmt.Errorf("finish %q in %s: its parts have %d of its %d bytes; put those that are missing", key, p, size, e.Size)
	}
	c, err := p.conditionOf(ctx, w)
	if err == nil && c.absent {
		err = p.nothingBelow(ctx, key)
	}
	if err != nil {
		return e, err
	}
	o := bucket.FinishOptions{IfNoneMatch: c.absent, IfMatch: c.etag}
	if e.Sum.Contains(entry.HasCRC32C) {
		o.CRC32C = &e.Sum.CRC32C
	}
	written, err := p.b.FinishParts(ctx, u, joined, o)
	switch codeOf(err) {
	case "":
	case "NoSuchUpload", "InvalidPart", "InvalidPartOrder":
		return e, fmt.Errorf("%w: %w", place.ErrNoUpload, err)
	}
	if err != nil {
		return e, explain(err)
	}
	e, err = p.finished(ctx, e, written, c)
	if err == nil && written.Found {
		// Where somebody else wrote the same, this upload is left.
		_ = p.b.AbortParts(ctx, u)
	}
	return e, err
}

// finished looks at what was joined: what it was taken for may be the same content
// with attributes that others gave it.
func (p *Place) finished(ctx context.Context, e entry.Entry, w bucket.Written, c condition) (entry.Entry, error) {
	key := e.Key()
	o, err := p.b.Stat(ctx, key)
	if err != nil {
		return e, explain(err)
	}
	if o.ETag != w.ETag || !maps.Equal(o.Meta, e.Meta()) {
		return e, p.changed("finish", key, "another object is there already")
	}
	note(&e, w)
	if c.absent {
		err = p.checkVisible(ctx, key, w.VersionID)
	}
	return e, err
}

// AbortParts frees what an upload holds. One that is gone is fine.
func (p *Place) AbortParts(ctx context.Context, token []byte) error {
	u, err := p.upload(token)
	if err != nil {
		return err
	}
	return explain(p.b.AbortParts(ctx, u))
}

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
)

// SetAttrs gives an entry other attributes. Its content travels if it is small,
// under the condition that it is what was seen; a larger one is copied onto itself
// by the server, which checks the condition right before. Metadata and headers
// that others gave to the object stay.
func (p *Place) SetAttrs(ctx context.Context, want, have entry.Entry) (entry.Entry, error) {
	e := stored(want)
	key := e.Key()
	if have.Key() != key || have.Kind != want.Kind {
		return e, fmt.Errorf("set the attributes of %q in %s: what is there is the %s %q; write it anew", key, p, have.Kind, have.Key())
	}
	if err := p.holds(e); err != nil {
		return e, fmt.Errorf("set attributes in %s: %w", p, err)
	}
	if err := p.unclaimed(ctx, "set the attributes of", key); err != nil {
		return e, err
	}
	if have.Size <= bucket.MaxBatchItem || have.Kind != entry.File {
		return p.rewrite(ctx, e, have)
	}
	return p.copyOnto(ctx, e, have)
}

// rewrite puts what is there once more.
func (p *Place) rewrite(ctx context.Context, e, have entry.Entry) (entry.Entry, error) {
	r, o, err := p.b.Get(ctx, e.Key(), 0, -1)
	if err != nil {
		return e, explain(err)
	}
	if why := p.differs(have, o); why != "" {
		return e, errors.Join(p.changed("set the attributes of", e.Key(), why), r.Close())
	}
	c := p.checked(r, have, o)
	raw, err := io.ReadAll(c)
	if err = errors.Join(err, r.Close()); err != nil {
		return e, fmt.Errorf("set the attributes of %q in %s: %w", e.Key(), p, err)
	}
	if err := p.keep(&e, o); err != nil {
		return e, err
	}
	// It is written in one piece.
	e.Sum.PartSize = 0
	e.Sum.Has &^= entry.HasPartSize
	w, err := p.b.Put(ctx, e.Key(), bytes.NewReader(raw), int64(len(raw)), bucket.PutOptions{
		Meta: metaBeside(o, e), Headers: o.Headers, IfMatch: o.ETag,
	})
	if err != nil {
		return e, explain(err)
	}
	note(&e, w)
	return e, nil
}

// keep carries over to an entry what is known of the content that is there.
func (p *Place) keep(e *entry.Entry, o bucket.Object) error {
	now, err := p.entryOf(o)
	if err != nil {
		return err
	}
	if e.Kind == entry.File {
		e.Size = now.Size
		e.Sum = now.Sum
	}
	return nil
}

// metaBeside is the metadata of an entry, beside what others gave to the object.
func metaBeside(o bucket.Object, e entry.Entry) map[string]string {
	meta := maps.Clone(o.Meta)
	maps.Copy(meta, e.Meta())
	return meta
}

// copyOnto lets the server copy an object onto itself.
func (p *Place) copyOnto(ctx context.Context, e, have entry.Entry) (entry.Entry, error) {
	key := e.Key()
	o, err := p.b.Stat(ctx, key)
	if err != nil {
		return e, explain(err)
	}
	if why := p.differs(have, o); why != "" {
		return e, p.changed("set the attributes of", key, why)
	}
	if err := p.keep(&e, o); err != nil {
		return e, err
	}
	set := bucket.SetMetaOptions{Meta: metaBeside(o, e), Headers: o.Headers, IfMatch: o.ETag}
	if o.Size > p.copyAbove {
		set.Size, set.PartSize = o.Size, partSizeOf(e)
	}
	etag, failed := p.b.SetMeta(ctx, key, set)
	if failed != nil && !unknown(failed) {
		return e, explain(failed)
	}
	after, err := p.b.Stat(ctx, key)
	if err != nil {
		return e, errors.Join(failed, explain(err))
	}
	switch {
	case after.Size != o.Size || o.CRC32C != nil && after.CRC32C != nil && *o.CRC32C != *after.CRC32C:
		return e, p.mend(ctx, e, after, set.Meta)
	case !maps.Equal(after.Meta, set.Meta) || failed == nil && after.ETag != etag:
		return e, errors.Join(failed, p.changed("set the attributes of", key, "somebody else wrote at the same time"))
	}
	setETag(&e, after.ETag)
	return e, nil
}

// mend is called when somebody replaced an object between the server's look at the
// condition and its writing of the metadata. If it then gave the new content the
// metadata, and the ETag, of the old one, they would belie it for ever: the content
// is made to be written again, with an ETag of its own and no hashes.
func (p *Place) mend(ctx context.Context, e entry.Entry, o bucket.Object, meta map[string]string) error {
	err := p.changed("set the attributes of", e.Key(), "somebody else wrote at the same time")
	if !maps.Equal(o.Meta, meta) {
		return err
	}
	e.Sum = entry.Sum{}
	_, failed := p.b.SetMeta(ctx, e.Key(), bucket.SetMetaOptions{
		Meta: metaBeside(o, e), Headers: o.Headers, IfMatch: o.ETag, Rewrite: true,
	})
	if errors.Is(failed, bucket.ErrPrecondition) {
		failed = nil // Replaced once more, and whole.
	}
	return errors.Join(err, failed)
}

// partSizeOf is the size of parts that gives a copy the ETag that was there, or
// one that is large enough.
func partSizeOf(e entry.Entry) int64 {
	if e.Sum.Contains(entry.HasPartSize) {
		return e.Sum.PartSize
	}
	const usual = 64 << 20
	return max(usual, (e.Size+bucket.MaxParts-1)/bucket.MaxParts)
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

var _ place.Named = (*Place)(nil)

// OpenNamed implements [place.Named]: the metadata comes with the content, in one
// answer. That is cheaper than a listing with metadata, for which MinIO asks of each
// object whether it may be read, and far cheaper than a request for each.
func (p *Place) OpenNamed(ctx context.Context, listed entry.Entry) (place.Content, entry.Entry, error) {
	key := listed.Key()
	r, o, err := p.b.Get(ctx, key, 0, -1)
	if errors.Is(err, bucket.ErrNotFound) {
		err = fmt.Errorf("%w: %w", place.ErrChanged, err)
	}
	if err != nil {
		return nil, entry.Entry{}, err
	}
	e, err := p.told(listed, o)
	if err == nil && e.Kind != entry.File {
		err = p.readRest(r, &e)
	}
	if err != nil || e.Kind != entry.File {
		return nil, e, errors.Join(err, r.Close())
	}
	return p.checked(r, e, o), e, nil
}

// told is the entry that an object stands for, as a listing with metadata would have
// shown it: that tells a checksum of the server's only where it looks at each object.
func (p *Place) told(listed entry.Entry, o bucket.Object) (entry.Entry, error) {
	why := p.differs(listed, o)
	if why == "" && o.Size != listed.Size {
		// Whatever stands between may cut it short, and nothing else tells where the
		// server knows no checksum.
		why = fmt.Sprintf("it was listed with %d bytes and comes with %d", listed.Size, o.Size)
	}
	if why != "" {
		return entry.Entry{}, p.changed("open", o.Key, why)
	}
	if p.caps.ListMetadata {
		o.CRC32C = nil
	}
	return p.asListed(listed, o)
}

// readRest reads what is no file to its end, so that the connection can be used again,
// and the target of a link that is too long for metadata with it.
func (p *Place) readRest(r io.Reader, e *entry.Entry) error {
	if e.Kind == entry.Symlink && e.Target == "" {
		return p.readTarget(r, e)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(r, maxTarget)); err != nil {
		return fmt.Errorf("read the %s %q in %s: %w", e.Kind, e.Key(), p, err)
	}
	return nil
}

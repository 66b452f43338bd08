package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// What was put aside, or lies under a delete marker, is listed and brought back.

// Kept implements [place.Keeper]. In a bucket with versions it is what was deleted by
// whomever.
func (p *Place) Kept(ctx context.Context, o place.KeptOptions) iter.Seq2[place.Kept, error] {
	return func(yield func(place.Kept, error) bool) {
		for k, err := range p.inTrash(ctx, o) {
			if !yield(k, err) {
				return
			}
		}
		if p.caps.Versioning && o.Run == "" {
			p.deleted(ctx, o)(yield)
		}
	}
}

// inTrash streams what was put aside.
func (p *Place) inTrash(ctx context.Context, o place.KeptOptions) iter.Seq2[place.Kept, error] {
	return func(yield func(place.Kept, error) bool) {
		for object, err := range p.b.List(ctx, bucket.ListOptions{Prefix: trashDir, Metadata: p.caps.ListMetadata}) {
			var k place.Kept
			name, key := "", ""
			if err == nil {
				name, key, _ = strings.Cut(object.Key[len(trashDir):], "/")
				bin, ok := o.Bin(name)
				if !ok || key == "" {
					continue
				}
				object.Key = key
				e, bad := p.entryOf(object)
				if k, err = keptAs(key, e, bad, bin, o); err == nil && k.Entry.Path == "" {
					continue
				}
			}
			if err == nil && k.Entry.Kind == entry.Dir {
				if _, err = p.b.Stat(ctx, key); err == nil {
					continue // It is there, whatever it is now.
				}
				if errors.Is(err, bucket.ErrNotFound) {
					err = nil
				}
			}
			if !yield(k, err) {
				return
			}
		}
	}
}

// keptAs is the entry of a key, or what is wrong with it, as what is kept; zero if it is not
// asked for.
func keptAs(key string, e entry.Entry, bad error, bin place.Bin, o place.KeptOptions) (k place.Kept, err error) {
	switch {
	case bad == nil && o.Wants(e):
		return place.Kept{Entry: e, Bin: bin}, nil
	case bad != nil && o.TakesKey(key):
		return place.Kept{Bin: bin}, &place.KeptError{Key: key, Err: bad}
	}
	return k, nil
}

// deleted streams what lies under delete markers.
func (p *Place) deleted(ctx context.Context, o place.KeptOptions) iter.Seq2[place.Kept, error] {
	return func(yield func(place.Kept, error) bool) {
		prefix := ""
		if len(o.Under) == 1 {
			var err error
			if prefix, err = entry.EscapePath(o.Under[0]); err != nil {
				yield(place.Kept{}, fmt.Errorf("list what was deleted in %s: %w", p, err))
				return
			}
		}
		if o.Above && p.stays(entry.Entry{Kind: entry.Dir}) {
			if top, _, below := strings.Cut(prefix, "/"); below {
				prefix = top + "/"
			}
		}
		var marker bucket.Version
		for v, err := range p.b.Versions(ctx, prefix) {
			switch {
			case err != nil:
				yield(place.Kept{}, err)
				return
			case v.Latest && v.Marker:
				marker = v
				continue
			case v.Marker || v.Key != marker.Key:
				continue // deleted more than once, or not at all
			}
			at := marker.Modified
			marker = bucket.Version{}
			if _, trash := place.InTrash(v.Key); trash || at.Before(o.Since) {
				continue
			}
			e, bad := entry.FromMeta(v.Key, v.Size, nil)
			k, err := keptAs(v.Key, e, bad, place.Bin{At: at}, o)
			if (err != nil || k.Entry.Path != "") && !yield(k, err) {
				return
			}
		}
	}
}

// Free implements [place.Keeper].
func (p *Place) Free(ctx context.Context, k place.Kept) error {
	e, key := k.Entry, k.Entry.Key()
	if err := p.clear(ctx, e); err != nil {
		return err
	}
	if e.Kind != entry.Dir {
		switch _, err := p.b.Stat(ctx, key); {
		case err == nil:
			return p.changed("look at", key, "something has its name")
		case !errors.Is(err, bucket.ErrNotFound):
			return err
		}
	}
	by, err := p.obstacle(ctx, key)
	if err == nil && by != "" {
		err = p.hidden(key, by)
	}
	return err
}

// Restore implements [place.Keeper].
func (p *Place) Restore(ctx context.Context, k place.Kept) (entry.Entry, error) {
	key := k.Entry.Key()
	err := p.clear(ctx, k.Entry)
	if err == nil && k.Bin.Run == "" {
		err = p.undelete(ctx, key)
	} else if err == nil {
		err = p.bringBack(ctx, binKey(k.Bin, key), key)
	}
	if err != nil {
		return k.Entry, fmt.Errorf("restore %q in %s: %w", key, p, err)
	}
	now, there, err := p.Look(ctx, k.Entry)
	if err == nil && !there {
		err = p.changed("restore", key, "it was removed as soon as it was there")
	}
	return now, err
}

// clear makes sure that nothing is where an entry is to be, and nothing that hides it.
func (p *Place) clear(ctx context.Context, e entry.Entry) error {
	if err := p.holds(e); err != nil {
		return err
	}
	if e.Kind == entry.Dir {
		return p.noFile(ctx, e.Key())
	}
	return p.nothingBelow(ctx, e.Key())
}

// undelete takes the delete markers off an object. Other than a copy that gives back all
// that it was, and what somebody has written since stays above it.
func (p *Place) undelete(ctx context.Context, key string) error {
	var markers []string
	for v, err := range p.b.Versions(ctx, key) {
		if err == nil && v.Key != key {
			break // those that only begin so come behind it
		}
		switch {
		case err != nil:
			return explain(err)
		case v.Latest && !v.Marker:
			return p.changed("restore", key, "something has its name")
		case v.Marker:
			markers = append(markers, v.ID)
			continue
		}
		for _, id := range markers {
			if err := p.b.DeleteVersion(ctx, key, id); err != nil {
				return fmt.Errorf("take its delete marker away: %w", explain(err))
			}
		}
		return nil
	}
	return p.changed("restore", key, "no version of it is left")
}

// bringBack gives what is in the trash its key again, if nothing has that.
func (p *Place) bringBack(ctx context.Context, from, key string) error {
	o, err := p.b.Stat(ctx, from)
	if errors.Is(err, bucket.ErrNotFound) {
		return p.changed("restore", key, "it is no longer in the trash")
	}
	if err != nil {
		return explain(err)
	}
	version := ""
	if o.Size > buffered {
		err = p.copyBack(ctx, o, from, key)
	} else {
		version, err = p.writeBack(ctx, o, from, key)
	}
	if err != nil {
		return err
	}
	if err := p.copied(ctx, o, key); err != nil {
		return err
	}
	if err := p.checkVisible(ctx, key, version); err != nil {
		return err
	}
	_ = p.b.Delete(ctx, []string{from}) // It is back, and what stays in the trash is pruned.
	return nil
}

// copyBack has the server copy: only in parts it does so under a condition. Of what it
// copied so it has no checksum; it makes one when it copies that onto itself.
func (p *Place) copyBack(ctx context.Context, o bucket.Object, from, key string) error {
	c, err := p.inPieces(key, o)
	if err != nil {
		return err
	}
	c.IfNoneMatch = true
	etag, err := p.b.Copy(ctx, from, key, c)
	if err == nil && o.CRC32C != nil && o.Size <= p.copyAbove {
		_, err = p.b.SetMeta(ctx, key, bucket.SetMetaOptions{Meta: c.Meta, MTime: c.MTime, Headers: c.Headers, IfMatch: etag, Rewrite: true})
	}
	return explain(err)
}

// writeBack writes what is small once more.
func (p *Place) writeBack(ctx context.Context, o bucket.Object, from, key string) (version string, err error) {
	c, err := p.inPieces(key, o)
	if err != nil {
		return "", err
	}
	var raw []byte
	if o.Size > 0 {
		r, _, err := p.b.Get(ctx, from, 0, -1)
		if err != nil {
			return "", explain(err)
		}
		raw, err = io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			return "", fmt.Errorf("read %q: %w", from, err)
		}
	}
	body := io.Reader(bytes.NewReader(raw))
	if len(raw) == 0 {
		body = http.NoBody
	}
	w, err := p.b.Put(ctx, key, body, o.Size, bucket.PutOptions{Meta: c.Meta, Headers: c.Headers, MTime: c.MTime, IfNoneMatch: true, CRC32C: o.CRC32C})
	return w.VersionID, explain(err)
}

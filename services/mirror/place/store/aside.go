package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// What is removed may be put aside: the server copies it into the trash below the prefix,
// and the copy is compared before anything is deleted. A bucket with versions keeps what
// is deleted by itself, but for MinIO's directories.

var _ place.Keeper = (*Place)(nil)

// trashDir is what the keys in the trash begin with.
const trashDir = place.Trash + "/"

// binKey is the key of something in a bin.
func binKey(bin place.Bin, key string) string { return trashDir + bin.String() + "/" + key }

// PutAside implements [place.Keeper].
func (p *Place) PutAside(ctx context.Context, bin place.Bin, have []entry.Entry) []error {
	return p.remove(ctx, have, &bin)
}

// stays reports whether the bucket keeps what is deleted. MinIO keeps no versions of
// directories.
func (p *Place) stays(e entry.Entry) bool {
	return p.caps.Versioning && (e.Kind != entry.Dir || p.caps.Server != bucket.MinIO)
}

// aside copies the chosen entries, all of one kind, into a bin, and returns those that may
// be deleted now.
func (p *Place) aside(ctx context.Context, bin *place.Bin, have []entry.Entry, chosen []int, errs []error) (kept []int) {
	if bin == nil || len(chosen) > 0 && p.stays(have[chosen[0]]) {
		return chosen
	}
	there := make([]bool, len(chosen))
	each(len(chosen), func(n int) { i := chosen[n]; there[n], errs[i] = p.copyAside(ctx, *bin, have[i]) })
	for n, i := range chosen {
		if there[n] && errs[i] == nil {
			kept = append(kept, i)
		}
	}
	return kept
}

// copyAside has the server copy an object into a bin, and compares; false if it is gone.
func (p *Place) copyAside(ctx context.Context, bin place.Bin, e entry.Entry) (there bool, err error) {
	key := e.Key()
	to := binKey(bin, key)
	if err := p.b.CheckKey(to); err != nil {
		return false, fmt.Errorf("put %q in %s aside: its key in the trash, %q, is none: %w: it was left alone; delete it for good by a run that keeps nothing", key, p, to, err)
	}
	o, err := p.b.Stat(ctx, key)
	if errors.Is(err, bucket.ErrNotFound) {
		if e.Kind == entry.Dir {
			err = p.impliedAside(ctx, e, to)
			return err == nil, err
		}
		return false, nil
	}
	if err != nil {
		return false, explain(err)
	}
	if why := p.differs(e, o); why != "" {
		return false, p.changed("remove", key, why)
	}
	c := bucket.CopyOptions{IfMatch: o.ETag}
	if o.Size > p.copyAbove {
		if c, err = p.inPieces(key, o); err != nil {
			return false, err
		}
	}
	if _, err := p.b.Copy(ctx, key, to, c); err != nil {
		return false, fmt.Errorf("put it aside: %w", explain(err))
	}
	return true, p.copied(ctx, o, to)
}

// impliedAside puts into a bin what is known of a directory that only what lay in it implied,
// unless it was put there already.
func (p *Place) impliedAside(ctx context.Context, e entry.Entry, to string) error {
	_, err := p.b.Put(ctx, to, http.NoBody, 0, bucket.PutOptions{Meta: stored(e).Meta(), MTime: time.Unix(0, e.MTime), IfNoneMatch: true})
	if err != nil && !errors.Is(err, bucket.ErrPrecondition) {
		return fmt.Errorf("put it aside: %w", explain(err))
	}
	return nil
}

// inPieces is how an object is copied in parts, with all that belongs to it.
func (p *Place) inPieces(key string, o bucket.Object) (c bucket.CopyOptions, err error) {
	o.Key = key
	e, err := p.entryOf(o)
	return bucket.CopyOptions{
		IfMatch: o.ETag, Size: o.Size, PartSize: partSizeOf(e), Meta: o.Meta, Headers: o.Headers, MTime: time.Unix(0, e.MTime),
	}, err
}

// copied makes sure that a key has what an object is, as far as the server tells.
func (p *Place) copied(ctx context.Context, o bucket.Object, to string) error {
	now, err := p.b.Stat(ctx, to)
	if err != nil {
		return explain(err)
	}
	if why := unlike(o, now); why != "" {
		return fmt.Errorf("copy %q to %q in %s: %w: %s", o.Key, to, p, place.ErrCorrupt, why)
	}
	return nil
}

// unlike says in what a copy is not what it was made of; "" where nothing tells.
func unlike(o, now bucket.Object) string {
	switch {
	case now.Size != o.Size:
		return fmt.Sprintf("it has %d bytes, and not %d", now.Size, o.Size)
	case !maps.Equal(now.Meta, o.Meta):
		return "it has other metadata"
	case now.CRC32C != nil && o.CRC32C != nil:
		if *now.CRC32C != *o.CRC32C {
			return fmt.Sprintf("its CRC32C is %08x, and not %08x", *now.CRC32C, *o.CRC32C)
		}
	case isMD5(o) && isMD5(now) && now.ETag != o.ETag:
		return fmt.Sprintf("its ETag is %q, and not %q", now.ETag, o.ETag)
	}
	return ""
}

// isMD5 reports whether an ETag is the MD5 of the content.
func isMD5(o bucket.Object) bool {
	_, err := hex.DecodeString(o.ETag)
	return err == nil && len(o.ETag) == 32 && (o.Encryption == "" || o.Encryption == "AES256")
}

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
			if err == nil {
				name, key, _ := strings.Cut(object.Key[len(trashDir):], "/")
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
				var now bool
				if _, now, err = p.Look(ctx, k.Entry); now {
					continue
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
			prefix, _, _ = strings.Cut(prefix, "/")
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
		switch {
		case err != nil:
			return explain(err)
		case v.Key != key:
			continue
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

// Prune implements [place.Keeper]. What a bucket with versions keeps is its lifecycle's.
func (p *Place) Prune(ctx context.Context, of string, before time.Time) (n int, err error) {
	if of == "" {
		return 0, nil
	}
	o := place.KeptOptions{Of: of, Before: before}
	for {
		c, err := p.b.Children(ctx, trashDir)
		if err != nil {
			return n, err
		}
		pruned := 0
		for _, dir := range c.Dirs {
			if _, ok := o.Bin(strings.TrimSuffix(strings.TrimPrefix(dir, trashDir), "/")); !ok {
				continue
			}
			if err := p.empty(ctx, dir); err != nil {
				return n, fmt.Errorf("prune %q in %s: %w", dir, p, err)
			}
			pruned++
		}
		if n += pruned; c.All || pruned == 0 {
			return n, nil
		}
	}
}

// empty deletes all below a prefix.
func (p *Place) empty(ctx context.Context, prefix string) error {
	var keys []string
	flush := func() error {
		err := p.b.Delete(ctx, keys)
		keys = keys[:0]
		return explain(err)
	}
	for o, err := range p.b.List(ctx, bucket.ListOptions{Prefix: prefix}) {
		if err != nil {
			return err
		}
		if keys = append(keys, o.Key); len(keys) == removing {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return flush()
}

// trashes passes over what lies in the trash of another mirror, whose place is below this
// one, and tells of what no mirror has put there. It sees keys in their order.
type trashes struct {
	tell func(string)
	told string
}

// has reports whether an entry is in a trash.
func (t *trashes) has(e *entry.Entry) bool {
	trash, is := place.InTrash(e.Path)
	if !is || t.tell == nil || t.told == trash {
		return is
	}
	in := strings.TrimPrefix(e.Path[len(trash):], "/")
	name, _, deeper := strings.Cut(in, "/")
	_, own := place.ParseBin(name)
	if own = own && (deeper || e.Kind == entry.Dir) || in == "" && e.Kind == entry.Dir; !own {
		t.told = trash
		t.tell(trash)
	}
	return true
}

// passed tells whether in the place's own trash there is what no mirror has put there. A
// listing has passed it over.
func (p *Place) passed(ctx context.Context, t *trashes) {
	if t.tell == nil || t.told == place.Trash {
		return
	}
	c, err := p.b.Children(ctx, trashDir)
	foreign := err != nil
	for _, o := range c.Objects {
		foreign = foreign || o.Key != trashDir
	}
	for _, dir := range c.Dirs {
		_, own := place.ParseBin(strings.TrimSuffix(strings.TrimPrefix(dir, trashDir), "/"))
		foreign = foreign || !own
	}
	if foreign {
		t.told = place.Trash
		t.tell(place.Trash)
	}
}

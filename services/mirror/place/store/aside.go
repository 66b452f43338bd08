package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
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

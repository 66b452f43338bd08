package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// parallel is how many requests about single objects run at once.
const parallel = 16

// Entries streams what the bucket holds. Directories that no object stands for are
// left out. A key that stands for no entry, or whose metadata cannot be read, is an
// error, and the stream goes on behind it.
func (p *Place) Entries(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	if o.Names || p.caps.ListMetadata {
		return p.listed(ctx, o, !o.Names)
	}
	return p.looked(ctx, p.listed(ctx, o, false), o.Known)
}

// listed streams what a listing tells, with the metadata if that is wanted.
func (p *Place) listed(ctx context.Context, o place.ListOptions, metadata bool) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		f, t := filter{keep: o.Filter}, &trashes{tell: o.LeftOut}
		passed := func() {
			if f.takes(entry.Entry{Path: place.Trash, Kind: entry.Dir}) {
				p.passed(ctx, t)
			}
		}
		for object, err := range p.list(ctx, metadata, passed) {
			var e entry.Entry
			if err == nil {
				e, err = p.entryOf(object)
			}
			if err == nil && (!f.takes(e) || t.has(&e)) {
				continue
			}
			if err == nil && o.Dated != nil && e.Kind != entry.Dir && !stamped(e, object) {
				o.Dated(object.Key, object.LastModified.UnixNano())
			}
			if err == nil {
				err = p.getTarget(ctx, &e)
			}
			if err != nil {
				e = entry.Entry{}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// list streams the objects, but for those in the trash: passed is told that there are any.
func (p *Place) list(ctx context.Context, metadata bool, passed func()) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		for o, err := range p.b.List(ctx, bucket.ListOptions{Metadata: metadata, Without: trashDir, Passed: passed}) {
			// A prefix may be an object itself: it is the root.
			if err == nil && o.Key == "" {
				continue
			}
			if err == nil && metadata && o.Meta == nil {
				err = p.keptBack(o.Key)
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// keptBack says that what an object is may not be known.
func (p *Place) keptBack(key string) error {
	return fmt.Errorf("list %q in %s: its metadata is kept back; let these credentials read it (s3:GetObject)", key, p)
}

// entryOf is the entry that an object stands for. A link with a long target still
// lacks it.
func (p *Place) entryOf(o bucket.Object) (entry.Entry, error) {
	e, err := entry.FromMeta(o.Key, o.Size, o.Meta)
	if err != nil {
		return e, fmt.Errorf("list %s: %w", p, err)
	}
	if isForeign(o) {
		if e.Kind == entry.Dir && o.Size > 0 {
			return e, fmt.Errorf("list %q in %s: an object of %d bytes has the key of a directory, which has no content; give it a key that does not end in '/'", o.Key, p, o.Size)
		}
		e.Mode, e.UID, e.GID = p.foreign.FileMode, p.foreign.UID, p.foreign.GID
		if e.Kind == entry.Dir {
			e.Mode = p.foreign.DirMode
		}
		if e.MTime == 0 {
			e.MTime = o.LastModified.UnixNano()
		}
	}
	if o.CRC32C != nil {
		if e.Sum.Contains(entry.HasCRC32C) && e.Sum.CRC32C != *o.CRC32C {
			// The metadata came with another content, through somebody's copy.
			e.Sum = entry.Sum{}
		}
		e.Sum.CRC32C = *o.CRC32C
		e.Sum.Has |= entry.HasCRC32C
	}
	setETag(&e, o.ETag)
	return e, nil
}

func isForeign(o bucket.Object) bool {
	_, ours := o.Meta[entry.MetaEntry]
	return !ours
}

// setETag notes an ETag, and forgets a part size from which it cannot come: some
// servers join the parts of what they copy.
func setETag(e *entry.Entry, etag string) {
	e.Sum.ETag = etag
	e.Sum.Has |= entry.HasETag
	if etag == "" {
		e.Sum.Has &^= entry.HasETag
	}
	if !e.Sum.Contains(entry.HasPartSize) {
		return
	}
	_, count, _ := strings.Cut(etag, "-")
	n, err := strconv.ParseInt(count, 10, 64)
	if size := e.Sum.PartSize; err != nil || size <= 0 || max((e.Size+size-1)/size, 1) != n {
		e.Sum.PartSize = 0
		e.Sum.Has &^= entry.HasPartSize
	}
}

// maxTarget is how long Linux lets the target of a link be, and more.
const maxTarget = 64 << 10

// getTarget gets the target of a link that is too long for metadata. Of all else there is
// nothing to get.
func (p *Place) getTarget(ctx context.Context, e *entry.Entry) error {
	if e.Kind != entry.Symlink || e.Target != "" {
		return nil
	}
	key := e.Key()
	r, o, err := p.b.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	if o.ETag != e.Sum.ETag {
		return p.changed("read the target of", key, "it was replaced while the bucket was listed")
	}
	return p.readTarget(r, e)
}

// readTarget reads the target of a link from the content of its object.
func (p *Place) readTarget(r io.Reader, e *entry.Entry) error {
	raw, err := io.ReadAll(io.LimitReader(r, maxTarget+1))
	if err != nil {
		return fmt.Errorf("read the target of %q in %s: %w", e.Key(), p, err)
	}
	if len(raw) == 0 || len(raw) > maxTarget {
		return fmt.Errorf("read the target of %q in %s: %d bytes are no target of a link; delete the object, or write it again", e.Key(), p, e.Size)
	}
	e.Target, e.Size = string(raw), int64(len(raw))
	return nil
}

// Look gives what the bucket holds at the key of e, with the server's checksum.
func (p *Place) Look(ctx context.Context, e entry.Entry) (entry.Entry, bool, error) {
	key := e.Key()
	o, err := p.b.Stat(ctx, key)
	if errors.Is(err, bucket.ErrNotFound) {
		return entry.Entry{}, false, nil
	}
	if err == nil && isForeign(o) {
		err = p.tellMillis(ctx, &o)
	}
	if err != nil {
		return entry.Entry{}, false, err
	}
	now, err := p.entryOf(o)
	if err == nil {
		err = p.getTarget(ctx, &now)
	}
	if o.CRC32C == nil {
		// The metadata's is what its writer said, not what the server has found.
		now.Sum.Has &^= entry.HasCRC32C
		now.Sum.CRC32C = 0
	}
	return now, err == nil, err
}

// stamped reports whether an object may have got its time from who wrote it.
func stamped(e entry.Entry, o bucket.Object) bool {
	at := time.Unix(0, e.MTime).Add(time.Millisecond - 1).Truncate(time.Millisecond)
	return o.Meta != nil && !isForeign(o) && o.LastModified.Equal(at)
}

// dated is [place.Traits.Dated].
func (p *Place) dated(ctx context.Context, prefix string, n int) (map[string]int64, error) {
	all := map[string]int64{}
	for o, err := range p.b.List(ctx, bucket.ListOptions{Prefix: prefix, PageSize: min(n, 1000), Without: trashDir}) {
		if err != nil {
			return nil, err
		}
		if !strings.HasSuffix(o.Key, "/") {
			all[o.Key] = o.LastModified.UnixNano()
		}
		if n--; n == 0 {
			break
		}
	}
	return all, nil
}

// tellMillis gives an object the time that a listing tells, which is finer.
func (p *Place) tellMillis(ctx context.Context, o *bucket.Object) error {
	for listed, err := range p.b.List(ctx, bucket.ListOptions{Prefix: o.Key, PageSize: 1}) {
		if err == nil && listed.Key == o.Key && listed.ETag == o.ETag {
			o.LastModified = listed.LastModified
		}
		return err
	}
	return nil
}

// filter applies [place.ListOptions.Filter] to a sorted stream that leaves out
// directories.
type filter struct {
	keep func(string, entry.Kind) bool
	// inside is the directory that was asked about last, with all above it: all are
	// kept. outside is the one that was rejected last; "" means none.
	inside, outside string
}

func (f *filter) takes(e entry.Entry) bool {
	if f.keep == nil {
		return true
	}
	if f.outside != "" && strings.HasPrefix(e.Path, f.outside+"/") {
		return false
	}
	for i, c := range e.Path {
		if c != '/' {
			continue
		}
		dir := e.Path[:i]
		if dir == f.inside || strings.HasPrefix(f.inside, dir+"/") {
			continue
		}
		if !f.keep(dir, entry.Dir) {
			f.outside = dir
			return false
		}
		f.inside = dir
	}
	if !f.keep(e.Path, e.Kind) {
		if e.Kind == entry.Dir {
			f.outside = e.Path
		}
		return false
	}
	return true
}

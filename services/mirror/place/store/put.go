package store

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Put writes one entry with one request, under the condition that what is there is
// what was seen. Where the answer is lost it looks whether the write was done.
func (p *Place) Put(ctx context.Context, w place.Write) (entry.Entry, error) {
	e := stored(w.Entry)
	key := e.Key()
	if e.Kind == entry.Dir || e.Kind == entry.File && w.Open == nil {
		return e, fmt.Errorf("put %q into %s: a %s without content is not written so", key, p, e.Kind)
	}
	if err := p.holds(e); err != nil {
		return e, fmt.Errorf("put into %s: %w", p, err)
	}
	c, err := p.conditionOf(ctx, w)
	if err == nil && c.absent {
		err = p.nothingBelow(ctx, key)
	}
	if err != nil {
		return e, err
	}
	open := func() (io.ReadCloser, error) { return openWrite(ctx, w) }
	c.time = p.timeOf(e, w.Have)
	written, err := p.putSure(ctx, e, open, c)
	if err != nil {
		return e, err
	}
	note(&e, written)
	if c.absent {
		err = p.checkVisible(ctx, key, written.VersionID)
	}
	return e, err
}

// stored is what an entry becomes in a bucket. Of its hashes those stay that tell
// of the content alone.
func stored(e entry.Entry) entry.Entry {
	e.Change = entry.Change{}
	e.Sum.Has &= entry.HasBLAKE3 | entry.HasCRC32C
	e.Sum.ETag, e.Sum.PartSize = "", 0
	if len(e.Xattrs) == 0 {
		e.Xattrs = nil
	}
	if e.Kind != entry.File {
		e.Sum = entry.Sum{}
		e.Size = int64(len(e.Body()))
	}
	return e
}

// note adds what a write found out.
func note(e *entry.Entry, w bucket.Written) {
	setETag(e, w.ETag)
	if e.Kind != entry.File {
		return
	}
	e.Sum.CRC32C = w.CRC32C
	e.Sum.Has |= entry.HasCRC32C
}

// openWrite opens the content of a write, which gives exactly its size.
func openWrite(ctx context.Context, w place.Write) (io.ReadCloser, error) {
	if w.Entry.Kind != entry.File {
		return io.NopCloser(bytes.NewReader(w.Entry.Body())), nil
	}
	r, err := w.Open(ctx)
	if err != nil {
		return nil, err
	}
	x := &exact{r: r, left: w.Entry.Size}
	if x.left == 0 {
		// Nobody reads what has no bytes, and so nobody would see that it has.
		if x.err = x.end(nil); x.err != io.EOF {
			return nil, errors.Join(x.err, r.Close())
		}
	}
	return x, nil
}

// condition is what a write may overwrite, and the time that it is given.
type condition struct {
	absent bool
	etag   string
	time   time.Time
}

// timeOf is the time that an object is written with. Where it replaces one of that very
// time it is left to the server, as it is where attributes are set: who tells objects by
// their time ([place.Traits.Stamp]) must see that this is another one.
func (p *Place) timeOf(e, have entry.Entry) time.Time {
	if plan.Present(have) && p.stamp(have.MTime) == p.stamp(e.MTime) {
		return time.Time{}
	}
	return time.Unix(0, e.MTime)
}

// conditionOf is the condition of a write. Where the entry that was seen does not
// know its ETag it is looked at again, and so is what may be part of an archive.
func (p *Place) conditionOf(ctx context.Context, w place.Write) (condition, error) {
	key := w.Entry.Key()
	switch {
	case !plan.Present(w.Have):
		return condition{absent: true}, nil
	case w.Have.Key() != key:
		return condition{}, p.changed("put", key, fmt.Sprintf("what may be overwritten is %q", w.Have.Key()))
	}
	if err := p.unclaimed(ctx, "put", key); err != nil {
		return condition{}, err
	}
	switch {
	case w.Have.Sum.Contains(entry.HasETag):
		return condition{etag: w.Have.Sum.ETag}, nil
	}
	o, err := p.b.Stat(ctx, key)
	if err != nil {
		return condition{}, explain(err)
	}
	if why := p.differs(w.Have, o); why != "" {
		return condition{}, p.changed("put", key, why)
	}
	return condition{etag: o.ETag}, nil
}

const (
	// tries is how often a write is tried whose failure may pass.
	tries      = 3
	firstPause = 200 * time.Millisecond
)

// putSure puts until it is known what came of it, or nothing can be found out.
func (p *Place) putSure(ctx context.Context, e entry.Entry, open func() (io.ReadCloser, error), c condition) (bucket.Written, error) {
	// lost is a body that was sent wholly and got no answer.
	var lost *sent
	for try := 1; ; try++ {
		s, err := p.putOnce(ctx, e, open, c)
		if err == nil {
			return s.Written, nil
		}
		if unknown(err) && s.asked && s.Size == e.Size {
			lost = &s
		}
		if lost != nil && ctx.Err() == nil {
			if o, looked := p.b.Stat(ctx, e.Key()); looked == nil && lost.became(e, o) {
				return bucket.Written{ETag: o.ETag, Size: o.Size, CRC32C: lost.CRC32C, VersionID: o.VersionID}, nil
			}
		}
		if try == tries || !unknown(err) && !errors.Is(err, bucket.ErrThrottled) || !pause(ctx, try) {
			return bucket.Written{}, explain(err)
		}
	}
}

// buffered is up to which size, in bytes, a body is read before it is sent. MinIO
// locks an object from a conditional request's header to the end of its body: the
// slower the source, the longer others wait to read or write there.
const buffered = 1 << 20

// putOnce sends one request. With an error it tells what of the body was sent.
func (p *Place) putOnce(ctx context.Context, e entry.Entry, open func() (io.ReadCloser, error), c condition) (s sent, err error) {
	keeps, err := p.b.KeepsCRC32C(ctx)
	if err != nil {
		return s, err
	}
	content, err := open()
	if err != nil {
		return s, fmt.Errorf("open what is to be put as %q into %s: %w", e.Key(), p, err)
	}
	defer content.Close() // What was read of it is all that counts.
	o := bucket.PutOptions{Meta: e.Meta(), MTime: c.time, IfNoneMatch: c.absent, IfMatch: c.etag}
	if e.Sum.Contains(entry.HasCRC32C) {
		o.CRC32C = &e.Sum.CRC32C
	}
	body := io.Reader(content)
	if !keeps {
		s.md5 = md5.New()
		body = io.TeeReader(content, s.md5)
	}
	if e.Size > buffered {
		s.asked = true
		s.Written, err = p.b.Put(ctx, e.Key(), body, e.Size, o)
		return s, err
	}
	raw := make([]byte, e.Size)
	if n, err := io.ReadFull(body, raw); err != nil {
		return s, fmt.Errorf("read what is to be put as %q into %s, after %d of %d bytes: %w", e.Key(), p, n, e.Size, err)
	}
	if o.CRC32C == nil {
		o.CRC32C = new(crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)))
	}
	s.asked = true
	s.Written, err = p.b.Put(ctx, e.Key(), bytes.NewReader(raw), e.Size, o)
	return s, err
}

// unknown reports that it is not known whether a write was done.
func unknown(err error) bool {
	e, ok := errors.AsType[*bucket.RequestError](err)
	if !ok {
		return false
	}
	switch e.Status {
	case http.StatusNotImplemented, http.StatusServiceUnavailable, http.StatusInsufficientStorage:
		return false
	}
	return e.Status >= 500 || errors.Is(err, bucket.ErrUnreachable)
}

// pause waits a little longer after each try; false if the context ended.
func pause(ctx context.Context, try int) bool {
	longest := firstPause << (try - 1)
	wait := time.NewTimer(longest/2 + rand.N(longest/2))
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// MakeDir makes the object of a directory, or gives it other attributes.
func (p *Place) MakeDir(ctx context.Context, want entry.Entry) (entry.Entry, error) {
	e := stored(want)
	key := e.Key()
	if e.Kind != entry.Dir {
		return e, fmt.Errorf("make the directory %q in %s: it is a %s", key, p, e.Kind)
	}
	if err := p.holds(e); err != nil {
		return e, fmt.Errorf("make a directory in %s: %w", p, err)
	}
	if err := p.noFile(ctx, key); err != nil {
		return e, err
	}
	w, err := p.b.Put(ctx, key, http.NoBody, 0, bucket.PutOptions{Meta: e.Meta(), MTime: time.Unix(0, e.MTime)})
	if err != nil {
		return e, explain(err)
	}
	setETag(&e, w.ETag)
	return e, p.checkVisible(ctx, key, w.VersionID)
}

// exact gives as many bytes as it should and, rather than the last, an error if
// there are more or the source fails with it.
type exact struct {
	r    io.ReadCloser
	left int64
	err  error
}

// errLonger says that a source has more bytes than it was said to have.
var errLonger = errors.New("it has more bytes than it had when it was looked at: it changed since")

// Read implements [io.Reader].
func (x *exact) Read(into []byte) (n int, err error) {
	if x.err != nil || len(into) == 0 {
		return 0, x.err
	}
	if x.left > 0 {
		n, err = x.r.Read(into[:min(int64(len(into)), x.left)])
		x.left -= int64(n)
	}
	if x.left > 0 {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		x.err = err
		return n, err
	}
	if x.err = x.end(err); x.err != io.EOF {
		return max(n-1, 0), x.err
	}
	return n, io.EOF
}

// end makes sure that the source ends, and returns io.EOF if it does.
func (x *exact) end(err error) error {
	var more [1]byte
	for range 100 {
		if err != nil {
			return err
		}
		var n int
		if n, err = x.r.Read(more[:]); n > 0 {
			return errLonger
		}
	}
	return io.ErrNoProgress
}

// Close implements [io.Closer].
func (x *exact) Close() error { return x.r.Close() }

// sent is what a request sent, and what tells it from others where the server keeps no
// CRC32C; s.Size and s.CRC32C are those of what of the body was sent, whatever came of it.
type sent struct {
	bucket.Written
	// asked tells that the request was made: of a body without bytes as much is sent before.
	asked bool
	md5   hash.Hash
}

// became reports that an object is what a body that was sent wholly was to become.
func (s *sent) became(e entry.Entry, o bucket.Object) bool {
	if o.Size != e.Size || !maps.Equal(o.Meta, e.Meta()) {
		return false
	}
	if o.CRC32C != nil {
		return *o.CRC32C == s.CRC32C
	}
	return s.md5 != nil && o.ETag == hex.EncodeToString(s.md5.Sum(nil))
}

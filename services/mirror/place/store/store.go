// Package store is a bucket as a [place.Place]: each entry is an object that
// carries its attributes as user metadata, directories, links and special files
// too. What others wrote there are files with attributes of the caller's choice.
//
// What is written replaces only what was seen, which the server checks at the
// moment of the write, except where a comment says otherwise: batches, metadata
// and deletes have no such condition, and are looked at right before.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/zfs"
)

// Options say how a bucket is used. The zero value is for a bucket that others
// may write to as well.
type Options struct {
	// Name is the place as its user wrote it, without secrets; "" means its URL.
	Name string
	// Foreign is what objects are given that carry no attributes; nil means 0644
	// and 0755 and this process's ids.
	Foreign *Foreign
	// Exclusive says that nobody else writes: a batch then overwrites without
	// looking first.
	Exclusive bool
	// PartsAbove is the size in bytes above which files should be written in parts;
	// 64 MiB by default.
	PartsAbove int64
	// Batch is how many files a batch best has, up to [bucket.MaxBatchItems]; 500 by
	// default.
	Batch int
	// Pace, if not nil, bounds how many objects are looked at at once because the server
	// lists no metadata.
	Pace Pace
}

// Pace bounds how much is under way at once. It is used concurrently.
type Pace interface {
	// Acquire waits until one more may be; Release ends it.
	Acquire(ctx context.Context) error
	Release()
}

// Foreign are the attributes of what others wrote.
type Foreign struct {
	FileMode, DirMode uint32
	UID, GID          uint32
}

// Place is a bucket. Its methods may be used concurrently.
type Place struct {
	b       *bucket.Bucket
	o       Options
	caps    bucket.Capabilities
	foreign Foreign
	traits  place.Traits
	visible visible
	// copyAbove is the size above which the server copies in parts only.
	copyAbove int64
}

var (
	_ place.Place = (*Place)(nil)
	_ place.Parts = (*Place)(nil)
)

// Open opens a bucket; see [bucket.Open] for its errors.
func Open(ctx context.Context, c bucket.Config, o Options) (*Place, error) {
	b, err := bucket.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return New(b, o), nil
}

// New makes a place of an open bucket, which the place's Close closes. The bucket's age
// is part of its identity where these credentials are told.
func New(b *bucket.Bucket, o Options) *Place { return newPlace(b, o, b.Capabilities()) }

func newPlace(b *bucket.Bucket, o Options, caps bucket.Capabilities) *Place {
	o.Name = cmp.Or(o.Name, b.String())
	o.PartsAbove = cmp.Or(max(o.PartsAbove, 0), 64<<20)
	o.Batch = min(cmp.Or(max(o.Batch, 0), 500), bucket.MaxBatchItems)
	p := &Place{b: b, o: o, caps: caps, copyAbove: bucket.MaxCopy}
	if caps.Server == bucket.MinIO { // which alone copies objects of any size
		p.copyAbove = 1 << 62
	}
	p.foreign = Foreign{0o644, 0o755, uint32(os.Geteuid()), uint32(os.Getegid())}
	if o.Foreign != nil {
		p.foreign = *o.Foreign
	}
	p.traits = p.findTraits(b.Created())
	return p
}

func (p *Place) findTraits(created time.Time) place.Traits {
	t := place.Traits{
		Lists:      plan.AllAttrs,
		Holds:      p.holds,
		Claims:     zfs.InArchive,
		Both:       p.caps.Server != bucket.MinIO, // which lists nothing below a key that is an object
		Versioned:  p.caps.Versioning,
		Identity:   "s3:" + p.b.Path(),
		Address:    "s3:" + p.b.String(), // its server's name tells it from others
		Dated:      p.dated,
		Small:      bucket.MaxBatchItem,
		Parts:      true,
		PartsAbove: p.o.PartsAbove,
		ETags:      true,
	}
	if created.IsZero() {
		t.Identity = t.Address
	} else {
		t.Identity += "@" + created.UTC().Format(time.RFC3339Nano)
	}
	if p.caps.SetMTime {
		t.Stamp = p.stamp
	}
	if p.caps.Snowball {
		t.Batch, t.BatchBytes = p.o.Batch, bucket.MaxBatchBytes
	}
	return t
}

// stamp is [place.Traits.Stamp].
func (p *Place) stamp(mtime int64) int64 {
	at := p.b.LastModified(time.Unix(0, mtime))
	if at.IsZero() {
		return 0
	}
	return at.UnixNano()
}

// holds is [place.Traits.Holds]. Hashes are added to an entry when it is written,
// and must find room in the metadata then.
func (p *Place) holds(e entry.Entry) error {
	e.Sum.Has |= entry.HasBLAKE3 | entry.HasCRC32C | entry.HasPartSize
	e.Sum.PartSize = max(e.Sum.PartSize, 1<<40)
	if err := e.Check(); err != nil {
		return err
	}
	if _, is := place.InTrash(e.Path); is {
		return &entry.NameError{Name: e.Path, Reason: place.ErrReserved.Error()}
	}
	return p.b.CheckKey(e.Key())
}

// String names the place as its user wrote it.
func (p *Place) String() string { return p.o.Name }

// Traits are what was found out when the bucket was opened.
func (p *Place) Traits() place.Traits { return p.traits }

// Finish does nothing: a bucket keeps times as they are written, and what it
// acknowledged is durable.
func (p *Place) Finish(context.Context) error { return nil }

// Close ends the idle connections.
func (p *Place) Close() error {
	p.b.Close()
	return nil
}

// changed says that a key no longer is what was seen.
func (p *Place) changed(op, key, why string) error {
	return fmt.Errorf("%s %q in %s: %w: %s", op, key, p, place.ErrChanged, why)
}

// explain adds the contract's meaning to an error of a write.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bucket.ErrPrecondition):
		return fmt.Errorf("%w: %w", place.ErrChanged, err)
	case errors.Is(err, bucket.ErrNotFound) && codeOf(err) != "NoSuchUpload":
		// What was to be overwritten is gone.
		return fmt.Errorf("%w: %w", place.ErrChanged, err)
	case errors.Is(err, bucket.ErrChecksum) && codeOf(err) != "": // the server refused it
		return fmt.Errorf("%w: %w", place.ErrDamaged, err)
	case errors.Is(err, bucket.ErrChecksum):
		return fmt.Errorf("%w: %w", place.ErrCorrupt, err)
	case errors.Is(err, bucket.ErrUnsupported):
		return fmt.Errorf("%w: %w", place.ErrReadOnly, err)
	case lasting(err):
		return &refusal{err}
	}
	return err
}

// lasting reports whether a refusal stays until somebody gives rights, room or the bucket
// back.
func lasting(err error) bool {
	e, ok := errors.AsType[*bucket.RequestError](err)
	if !ok {
		return false
	}
	switch e.Code {
	case "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull":
		return true
	}
	return e.Status == http.StatusInsufficientStorage ||
		errors.Is(err, bucket.ErrDenied) || errors.Is(err, bucket.ErrCredentials) || errors.Is(err, bucket.ErrNoBucket)
}

// refusal is an error that is a [place.ErrRefused], too, and says so in its own words.
type refusal struct{ err error }

// Error is that of the server.
func (r *refusal) Error() string { return r.err.Error() }

// Unwrap gives both.
func (r *refusal) Unwrap() []error { return []error{r.err, place.ErrRefused} }

func codeOf(err error) string {
	if e, ok := errors.AsType[*bucket.RequestError](err); ok {
		return e.Code
	}
	return ""
}

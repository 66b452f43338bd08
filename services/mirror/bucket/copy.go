package bucket

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
)

// MaxCopy is the largest object, in bytes, that S3 copies with one request.
const MaxCopy = 5 << 30

// SetMetaOptions say what SetMeta writes.
type SetMetaOptions struct {
	// Meta, MTime and Headers are as in PutOptions; they replace all that is there.
	Meta    map[string]string
	MTime   time.Time
	Headers map[string]string
	// IfMatch is the ETag of the content that is meant; else the error wraps
	// ErrPrecondition. Required.
	IfMatch string
	// Rewrite makes a server that would change its metadata in place write the
	// content again, with a checksum and an ETag of its own.
	Rewrite bool
	// Size and PartSize, if not 0, copy that many bytes in parts, which is how
	// objects above MaxCopy are copied. The server then has no CRC32C of them, and
	// the condition is looked at again when they are joined.
	Size, PartSize int64
}

// SetMeta replaces the metadata of an object by copying it onto itself: its
// content does not travel. It returns the ETag, which may be another one: some
// servers join what was written in parts. It is not repeated when its outcome is
// not known.
//
// MinIO looks at the condition before it locks the object, and a write between
// the two is given the metadata and the ETag of what it replaced. Look at the
// object's CRC32C afterwards.
func (b *Bucket) SetMeta(ctx context.Context, key string, o SetMetaOptions) (etag string, err error) {
	const op = "set the metadata of"
	full, opts, err := b.prepare(op, key, o.Meta)
	if err == nil && o.IfMatch == "" {
		err = &RequestError{Op: op, Where: b.String(), Key: key, Err: errors.New("it is not said of which content")}
	}
	if err != nil {
		return "", err
	}
	maps.Copy(opts.UserMetadata, o.Headers)
	opts.Internal.SourceMTime = b.LastModified(o.MTime)
	if o.PartSize > 0 {
		c := copied{key: key, from: full, to: full, size: o.Size, partSize: o.PartSize, ifMatch: o.IfMatch}
		c.finish.Internal = opts.Internal
		c.finish.SetMatchETag(o.IfMatch)
		return b.copyParts(ctx, c, opts)
	}
	headers := opts.UserMetadata
	headers["X-Amz-Metadata-Directive"] = "REPLACE"
	headers["X-Amz-Copy-Source-If-Match"] = `"` + o.IfMatch + `"`
	if o.Rewrite {
		switch keeps, err := b.KeepsCRC32C(ctx); {
		case err != nil:
			return "", err
		case keeps:
			headers["X-Amz-Checksum-Algorithm"] = "CRC32C"
		}
	}
	err = b.do(ctx, op, key, refused, func(ctx context.Context, _ *exchange) error {
		info, err := b.core.CopyObject(ctx, b.name, full, b.name, full, headers, minio.CopySrcOptions{}, opts)
		etag = info.ETag
		return err
	})
	return etag, err
}

// CopyOptions say what Copy copies, and how.
type CopyOptions struct {
	// IfMatch is the ETag of what is meant; else the error wraps ErrPrecondition, or
	// ErrNotFound if there is nothing. Required.
	IfMatch string
	// IfNoneMatch copies only if there is no such object; else the error wraps
	// ErrPrecondition. Servers have that condition for parts only: Size and PartSize are
	// needed with it.
	IfNoneMatch bool
	// Size and PartSize, if not 0, copy that many bytes in parts, which is how objects
	// above MaxCopy are copied. Meta, MTime and Headers are then what is written beside
	// them, as in PutOptions; else the server copies them, too.
	Size, PartSize int64
	Meta           map[string]string
	MTime          time.Time
	Headers        map[string]string
}

// Copy has the server copy an object to another key: its content does not travel. The
// copy's ETag may be another one. With IfNoneMatch it is not repeated when its outcome is
// not known.
func (b *Bucket) Copy(ctx context.Context, from, to string, o CopyOptions) (etag string, err error) {
	const op = "copy to"
	full, opts, err := b.prepare(op, to, o.Meta)
	if err != nil {
		return "", err
	}
	source, err := b.full(from)
	if err == nil && (o.IfMatch == "" || o.IfNoneMatch && o.PartSize == 0) {
		err = errors.New("it is not said of which content, or not in parts and under a condition")
	}
	if err != nil {
		return "", &RequestError{Op: op, Where: b.String(), Key: to, Err: err}
	}
	if o.PartSize > 0 {
		maps.Copy(opts.UserMetadata, o.Headers)
		opts.Internal.SourceMTime = b.LastModified(o.MTime)
		c := copied{key: to, from: source, to: full, size: o.Size, partSize: o.PartSize, ifMatch: o.IfMatch}
		if c.finish.Internal = opts.Internal; o.IfNoneMatch {
			c.finish.SetMatchETagExcept("*")
		}
		return b.copyParts(ctx, c, opts)
	}
	headers := map[string]string{"X-Amz-Copy-Source-If-Match": `"` + o.IfMatch + `"`}
	err = b.do(ctx, op, to, repeatable, func(ctx context.Context, _ *exchange) error {
		info, err := b.core.CopyObject(ctx, b.name, source, b.name, full, headers, minio.CopySrcOptions{}, minio.PutObjectOptions{})
		etag = info.ETag
		return err
	})
	return etag, err
}

// copied is what is copied in parts.
type copied struct {
	// key is the one that is written, for errors; from and to have the bucket's prefix.
	key, from, to  string
	size, partSize int64
	// ifMatch is the ETag of what is copied, finish how the parts are joined.
	ifMatch string
	finish  minio.PutObjectOptions
}

// copying is how many parts are copied at once: it is the server's disk that works.
const copying = 4

// copyParts copies an object in parts. It has no checksums, as a server tells none of a
// part that it copied, and wants them to join the parts.
func (b *Bucket) copyParts(ctx context.Context, c copied, opts minio.PutObjectOptions) (string, error) {
	const op = "copy the parts of"
	count := (c.size + c.partSize - 1) / c.partSize
	if c.partSize < MinPart || count < 1 || count > MaxParts {
		return "", &RequestError{Op: op, Where: b.String(), Key: c.key, Err: fmt.Errorf("%d bytes in parts of %d: S3 takes 1 to %d of at least %d bytes", c.size, c.partSize, MaxParts, MinPart)}
	}
	u := Upload{Key: c.key, PartSize: c.partSize}
	err := b.do(ctx, op, c.key, repeatable, func(ctx context.Context, _ *exchange) (err error) {
		u.ID, err = b.core.NewMultipartUpload(ctx, b.name, c.to, opts)
		return err
	})
	if err != nil {
		return "", err
	}
	parts, err := b.copyAll(ctx, c, u, int(count))
	if err == nil {
		var etag string
		err = b.do(ctx, op, c.key, refused, func(ctx context.Context, _ *exchange) error {
			info, err := b.core.CompleteMultipartUpload(ctx, b.name, c.to, u.ID, parts, c.finish)
			etag = info.ETag
			return err
		})
		if err == nil {
			return etag, nil
		}
	}
	// Also when the caller gave up: what is left costs space.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
	defer cancel()
	return "", errors.Join(err, b.AbortParts(ctx, u))
}

const abortPatience = 10 * time.Second

// copyAll copies each part, and stops after the first error.
func (b *Bucket) copyAll(ctx context.Context, c copied, u Upload, count int) ([]minio.CompletePart, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts := make([]minio.CompletePart, count)
	numbers := make(chan int)
	var workers sync.WaitGroup
	for range min(copying, count) {
		workers.Go(func() {
			for i := range numbers {
				if ctx.Err() != nil {
					continue
				}
				off := int64(i) * c.partSize
				err := b.do(ctx, fmt.Sprintf("copy part %d of", i+1), u.Key, repeatable, func(ctx context.Context, _ *exchange) (err error) {
					parts[i], err = b.core.CopyObjectPart(ctx, b.name, c.from, b.name, c.to, u.ID, i+1, off, min(c.partSize, c.size-off),
						map[string]string{"X-Amz-Copy-Source-If-Match": `"` + c.ifMatch + `"`})
					parts[i].ETag = strings.Trim(parts[i].ETag, `"`)
					return err
				})
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range count {
		numbers <- i
	}
	close(numbers)
	workers.Wait()
	return parts, context.Cause(ctx)
}

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
		return b.copyParts(ctx, key, full, opts, o)
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

// copying is how many parts are copied at once: it is the server's disk that works.
const copying = 4

// copyParts copies an object onto itself in parts. It has no checksums, as a
// server tells none of a part that it copied, and wants them to join the parts.
func (b *Bucket) copyParts(ctx context.Context, key, full string, opts minio.PutObjectOptions, o SetMetaOptions) (string, error) {
	const op = "copy the parts of"
	count := (o.Size + o.PartSize - 1) / o.PartSize
	if o.PartSize < MinPart || count < 1 || count > MaxParts {
		return "", &RequestError{Op: op, Where: b.String(), Key: key, Err: fmt.Errorf("%d bytes in parts of %d: S3 takes 1 to %d of at least %d bytes", o.Size, o.PartSize, MaxParts, MinPart)}
	}
	u := Upload{Key: key, PartSize: o.PartSize}
	err := b.do(ctx, op, key, repeatable, func(ctx context.Context, _ *exchange) (err error) {
		u.ID, err = b.core.NewMultipartUpload(ctx, b.name, full, opts)
		return err
	})
	if err != nil {
		return "", err
	}
	parts, err := b.copyAll(ctx, full, u, o, int(count))
	if err == nil {
		finish := minio.PutObjectOptions{Internal: opts.Internal}
		finish.SetMatchETag(o.IfMatch)
		var etag string
		err = b.do(ctx, op, key, refused, func(ctx context.Context, _ *exchange) error {
			info, err := b.core.CompleteMultipartUpload(ctx, b.name, full, u.ID, parts, finish)
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
func (b *Bucket) copyAll(ctx context.Context, full string, u Upload, o SetMetaOptions, count int) ([]minio.CompletePart, error) {
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
				off := int64(i) * o.PartSize
				err := b.do(ctx, fmt.Sprintf("copy part %d of", i+1), u.Key, repeatable, func(ctx context.Context, _ *exchange) (err error) {
					parts[i], err = b.core.CopyObjectPart(ctx, b.name, full, b.name, full, u.ID, i+1, off, min(o.PartSize, o.Size-off),
						map[string]string{"X-Amz-Copy-Source-If-Match": `"` + o.IfMatch + `"`})
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

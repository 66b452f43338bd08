package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// Get opens the content of an object from byte off on, n bytes of it or, if n is
// negative, all. Object.Size is that of the whole. A content that breaks off is
// an error of Read, never an early end. The caller closes it. The error wraps
// ErrNotFound if there is no such object. An off at or beyond the end of the
// content is an error, unless both are 0.
func (b *Bucket) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, Object, error) {
	if n == 0 {
		o, err := b.Stat(ctx, key)
		return http.NoBody, o, err
	}
	full, err := b.full(key)
	if err == nil && off < 0 {
		err = fmt.Errorf("offset %d is negative", off)
	}
	if err != nil {
		return nil, Object{}, &RequestError{Op: "get", Where: b.String(), Key: key, Err: err}
	}
	header := http.Header{"X-Amz-Checksum-Mode": {"ENABLED"}}
	whole := off == 0 && n < 0
	if !whole {
		value := "bytes=" + strconv.FormatInt(off, 10) + "-"
		if n > 0 {
			value += strconv.FormatInt(off+n-1, 10)
		}
		header["Range"] = []string{value}
	}
	var content io.ReadCloser
	var o Object
	err = b.do(ctx, "get", key, repeatable, func(ctx context.Context, x *exchange) error {
		answer, err := b.get(ctx, b.urlOf(full), header)
		if err != nil {
			return err
		}
		if o, err = got(key, whole, answer, x); err != nil {
			answer.Body.Close()
			return err
		}
		content = answer.Body
		return nil
	})
	if err != nil {
		return nil, Object{}, err
	}
	return content, o, nil
}

// urlOf is where an object is, by its key with the prefix.
func (b *Bucket) urlOf(full string) string { return b.base.String() + s3utils.EncodePath(full) }

// got reads what the answer to a GET says of the object. Its body is the caller's to
// close.
func got(key string, whole bool, answer *http.Response, x *exchange) (o Object, err error) {
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusPartialContent {
		return o, objectError(answer)
	}
	info := minio.ObjectInfo{
		Size: answer.ContentLength, ETag: strings.Trim(answer.Header.Get("Etag"), `"`), VersionID: answer.Header.Get("X-Amz-Version-Id"),
		UserMetadata: userMetadata(answer.Header), ChecksumCRC32C: answer.Header.Get("X-Amz-Checksum-Crc32c"),
	}
	if info.LastModified, err = lastModified(answer.Header); err != nil {
		return o, err
	}
	o = object(key, info, x)
	if whole {
		return o, nil
	}
	o.CRC32C = nil
	if answer.StatusCode != http.StatusPartialContent {
		return o, fmt.Errorf("%w: the server answers a request for a range with %d", ErrUnsupported, answer.StatusCode)
	}
	o.Size, err = sizeOf(answer.Header.Get("Content-Range"))
	return o, err
}

// objectError reads the error that a request for an object was answered with, which
// proxies may leave without a body.
func objectError(answer *http.Response) error {
	err := readError(answer)
	e, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok || e.Code != answer.Status {
		return err
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		e.Code = "NoSuchKey"
	case http.StatusForbidden:
		e.Code = "AccessDenied"
	case http.StatusPreconditionFailed:
		e.Code = "PreconditionFailed"
	}
	return e
}

const metaHeader = "X-Amz-Meta-"

// userMetadata gives the metadata that an object was written with. Values that are not
// ASCII may come as encoded words.
func userMetadata(h http.Header) map[string]string {
	m := map[string]string{}
	for name, values := range h {
		name, ok := strings.CutPrefix(name, metaHeader)
		if !ok || len(values) == 0 {
			continue
		}
		value := values[0]
		if strings.HasPrefix(value, "=?") {
			var words mime.WordDecoder
			if text, err := words.DecodeHeader(value); err == nil {
				value = text
			}
		}
		m[name] = value
	}
	return m
}

// lastModified is when an object was written, as its server says: MinIO keeps the time
// of one that was brought from elsewhere in a header of its own.
func lastModified(h http.Header) (at time.Time, err error) {
	source, text := h.Get("X-Minio-Source-Mtime"), h.Get("Last-Modified")
	if source != "" {
		at, err = time.Parse(time.RFC3339Nano, source)
	} else if at, err = http.ParseTime(text); err != nil {
		at, err = time.Parse("Mon, _2 Jan 2006 15:04:05 GMT", text)
	}
	if err != nil {
		return at, fmt.Errorf("%w: the server says in no known way when it was written: %w", ErrUnsupported, err)
	}
	return at, nil
}

// sizeOf reads the size of the whole from "bytes 0-9/100".
func sizeOf(contentRange string) (int64, error) {
	_, size, _ := strings.Cut(contentRange, "/")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: the server answers with the range %q", ErrUnsupported, contentRange)
	}
	return n, nil
}

// Stat returns what the server knows of an object, with its metadata and
// checksum. The error wraps ErrNotFound if there is none.
func (b *Bucket) Stat(ctx context.Context, key string) (Object, error) {
	full, err := b.full(key)
	if err != nil {
		return Object{}, &RequestError{Op: "stat", Where: b.String(), Key: key, Err: err}
	}
	var o Object
	err = b.do(ctx, "stat", key, repeatable, func(ctx context.Context, x *exchange) error {
		info, err := b.core.StatObject(ctx, b.name, full, minio.StatObjectOptions{Checksum: true})
		o = object(key, info, x)
		return err
	})
	if err != nil {
		return Object{}, err
	}
	return o, nil
}

func object(key string, info minio.ObjectInfo, x *exchange) Object {
	o := Object{
		Key: key, Size: info.Size, ETag: info.ETag, LastModified: info.LastModified,
		Meta: info.UserMetadata, Headers: map[string]string{}, VersionID: info.VersionID, CRC32C: decodeCRC(info.ChecksumCRC32C),
	}
	if at, err := http.ParseTime(x.header.Get("Date")); err == nil {
		o.Asked = at
	}
	o.Encryption = x.header.Get("X-Amz-Server-Side-Encryption")
	for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Cache-Control", "Expires"} {
		if value := x.header.Get(name); value != "" {
			o.Headers[name] = value
		}
	}
	return o
}

// deleteMax is how many keys one request deletes.
const deleteMax = 1000

// Delete deletes objects, or in a bucket with versions puts a delete marker over
// each. Deleting what is not there succeeds. The error is a *KeysError with the
// keys that are not deleted, those that the server did not answer for included.
func (b *Bucket) Delete(ctx context.Context, keys []string) error {
	failed := &KeysError{Op: "delete from " + b.String(), Of: len(keys)}
	var chunk []string
	for _, key := range keys {
		if _, err := b.writable("delete", key); err != nil {
			failed.add(key, err)
			continue
		}
		if chunk = append(chunk, key); len(chunk) == deleteMax {
			b.deleteChunk(ctx, chunk, failed)
			chunk = chunk[:0]
		}
	}
	if len(chunk) > 0 {
		b.deleteChunk(ctx, chunk, failed)
	}
	return failed.orNil()
}

// deleteChunk asks again for the keys that may pass, as deleting is repeatable.
func (b *Bucket) deleteChunk(ctx context.Context, keys []string, failed *KeysError) {
	left := make(map[string]error, len(keys))
	for _, key := range keys {
		left[b.prefix+key] = nil
	}
	// Its error is the first of those in left.
	_ = b.do(ctx, "delete from", "", repeatable, func(ctx context.Context, x *exchange) error {
		var first error
		for full, err := range b.deleteOnce(ctx, left) {
			if err == nil {
				delete(left, full)
				continue
			}
			err = b.explain("delete", full[len(b.prefix):], x, err)
			left[full] = err
			if e, ok := err.(*RequestError); ok && (e.passing() || e.Reason == ErrThrottled) && first == nil {
				first = err
			}
		}
		return first
	})
	for _, key := range keys {
		if err, ok := left[b.prefix+key]; ok {
			failed.add(key, err)
		}
	}
}

var errUnanswered = errors.New("the answer leaves this key out")

// deleteOnce sends one request and returns the outcome for each key.
func (b *Bucket) deleteOnce(ctx context.Context, keys map[string]error) map[string]error {
	out := make(map[string]error, len(keys))
	for key := range keys {
		out[key] = errUnanswered
	}
	objects := func(yield func(minio.ObjectInfo) bool) {
		for key := range keys {
			if !yield(minio.ObjectInfo{Key: key}) {
				return
			}
		}
	}
	results, err := b.core.RemoveObjectsWithIter(ctx, b.name, objects, minio.RemoveObjectsOptions{})
	if err != nil {
		for key := range out {
			out[key] = err
		}
		return out
	}
	for r := range results {
		if _, asked := out[r.ObjectName]; asked {
			out[r.ObjectName] = r.Err
		}
	}
	if ctx.Err() != nil {
		for key, err := range out {
			if err == errUnanswered {
				out[key] = context.Cause(ctx)
			}
		}
	}
	return out
}

// DeleteVersion deletes one version for good, or a delete marker. A version that
// is locked is ErrDenied. One that is gone is fine.
func (b *Bucket) DeleteVersion(ctx context.Context, key, version string) error {
	full, err := b.writable("delete a version of", key)
	if err != nil {
		return err
	}
	return b.do(ctx, "delete a version of", key, repeatable, func(ctx context.Context, _ *exchange) error {
		err := b.core.RemoveObject(ctx, b.name, full, minio.RemoveObjectOptions{VersionID: version})
		if minio.ToErrorResponse(err).Code == "NoSuchVersion" {
			return nil
		}
		return err
	})
}

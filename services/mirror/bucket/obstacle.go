package bucket

import (
	"context"
	"errors"
	"strings"

	"github.com/minio/minio-go/v7"
)

// Obstacle looks for an object that has the name of one of a key's directories, or
// that had it and still has versions: MinIO takes writes below it, and lists nothing
// of them. It returns the obstacle's key in the bucket, with the prefix, or "". With
// clear the caller may say of which directories, given without the prefix and ending
// with '/', it is known that there is none of them nor of those above; nil knows of
// none. Of other servers than MinIO there is nothing to ask.
//
// A listing is not asked because it cannot tell: see [ListOptions.After].
func (b *Bucket) Obstacle(ctx context.Context, key string, clear func(dir string) bool) (string, error) {
	if b.caps.Server != MinIO {
		return "", nil
	}
	full, err := b.full(key)
	if err != nil {
		return "", &RequestError{Op: "look above", Where: b.String(), Key: key, Err: err}
	}
	for dir := Parent(full); dir != ""; dir = Parent(dir) {
		if clear != nil && len(dir) > len(b.prefix) && clear(dir[len(b.prefix):]) {
			return "", nil
		}
		name := strings.TrimSuffix(dir, "/")
		if name == "" || strings.HasSuffix(name, "/") {
			continue // A server that has such keys cannot have an object of the name.
		}
		is, err := b.stands(ctx, name)
		if err != nil || is {
			return name, err
		}
	}
	return "", nil
}

// Parent is the key of the directory that a key or a directory lies in, ending with
// '/'; "" if in none.
func Parent(key string) string {
	return key[:strings.LastIndexByte(strings.TrimSuffix(key, "/"), '/')+1]
}

// stands reports whether there is an object of a full key, or a delete marker over it.
func (b *Bucket) stands(ctx context.Context, full string) (is bool, err error) {
	err = b.do(ctx, "look for", strings.TrimPrefix(full, b.prefix), repeatable, func(ctx context.Context, x *exchange) error {
		_, err := b.core.StatObject(ctx, b.name, full, minio.StatObjectOptions{})
		is = err == nil || x.header.Get("X-Amz-Delete-Marker") == "true"
		return err
	})
	if is || errors.Is(err, ErrNotFound) {
		return is, nil
	}
	if errors.Is(err, ErrDenied) && len(full) < len(b.prefix) {
		return b.listedAlone(ctx, full, err)
	}
	return false, err
}

// listedAlone is stands for credentials that may list the bucket, but read nothing of it
// beside their prefix. What is only a delete marker they cannot see. Those that may list no
// more than their prefix are told of nothing above it: a listing of that is empty then.
func (b *Bucket) listedAlone(ctx context.Context, full string, denied error) (bool, error) {
	var p page
	err := b.do(ctx, "list", "", repeatable, func(ctx context.Context, _ *exchange) error {
		return b.fetchPage(ctx, pageRequest{prefix: full, max: 1}, &p)
	})
	switch {
	case errors.Is(err, ErrDenied):
		return false, nil
	case err != nil:
		return false, denied
	}
	return len(p.objects) > 0 && p.objects[0].Key == full, nil
}

package store

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/placetest"
)

// opened opens a bucket as a place until the test ends.
func opened(t testing.TB, c bucket.Config, o Options) *Place {
	t.Helper()
	p, err := Open(t.Context(), c, o)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

// TestContract holds buckets of all sorts to the contract of places.
func TestContract(t *testing.T) {
	for name, sort := range map[string]struct {
		o       minio.MakeBucketOptions
		prefix  string
		options Options
		plain   bool
	}{
		"plain":    {options: Options{Foreign: &Foreign{FileMode: 0o640, DirMode: 0o750}}},
		"versions": {o: minio.MakeBucketOptions{ObjectLocking: true}},
		"prefix":   {prefix: "some/prefix", o: minio.MakeBucketOptions{ObjectLocking: true}},
		"plain S3": {plain: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			placetest.Run(t, func(t *testing.T) placetest.Under {
				c := newBucket(t, server(t), sort.o)
				c.Prefix = sort.prefix
				if sort.plain {
					c, _ = enginetest.Plain(t, c)
				}
				p := opened(t, c, sort.options)
				if sort.plain {
					// S3 lists what lies below a key that is an object; the server behind does not.
					p.traits.Both = false
				}
				return under(t, c, p)
			})
		})
	}
}

// under puts the world around a place.
func under(t *testing.T, c bucket.Config, p *Place) placetest.Under {
	client := admin(t, c)
	key := func(path string) string {
		key, err := entry.EscapePath(path)
		must(t, err)
		if c.Prefix != "" {
			key = strings.TrimSuffix(c.Prefix, "/") + "/" + key
		}
		return key
	}
	return placetest.Under{
		Place: p,
		WriteBehind: func(path, content string) {
			_, err := client.PutObject(context.Background(), c.Bucket, key(path), strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
			must(t, err)
		},
		RemoveBehind: func(path string) {
			must(t, client.RemoveObject(context.Background(), c.Bucket, key(path), minio.RemoveObjectOptions{}))
		},
		ReadOnly: func() place.Place {
			ro := c
			ro.ReadOnly = true
			return opened(t, ro, p.o)
		},
		Litter: func() (left []string) {
			for u := range client.ListIncompleteUploads(t.Context(), c.Bucket, "", true) {
				must(t, u.Err)
				left = append(left, fmt.Sprintf("%s since %v", u.Key, u.Initiated.Format(time.TimeOnly)))
			}
			return left
		},
	}
}

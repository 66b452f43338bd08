package verify_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/place/local"
	"github.com/firedrill/firedrill/services/mirror/place/store"
	"github.com/firedrill/firedrill/services/mirror/proof"
	"github.com/firedrill/firedrill/services/mirror/verify"
)

// counted counts what a place is asked.
type counted struct {
	place.Place
	looks, whole atomic.Int32
}

func (c *counted) Entries(ctx context.Context, o place.ListOptions) iter.Seq2[entry.Entry, error] {
	return func(yield func(entry.Entry, error) bool) {
		if !o.Names {
			c.whole.Add(1)
		}
		c.Place.Entries(ctx, o)(yield)
	}
}

func (c *counted) Look(ctx context.Context, e entry.Entry) (entry.Entry, bool, error) {
	c.looks.Add(1)
	return c.Place.Look(ctx, e)
}

// TestAnObjectIsToldByItsTime changes attributes of some objects, and of most.
func TestAnObjectIsToldByItsTime(t *testing.T) {
	w := &world{TB: t, dir: t.TempDir(), bucket: server.Bucket(t, false)}
	for i := range 100 {
		enginetest.Write(t, w.dir, fmt.Sprintf("many/%03d", i), "x")
	}
	enginetest.Write(t, w.dir, "small", small)
	must(t, os.Symlink("small", filepath.Join(w.dir, "link")))
	p, err := local.Open(t.Context(), w.dir, local.Options{})
	must(t, err)
	q, err := store.Open(t.Context(), w.bucket, store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, errors.Join(p.Close(), q.Close())) })
	w.from, w.to = &enginetest.Rotten{Place: p}, &enginetest.Rotten{Place: q}
	w.sync()
	at := &counted{Place: w.to}
	check := func() verify.Result {
		t.Helper()
		at.looks.Store(0)
		at.whole.Store(0)
		r, err := verify.Check{Place: at, Level: proof.L1}.Against(t.Context(), w.manifest.Entries())
		must(t, err)
		return r
	}
	// A link cannot be told from a file.
	if r := check(); found(r) != "" || !r.Verified() || at.looks.Load() != 1 || at.whole.Load() != 0 {
		t.Errorf("untouched: %v: %s, after %d looks and %d listings of metadata", r, found(r), at.looks.Load(), at.whole.Load())
	}
	client := enginetest.Client(t, w.bucket)
	change := func(key string) {
		t.Helper()
		was, err := client.StatObject(t.Context(), w.bucket.Bucket, key, minio.StatObjectOptions{})
		must(t, err)
		meta := map[string]string{}
		for name, value := range was.UserMetadata {
			meta[name] = value
		}
		e, err := entry.FromMeta(key, was.Size, meta)
		must(t, err)
		e.Mode ^= 0o111
		_, err = client.CopyObject(t.Context(),
			minio.CopyDestOptions{Bucket: w.bucket.Bucket, Object: key, ReplaceMetadata: true, UserMetadata: e.Meta()},
			minio.CopySrcOptions{Bucket: w.bucket.Bucket, Object: key})
		must(t, err)
	}
	change("small")
	change("many/050")
	if r := check(); found(r) != "attributes many/050, attributes small" || at.looks.Load() != 3 || at.whole.Load() != 0 {
		t.Errorf("two changed: %v: %s, after %d looks and %d listings of metadata", r, found(r), at.looks.Load(), at.whole.Load())
	}
	for i := range 40 {
		change(fmt.Sprintf("many/%03d", i))
	}
	if r := check(); r.Verdict.MetadataOnly.Count != 42 || at.looks.Load() != 0 || at.whole.Load() != 1 {
		t.Errorf("most changed: %v, after %d looks and %d listings of metadata", r, at.looks.Load(), at.whole.Load())
	}
}

// What the mirror itself writes over something shows another time than that, so that a
// writer whose word has not reached the manifest is seen.
func TestTheMirrorGivesNothingTheSameTimeTwice(t *testing.T) {
	w := mirrored(t, "bucket")
	for past, err := range w.store.Past() {
		must(t, err)
		want := past.Dest
		switch past.Key {
		case "small":
			want.Mode ^= 0o111
			_, err = w.to.SetAttrs(t.Context(), want, past.Dest)
		case "d/e/other":
			want.UID++
			_, err = w.to.Put(t.Context(), place.Write{Entry: want, Have: past.Dest, Open: func(context.Context) (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader("other")), nil
			}})
		}
		must(t, err)
	}
	if r := w.check(proof.L1); found(r) != "attributes d/e/other, attributes small" {
		t.Errorf("%v: %s", r, found(r))
	}
}

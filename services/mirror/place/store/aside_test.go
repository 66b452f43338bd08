package store

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/zeebo/blake3"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// A trash may hold far more than the place: a listing passes it over.
func TestAListingDoesNotWalkTheTrash(t *testing.T) {
	for name, through := range map[string]func(testing.TB, bucket.Config) (bucket.Config, *enginetest.Proxy){"MinIO": enginetest.Counting, "plain S3": enginetest.Plain} {
		for _, alone := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, nothing else %t", name, alone), func(t *testing.T) {
				t.Parallel()
				c := newBucket(t, server(t), minio.MakeBucketOptions{})
				c.Prefix = "some/prefix"
				direct := opened(t, c, Options{})
				var items []bucket.BatchItem
				add := func(key string) { items = append(items, bucket.BatchItem{Key: key}) }
				for i := range 4000 {
					add(fmt.Sprintf("%s20261123T140827Z-run/d%d/%05d", trashDir, i%3, i))
				}
				var want []string
				if !alone {
					want = []string{"!", ".firedrill-tra", ".firedrill-trash!", ".firedrill-trash0", "a/b", "z"}
				}
				for _, key := range want {
					add(key)
				}
				for len(items) > 0 {
					n := min(len(items), bucket.MaxBatchItems)
					for i := range items[:n] {
						items[i].Open = nothing
					}
					_, err := direct.b.PutBatch(t.Context(), items[:n])
					must(t, err)
					items = items[n:]
				}
				counted, proxy := through(t, c)
				p := opened(t, counted, Options{})
				proxy.Took()
				var got []string
				told := 0
				for e, err := range p.Entries(t.Context(), place.ListOptions{Names: true, LeftOut: func(string) { told++ }}) {
					must(t, err)
					got = append(got, e.Key())
				}
				if strings.Join(got, " ") != strings.Join(want, " ") || told != 0 {
					t.Errorf("listed %q, told of %d", got, told)
				}
				if took := proxy.Took(); took["GET bucket"] > 4 {
					t.Errorf("%d keys took %v", len(want), took)
				}
			})
		}
	}
}

func nothing() (io.ReadCloser, error) { return http.NoBody, nil }

var began = time.Date(2026, 11, 23, 14, 8, 27, 0, time.UTC)

// What others have given to an object goes with it, and comes back with it, also where it is
// too large to be copied at once.
func TestWhatIsPutAsideKeepsWhatOthersGaveIt(t *testing.T) {
	for name, above := range map[string]int64{"at once": 1 << 40, "in parts": 5 << 20} {
		t.Run(name, func(t *testing.T) {
			c := newBucket(t, server(t), minio.MakeBucketOptions{})
			client := admin(t, c)
			p := opened(t, c, Options{})
			p.copyAbove = above
			for key, size := range map[string]int{"small": 10, "large": 11 << 20} {
				_, err := client.PutObject(t.Context(), c.Bucket, key, strings.NewReader(strings.Repeat("x", size)), int64(size), minio.PutObjectOptions{
					ContentType: "text/x-mine", CacheControl: "no-store", UserMetadata: map[string]string{"Owner": "me"}, DisableMultipart: true,
				})
				must(t, err)
				e, there, err := p.Look(t.Context(), entry.Entry{Path: key})
				if must(t, err); !there {
					t.Fatal("it is not there")
				}
				before, err := p.b.Stat(t.Context(), key)
				must(t, err)
				bin := place.Bin{Run: "r", At: began}
				must(t, p.PutAside(t.Context(), bin, []entry.Entry{e})[0])
				aside, err := p.b.Stat(t.Context(), binKey(bin, key))
				must(t, err)
				for k, err := range p.Kept(t.Context(), place.KeptOptions{}) {
					must(t, err)
					_, err = p.Restore(t.Context(), k)
					must(t, err)
				}
				after, err := p.b.Stat(t.Context(), key)
				must(t, err)
				for what, o := range map[string]bucket.Object{"put aside": aside, "back": after} {
					if !maps.Equal(o.Meta, before.Meta) || !maps.Equal(o.Headers, before.Headers) || o.Size != before.Size {
						t.Errorf("%s %s: %v %v, and not %v %v", key, what, o.Meta, o.Headers, before.Meta, before.Headers)
					}
				}
			}
		})
	}
}

// Whoever is handed the same work again, after it was done, leaves what is in the trash.
func TestADirectoryIsPutAsideOnce(t *testing.T) {
	c := newBucket(t, server(t), minio.MakeBucketOptions{})
	p := opened(t, c, Options{})
	behind(t, c, "d/", "", minio.PutObjectOptions{UserMetadata: map[string]string{"Owner": "me"}})
	e, _, err := p.Look(t.Context(), entry.Entry{Path: "d", Kind: entry.Dir})
	must(t, err)
	bin := place.Bin{Run: "r", At: began}
	for range 2 {
		must(t, p.PutAside(t.Context(), bin, []entry.Entry{e})[0])
	}
	if o, err := p.b.Stat(t.Context(), binKey(bin, "d/")); err != nil || o.Meta["Owner"] != "me" {
		t.Errorf("it keeps %v, %v", o.Meta, err)
	}
}

// What the server knows of a content, and what the mirror wrote beside it, is the same when it
// is back, however it was uploaded and however it is copied.
func TestWhatIsBackHasItsChecksums(t *testing.T) {
	const part = 5 << 20
	for name, plain := range map[string]bool{"MinIO": false, "plain S3": true} {
		t.Run(name, func(t *testing.T) {
			c := newBucket(t, server(t), minio.MakeBucketOptions{})
			if plain {
				c, _ = enginetest.Plain(t, c)
			}
			p := opened(t, c, Options{})
			bin := place.Bin{Run: "r", At: began}
			for path, size := range map[string]int64{"small": 1000, "one": 3 << 20, "parts": 2*part + 1000, "one part": part} {
				content := strings.Repeat("0123456789abcdef", int(size+15)/16)[:size]
				w := file(path, content)
				w.Entry.Sum = sumOf(content)
				have := putParts(t, p, w, part)
				before, err := p.b.Stat(t.Context(), path)
				must(t, err)
				if before.CRC32C == nil {
					t.Fatalf("%q has no checksum to begin with", path)
				}
				must(t, p.PutAside(t.Context(), bin, []entry.Entry{have})[0])
				aside, err := p.b.Stat(t.Context(), binKey(bin, path))
				must(t, err)
				var back entry.Entry
				for k, err := range p.Kept(t.Context(), place.KeptOptions{Under: []string{path}}) {
					must(t, err)
					back, err = p.Restore(t.Context(), k)
					must(t, err)
				}
				after, err := p.b.Stat(t.Context(), path)
				must(t, err)
				for what, o := range map[string]bucket.Object{"put aside": aside, "back": after} {
					if o.CRC32C == nil || *o.CRC32C != *before.CRC32C || !maps.Equal(o.Meta, before.Meta) || o.Size != before.Size {
						t.Errorf("%q %s is %+v, and was %+v", path, what, o, before)
					}
				}
				if want := w.Entry.Sum; back.Sum.BLAKE3 != want.BLAKE3 || back.Sum.CRC32C != want.CRC32C || !back.Sum.Contains(entry.HasBLAKE3|entry.HasCRC32C) || back.MTime != w.Entry.MTime {
					t.Errorf("%q is back as %+v", path, back)
				}
			}
		})
	}
}

// putParts writes a file in parts if it has more than one's bytes or is to have just one.
func putParts(t *testing.T, p *Place, w place.Write, size int64) entry.Entry {
	t.Helper()
	if w.Entry.Size < size {
		return put(t, p, w)
	}
	token, err := p.StartParts(t.Context(), w, size)
	must(t, err)
	r, err := w.Open(t.Context())
	must(t, err)
	var parts [][]byte
	for left := w.Entry.Size; left > 0; left -= size {
		part, err := p.PutPart(t.Context(), token, len(parts)+1, r, min(left, size))
		must(t, err)
		parts = append(parts, part)
	}
	e, err := p.FinishParts(t.Context(), w, token, parts)
	must(t, err)
	return e
}

// sumOf is the hashes of a content.
func sumOf(content string) entry.Sum {
	return entry.Sum{
		Has:    entry.HasBLAKE3 | entry.HasCRC32C,
		BLAKE3: blake3.Sum256([]byte(content)), CRC32C: crc32.Checksum([]byte(content), crc32.MakeTable(crc32.Castagnoli)),
	}
}

// What has no room for its name in the trash stays where it is.
func TestWhatCannotBeKeptIsNotRemoved(t *testing.T) {
	c := newBucket(t, server(t), minio.MakeBucketOptions{})
	p := opened(t, c, Options{})
	name := strings.Repeat("n", 200)
	long := strings.Join([]string{name, name, name, name, name}, "/")
	e, err := p.Put(t.Context(), place.Write{Entry: entry.Entry{Path: long}, Open: func(context.Context) (io.ReadCloser, error) { return nothing() }})
	must(t, err)
	errs := p.PutAside(t.Context(), place.Bin{Run: "r", At: began}, []entry.Entry{e})
	wants(t, errs[0], bucket.ErrKey)
	if !strings.Contains(errs[0].Error(), "it was left alone") {
		t.Errorf("it says %v", errs[0])
	}
	if _, there, err := p.Look(t.Context(), e); !there || err != nil {
		t.Errorf("it is there: %t, %v", there, err)
	}
}

// What the server copied is compared before anything is deleted, and what was written
// meanwhile is not deleted at all. The copy of what that was before stays: whoever was
// handed the same item may have deleted it.
func TestWhatHappensWhileItIsPutAside(t *testing.T) {
	bin := place.Bin{Run: "r", At: began}
	for name, c := range map[string]struct {
		// hit is the key that somebody writes to once the server has copied.
		hit  string
		want error
		left string
	}{
		"the copy is not what it should be": {binKey(bin, "f"), place.ErrCorrupt, "content"},
		"somebody writes":                   {"f", place.ErrChanged, "others'"},
	} {
		t.Run(name, func(t *testing.T) {
			direct := newBucket(t, server(t), minio.MakeBucketOptions{})
			client := admin(t, direct)
			p := opened(t, proxy(t, direct, func(*http.Request) {}, func(r *http.Response) error {
				if r.Request.Method != http.MethodPut || r.Request.Header.Get("X-Amz-Copy-Source") == "" {
					return nil
				}
				_, err := client.PutObject(context.WithoutCancel(r.Request.Context()), direct.Bucket, c.hit, strings.NewReader("others'"), 7, minio.PutObjectOptions{})
				return err
			}), Options{})
			e := put(t, p, file("f", "content"))
			wants(t, p.PutAside(t.Context(), bin, []entry.Entry{e})[0], c.want)
			holds(t, p, map[string]string{"f": c.left})
			var kept []string
			for k, err := range p.Kept(t.Context(), place.KeptOptions{}) {
				must(t, err)
				kept = append(kept, k.Entry.Path)
			}
			if !slices.Equal(kept, []string{"f"}) {
				t.Errorf("it keeps %q", kept)
			}
		})
	}
}

// Whoever was killed between the copy and the delete is followed by somebody who does both.
func TestKilledBetweenTheCopyAndTheDelete(t *testing.T) {
	direct := newBucket(t, server(t), minio.MakeBucketOptions{})
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	p := opened(t, proxy(t, direct, func(q *http.Request) {
		if q.Method == http.MethodPost && q.URL.Query().Has("delete") {
			kill()
			q.URL.RawQuery = "" // nothing is deleted
		}
	}, func(*http.Response) error { return nil }), Options{})
	e := put(t, p, file("f", "content"))
	if err := p.PutAside(ctx, place.Bin{Run: "killed", At: began}, []entry.Entry{e})[0]; err == nil {
		t.Fatal("it was not killed")
	}
	holds(t, p, map[string]string{"f": "content"})
	again := opened(t, direct, Options{})
	must(t, again.PutAside(t.Context(), place.Bin{Run: "again", At: began.Add(time.Minute)}, []entry.Entry{e})[0])
	holds(t, again, nil)
	var kept []place.Kept
	for k, err := range again.Kept(t.Context(), place.KeptOptions{}) {
		must(t, err)
		kept = append(kept, k)
	}
	if len(kept) != 2 {
		t.Fatalf("kept: %v", kept)
	}
	got, err := again.Restore(t.Context(), kept[1])
	if must(t, err); got.MTime != mtime || got.Mode != 0o640 || got.UID != 12 {
		t.Errorf("it is %+v", got)
	}
	_, err = again.Restore(t.Context(), kept[0])
	wants(t, err, place.ErrChanged)
	holds(t, again, map[string]string{"f": "content"})
}

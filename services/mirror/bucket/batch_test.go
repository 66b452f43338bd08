package bucket

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/minio/minio-go/v7"
)

func item(key, text string, meta map[string]string) BatchItem {
	return BatchItem{Key: key, Size: int64(len(text)), Meta: meta, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(text)), nil
	}}
}

func TestBatch(t *testing.T) {
	for _, prefix := range []string{"", "deep/er"} {
		c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
		c.Prefix = prefix
		b := open(t, c)
		items := []BatchItem{
			item("z", "", nil), item("dir/", "", map[string]string{"Kind": "dir"}),
			item("a", "text", map[string]string{"name": "a=b&c %", "Mtime": "1.5"}),
			item("largest", string(randomBytes(MaxBatchItem)), nil),
			item(strings.Repeat("long name/", 90)+"x", "text", nil),
		}
		written, err := b.PutBatch(t.Context(), items)
		must(t, err)
		for i, w := range written {
			o, err := b.Stat(t.Context(), items[i].Key)
			must(t, err)
			r, err := items[i].Open()
			must(t, err)
			text, err := io.ReadAll(r)
			must(t, err)
			if !w.Confirmed || w.ETag != o.ETag || w.Size != o.Size || w.CRC32C != crcOf(text) || content(t, b, o.Key) != string(text) {
				t.Errorf("%.20s: wrote %+v, then %+v", o.Key, w, o)
			}
		}
		if got := list(t, b, ListOptions{}); len(got) != len(items) {
			t.Errorf("%d objects, want %d: %q", len(got), len(items), keysOf(got))
		}
		if o, err := b.Stat(t.Context(), "a"); err != nil || o.Meta["Name"] != "a=b&c %" || o.Meta["Mtime"] != "1.5" {
			t.Errorf("got %+v, %v", o, err)
		}
	}
}

// TestBatchWithBadItems sends what the server drops between what it stores.
func TestBatchWithBadItems(t *testing.T) {
	b := fresh(t)
	var items []BatchItem
	for i := range 100 {
		items = append(items, item(fmt.Sprintf("good/%03d", i), "text", nil))
	}
	put(t, b, "object", "text", PutOptions{})
	broken := errors.New("the disk is gone")
	bad := map[string]BatchItem{}
	for _, i := range []BatchItem{
		// What this server does not store, or hides, and says nothing of.
		item(strings.Repeat("n", 300), "text", nil), item("object/below", "text", nil),
		// What it would store under another key.
		item("/a", "text", nil), item("a//b", "text", nil), item("a/./b", "text", nil), item("../a", "text", nil), item("..", "", nil), item("./a", "text", nil), item("/", "", nil),
		// What cannot be sent.
		item("a\xff", "text", nil), item("", "text", nil), item("full/", "text", nil), item("large", strings.Repeat("x", MaxBatchItem+1), nil),
		{Key: "negative", Size: -1, Open: item("", "", nil).Open}, {Key: "shorter", Size: 5, Open: item("", "text", nil).Open},
		{Key: "unreadable", Size: 4, Open: func() (io.ReadCloser, error) { return nil, broken }},
		{Key: "breaks", Size: 4, Open: func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(broken)), nil }},
	} {
		bad[i.Key] = i
		at := len(items) / 2
		items = slices.Insert(items, at, i)
	}
	written, err := b.PutBatch(t.Context(), items)
	failed := failedKeys(t, err)
	for i, it := range items {
		_, isBad := bad[it.Key]
		if isBad != slices.Contains(failed, it.Key) || isBad == written[i].Confirmed {
			t.Errorf("%.20q: failed %v, wrote %+v", it.Key, !isBad, written[i])
		}
	}
	wants(t, err, ErrKey, ErrNotStored, ErrHidden, broken, io.ErrUnexpectedEOF)
	if got := len(list(t, b, ListOptions{})); got != 101 {
		t.Errorf("%d objects, want the 100 good ones and one", got)
	}

	twice := []BatchItem{item("twice", "first", nil), item("twice", "second", nil)}
	written, err = b.PutBatch(t.Context(), twice)
	wants(t, err, ErrKey)
	if !written[0].Confirmed || written[1].Confirmed || content(t, b, "twice") != "first" {
		t.Errorf("wrote %+v", written)
	}
}

func TestBatchLimits(t *testing.T) {
	b := fresh(t)
	if w, err := b.PutBatch(t.Context(), nil); len(w) > 0 || err != nil {
		t.Errorf("nothing: %v, %v", w, err)
	}
	if _, err := b.PutBatch(t.Context(), make([]BatchItem, MaxBatchItems+1)); err == nil {
		t.Error("too many items are taken")
	}
	large := make([]BatchItem, MaxBatchBytes/MaxBatchItem+1)
	for i := range large {
		large[i] = BatchItem{Key: fmt.Sprint(i), Size: MaxBatchItem}
	}
	if _, err := b.PutBatch(t.Context(), large); err == nil {
		t.Error("too much content is taken")
	}
}

// TestBatchThatIsNotUnpacked stands before a server that says 200 and does nothing.
func TestBatchThatIsNotUnpacked(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	put(t, open(t, c), "same", "text", PutOptions{Meta: map[string]string{"Age": "old"}})
	b := open(t, proxy(t, c, func(q *http.Request) {
		if q.Method == http.MethodPut {
			q.Method, q.URL.RawQuery, q.Body, q.ContentLength = http.MethodGet, "", http.NoBody, 0
			q.URL.Path = "/minio/health/live"
			q.Header.Del("Authorization")
		}
	}, nil))
	written, err := b.PutBatch(t.Context(), []BatchItem{
		item("missing", "text", nil), item("same", "text", map[string]string{"Age": "new"}),
	})
	wants(t, err, ErrNotStored)
	// The one that has the same content already has other metadata.
	if got := failedKeys(t, err); len(got) != 2 || written[0].Confirmed || written[1].Confirmed {
		t.Errorf("failed: %q, wrote %+v", got, written)
	}
}

// TestBatchIntoVersions writes the same batch twice: the second must be the latest.
func TestBatchIntoVersions(t *testing.T) {
	b := open(t, makeBucket(t, server(t, false), minio.MakeBucketOptions{ObjectLocking: true}))
	for _, text := range []string{"first", "second"} {
		_, err := b.PutBatch(t.Context(), []BatchItem{item("key", text, nil)})
		must(t, err)
		if content(t, b, "key") != text {
			t.Errorf("%s is not the latest", text)
		}
	}
}

// TestVerify looks at dense and at sparse keys, and counts the requests.
func TestVerify(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	keys := fill(t, open(t, c), 3000)
	var lists, heads atomic.Int32
	b := open(t, proxy(t, c, func(q *http.Request) {
		if isListing(q) {
			lists.Add(1)
		} else if q.Method == http.MethodHead {
			heads.Add(1)
		}
	}, nil))
	all := map[string]Object{}
	for _, o := range list(t, b, ListOptions{Metadata: true}) {
		all[o.Key] = o
	}
	expect := func(keys ...string) (out []Expected) {
		for _, key := range keys {
			o := all[key]
			out = append(out, Expected{Key: key, Size: o.Size, ETag: o.ETag, Meta: o.Meta})
		}
		return out
	}
	stamped := func(es []Expected, change func(i int, e *Expected)) []Expected {
		for i := range es {
			es[i].stamp = all[es[i].Key].LastModified
			change(i, &es[i])
		}
		return es
	}
	var every100 []string
	for i := 50; i < len(keys); i += 100 {
		every100 = append(every100, keys[i])
	}
	for name, v := range map[string]struct {
		expected     []Expected
		lists, heads int32
		failed       []string
	}{
		"nothing": {nil, 0, 0, nil},
		"one":     {expect(keys[1500]), 1, 0, nil},
		"dense":   {expect(keys[1000:2000]...), 2, 0, nil},
		"sparse":  {expect(every100...), 1, int32(len(every100)) - 1 + 5, nil}, // one for each directory
		"missing": {expect(append([]string{"0 before", keys[2998] + "x", "z after"}, keys[2990:]...)...), 1, 0, []string{"0 before", keys[2998] + "x", "z after"}},
		"other": {[]Expected{
			{Key: keys[0], Size: 1, ETag: all[keys[0]].ETag}, {Key: keys[1], Size: all[keys[1]].Size, ETag: "x"},
			{Key: keys[2], Size: all[keys[2]].Size, ETag: all[keys[2]].ETag, Meta: map[string]string{}}, {Key: keys[3], Size: all[keys[3]].Size, ETag: all[keys[3]].ETag},
		}, 1, 0, keys[:3]},
		"just written":           {stamped(expect(keys[1000:2000]...), func(int, *Expected) {}), 2, 2, nil},
		"one of another time":    {stamped(expect(keys[:500]...), func(i int, e *Expected) { e.stamp = e.stamp.Add(time.Duration(i / 499)) }), 1, 2 + 2, nil},
		"all of other metadata":  {stamped(expect(keys[:500]...), func(_ int, e *Expected) { e.Meta = map[string]string{"Number": "x"} }), 1, 1, keys[:500]},
		"one of another content": {stamped(expect(keys[:500]...), func(i int, e *Expected) { e.ETag += strings.Repeat("x", i/499) }), 1, 2 + 1, keys[499:500]},
	} {
		t.Run(name, func(t *testing.T) {
			lists.Store(0)
			heads.Store(0)
			err := b.Verify(t.Context(), v.expected)
			if v.failed == nil {
				must(t, err)
			} else {
				wants(t, err, ErrNotStored)
				if got := failedKeys(t, err); !slices.Equal(got, v.failed) {
					t.Errorf("failed: %q, want %q", got, v.failed)
				}
			}
			if name != "missing" && (lists.Load() > v.lists || heads.Load() > v.heads) {
				t.Errorf("%d listings and %d heads, want %d and %d", lists.Load(), heads.Load(), v.lists, v.heads)
			}
		})
	}
}

package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/minio/minio-go/v7"
)

// fill writes n small objects in batches and returns their keys in order.
func fill(t testing.TB, b *Bucket, n int) []string {
	t.Helper()
	keys := make([]string, n)
	items := make([]BatchItem, n)
	for i := range n {
		keys[i] = fmt.Sprintf("d%02d/file %05d", i/700, i)
		items[i] = item(keys[i], "content of "+strconv.Itoa(i), map[string]string{"Number": strconv.Itoa(i)})
	}
	for chunk := range slices.Chunk(items, MaxBatchItems) {
		_, err := b.PutBatch(t.Context(), chunk)
		must(t, err)
	}
	return keys
}

func TestList(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	c.Prefix = "below & here/"
	b := open(t, c)
	outside := c
	outside.Prefix = ""
	put(t, open(t, outside), "below", "not ours", PutOptions{})
	put(t, open(t, outside), "below & here!", "not ours", PutOptions{})
	keys := fill(t, b, 5000)

	for name, q := range map[string]struct {
		options ListOptions
		want    []string
	}{
		"all":         {ListOptions{}, keys},
		"metadata":    {ListOptions{Metadata: true}, keys},
		"small pages": {ListOptions{PageSize: 377}, keys},
		"prefix":      {ListOptions{Prefix: "d01/"}, keys[700:1400]},
		"part":        {ListOptions{Prefix: "d03/file 02", PageSize: 10}, keys[2100:2800]},
		"after":       {ListOptions{After: keys[1234], PageSize: 999}, keys[1235:]},
		"nothing":     {ListOptions{Prefix: "e"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := list(t, b, q.options)
			if !slices.Equal(keysOf(got), q.want) {
				t.Fatalf("%d keys, want %d", len(got), len(q.want))
			}
			for _, o := range got {
				if o.Size == 0 || len(o.ETag) != 32 || time.Since(o.LastModified) > time.Hour || (o.Meta != nil) != q.options.Metadata {
					t.Fatalf("got %+v", o)
				}
				if n := strings.TrimLeft(o.Key[len("d00/file "):], "0"); o.Meta != nil && n != "" && o.Meta["Number"] != n {
					t.Fatalf("%s: metadata %v", o.Key, o.Meta)
				}
			}
		})
	}
}

// oddKeys are hard for some layer: URLs, XML, paths, orders.
func oddKeys() []string {
	keys := []string{
		"a", "a b", " a", "a ", "a+b", "a%20b", "a%zz", "a&b", "a<b>", `a"b'`, "a?b=c", "a#b", "a;b", "a=b", "a\tb", "a\nb", "a\r\nb", "a\u0001b",
		"é", "e\u0301", "日本", "🙂", "\u00a0x", "a:b", "a*b", "a|b", "a!b", "a-b", "A/b", "A/c d/", "A.b", "A-/b", "z/", "~", "^", "`", "{x}", "[x]", "$x", "@", ",",
		"a.", ".a", "..a", "A/.b", "A/...", strings.Repeat("x", 250), strings.Repeat("y/", 300) + "z",
	}
	slices.Sort(keys)
	return keys
}

// TestOddKeys writes, lists, reads and deletes keys that are hard, alone and in
// a batch.
func TestOddKeys(t *testing.T) {
	for _, way := range []string{"alone", "batch"} {
		t.Run(way, func(t *testing.T) {
			b := fresh(t)
			keys := oddKeys()
			if way == "batch" {
				var items []BatchItem
				for _, key := range keys {
					items = append(items, item(key, textOf(key), nil))
				}
				_, err := b.PutBatch(t.Context(), items)
				must(t, err)
			} else {
				for _, key := range keys {
					put(t, b, key, textOf(key), PutOptions{})
				}
			}
			if got := keysOf(list(t, b, ListOptions{PageSize: 7})); !slices.Equal(got, keys) {
				t.Fatalf("\n got %q\nwant %q", got, keys)
			}
			for _, key := range keys {
				if content(t, b, key) != textOf(key) {
					t.Errorf("%q: another content", key)
				}
			}
			must(t, b.Delete(t.Context(), keys))
			if got := list(t, b, ListOptions{}); len(got) > 0 {
				t.Errorf("left: %q", keysOf(got))
			}
		})
	}
}

func textOf(key string) string {
	if strings.HasSuffix(key, "/") {
		return ""
	}
	return "of " + key
}

// rewriteListing changes the bodies of listings from the after-th on. Unless it
// is honest, a shorter body ends with its connection.
func rewriteListing(after int, change func([]byte) []byte, honest bool) func(*http.Response) error {
	var n atomic.Int32
	return func(a *http.Response) error {
		if !isListing(a.Request) || int(n.Add(1)) <= after {
			return nil
		}
		shorter, err := rewrite(a, change)
		if err == nil && !honest && shorter {
			a.Header.Del("Content-Length")
			a.ContentLength = -1
			a.Body = io.NopCloser(io.MultiReader(a.Body, iotest.ErrReader(io.ErrUnexpectedEOF)))
		}
		return err
	}
}

// rewrite changes the body of an answer, and says whether it became shorter.
func rewrite(a *http.Response, change func([]byte) []byte) (shorter bool, err error) {
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return false, err
	}
	a.Body.Close()
	changed := change(text)
	a.Header.Set("Content-Length", strconv.Itoa(len(changed)))
	a.ContentLength, a.Body = int64(len(changed)), io.NopCloser(bytes.NewReader(changed))
	return len(changed) < len(text), nil
}

// TestListingsThatLie puts a proxy before the server that cuts or changes the
// second page: there must be an error, and nothing of that page.
func TestListingsThatLie(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	keys := fill(t, open(t, c), 250)
	half := func(text []byte) []byte { return text[:len(text)/2] }
	replace := func(old, new string) func([]byte) []byte {
		return func(text []byte) []byte { return bytes.Replace(text, []byte(old), []byte(new), 1) }
	}
	for name, lie := range map[string]struct {
		change func([]byte) []byte
		honest bool
		want   error
	}{
		"broken off": {half, false, ErrUnreachable},
		"cut":        {half, true, ErrListing},
		"empty":      {func([]byte) []byte { return nil }, true, ErrListing},
		"last":       {replace("<NextContinuationToken>", "<X>"), true, ErrListing},
		"an entry": {func(text []byte) []byte {
			i, j := bytes.Index(text, []byte("<Contents>")), bytes.Index(text, []byte("</Contents>"))
			return slices.Concat(text[:i], text[j+len("</Contents>"):])
		}, true, ErrListing},
		"order":       {replace("<Key>d00/file+00100", "<Key>d00/file+99999"), true, ErrListing},
		"first again": {replace("<Key>d00/file+00100", "<Key>d00/file+00099"), true, ErrListing},
		"an error":    {func([]byte) []byte { return []byte("<Error><Code>InternalError</Code></Error>") }, true, ErrListing},
	} {
		t.Run(name, func(t *testing.T) {
			// The first listing is Open's.
			b := open(t, proxy(t, c, nil, rewriteListing(2, lie.change, lie.honest)))
			var got []string
			var last error
			for o, err := range b.List(t.Context(), ListOptions{PageSize: 100}) {
				if last != nil {
					t.Fatal("it goes on after an error")
				}
				if last = err; err == nil {
					got = append(got, o.Key)
				}
			}
			wants(t, last, lie.want)
			if !slices.Equal(got, keys[:100]) {
				t.Errorf("%d keys, want those of the first page", len(got))
			}
		})
	}
}

// TestListGoesOnAfterOneBreak cuts one page once: fetched again, it is complete.
func TestListGoesOnAfterOneBreak(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	keys := fill(t, open(t, c), 250)
	first := true
	b := open(t, proxy(t, c, nil, rewriteListing(2, func(text []byte) []byte {
		if first {
			first = false
			return text[:len(text)/3]
		}
		return text
	}, false)))
	if got := keysOf(list(t, b, ListOptions{PageSize: 100})); !slices.Equal(got, keys) || first {
		t.Errorf("%d keys, want %d", len(got), len(keys))
	}
}

func TestListStopsWhenAsked(t *testing.T) {
	b := fresh(t)
	fill(t, b, 100)
	n := 0
	for _, err := range b.List(t.Context(), ListOptions{PageSize: 10}) {
		must(t, err)
		if n++; n == 15 {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var last error
	n = 0
	for _, err := range b.List(ctx, ListOptions{PageSize: 10}) {
		if n++; n == 15 {
			cancel()
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("after %d keys: %v, want that it was cancelled", n, last)
	}
	cancel()
}

func TestListWithoutTheRightToReadTellsNoMetadata(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	put(t, open(t, c), "a", "text", PutOptions{Meta: map[string]string{"Name": "x"}})
	b := open(t, assume(t, c, nil, `{"Effect":"Allow","Action":["s3:ListBucket","s3:PutObject"],"Resource":["arn:aws:s3:::BUCKET","arn:aws:s3:::BUCKET/*"]}`))
	if got := list(t, b, ListOptions{Metadata: true}); len(got) != 1 || got[0].Meta != nil {
		t.Errorf("got %+v, want nil metadata", got)
	}
	// Such credentials can write a batch, but not prove it.
	_, err := b.PutBatch(t.Context(), []BatchItem{item("b", "text", nil)})
	wants(t, err, ErrNotStored)
	if !strings.Contains(err.Error(), "let these credentials read") {
		t.Error(err)
	}
}

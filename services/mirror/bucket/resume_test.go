package bucket

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
)

// siblings are directories of which one's keys come before another's whose name it
// begins with: there MinIO's listings from a key on go wrong.
func siblings(t testing.TB, b *Bucket, n int) []string {
	t.Helper()
	var keys []string
	for _, dir := range []string{"a", "a-x", "a.b", "a.b.c"} {
		for i := range n {
			keys = append(keys, fmt.Sprintf("%s/%05d", dir, i))
		}
	}
	slices.Sort(keys)
	write(t, b, keys)
	return keys
}

// TestABatchBesideAnother writes directories beside each other, of which a listing
// from a key on shows nothing.
func TestABatchBesideAnother(t *testing.T) {
	b := fresh(t)
	keys := siblings(t, b, 700)
	if got := keysOf(list(t, b, ListOptions{})); !slices.Equal(got, keys) {
		t.Errorf("%d keys, want %d", len(got), len(keys))
	}
	// Should this fail, the server was mended, and resume.go can go.
	if got := list(t, b, ListOptions{After: "a/00009", PageSize: 100}); len(got) > 0 {
		t.Errorf("%d keys after one of the last directory", len(got))
	}
}

// TestAListingOutlivesTheServer restarts it before each page of a listing.
func TestAListingOutlivesTheServer(t *testing.T) {
	m := server(t, false)
	c := makeBucket(t, m, minio.MakeBucketOptions{})
	c.Prefix = "below/"
	keys := siblings(t, open(t, c), 120)
	for at := int32(2); at <= 6; at++ {
		var n, restarts atomic.Int32
		b := open(t, proxy(t, c, func(q *http.Request) {
			if isListing(q) && q.URL.Query().Get("max-keys") == "100" && n.Add(1) == at {
				restarts.Add(1)
				must(t, m.Restart(t.Context()))
			}
		}, nil))
		got := keysOf(list(t, b, ListOptions{PageSize: 100}))
		if !slices.Equal(got, keys) || restarts.Load() != 1 && at <= 5 {
			t.Errorf("restarted %d times, at page %d: %d keys, want %d", restarts.Load(), at, len(got), len(keys))
		}
	}
}

// TestAListingWithoutACache changes what the server says of its cache.
func TestAListingWithoutACache(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	keys := siblings(t, open(t, c), 120)
	token := regexp.MustCompile("<NextContinuationToken>(.*)</NextContinuationToken>")
	for tag, want := range map[string]error{
		tokenTag + "v2,id:lost,p:0,s:0]": nil, // goes on with a new one
		returnTag:                        ErrListing,
	} {
		b := open(t, proxy(t, c, nil, rewriteListing(0, func(text []byte) []byte {
			return token.ReplaceAllFunc(text, func(found []byte) []byte {
				text, err := base64.StdEncoding.DecodeString(string(token.FindSubmatch(found)[1]))
				if err != nil {
					return nil
				}
				key, _, _ := strings.Cut(string(text), tokenTag)
				return []byte("<NextContinuationToken>" + tokenAfter(key, tag) + "</NextContinuationToken>")
			})
		}, true)))
		var got []string
		var last error
		for o, err := range b.List(t.Context(), ListOptions{PageSize: 100}) {
			if last = err; err == nil {
				got = append(got, o.Key)
			}
		}
		if !errors.Is(last, want) || want == nil && !slices.Equal(got, keys) {
			t.Errorf("%s: %d keys, want %d; %v, want %v", tag, len(got), len(keys), last, want)
		}
	}
}

func TestTags(t *testing.T) {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for token, want := range map[string][2]string{
		"":               {},
		"1ueGcxLPRx1Tr":  {},
		encode("key"):    {},
		encode("key[x]"): {},
		tokenAfter("k[minio_cache:v1]", tokenTag+"v2,id:x-y,p:0,s:0]"): {tokenTag + "v2,id:x-y,p:0,s:0]", "x-y"},
		tokenAfter("k", returnTag):                                     {returnTag, ""},
		tokenAfter("k", tokenTag+"v2,id:x]"):                           {tokenTag + "v2,id:x]", "x"},
	} {
		if got := tagOf(token); got != want[0] || idOf(got) != want[1] {
			t.Errorf("%q: %q, %q", token, got, idOf(got))
		}
	}
}

package bucket

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"
)

// listings notes the prefixes that were asked for, and which of them as one directory.
type listings struct {
	mu        sync.Mutex
	all, flat []string
}

func (l *listings) note(q *http.Request) {
	if !isListing(q) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	prefix := q.URL.Query().Get("prefix")
	if q.URL.Query().Get("delimiter") != "" {
		l.flat = append(l.flat, prefix)
	} else {
		l.all = append(l.all, prefix)
	}
}

// write puts an object at each key, in batches.
func write(t testing.TB, b *Bucket, keys []string) {
	t.Helper()
	for chunk := range slices.Chunk(keys, MaxBatchItems) {
		var items []BatchItem
		for _, key := range chunk {
			items = append(items, item(key, textOf(key), map[string]string{"Key": fmt.Sprintf("%+q", key)}))
		}
		_, err := b.PutBatch(t.Context(), items)
		must(t, err)
	}
}

// numbered are n keys in a directory.
func numbered(dir string, n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("%s%05d", dir, i))
	}
	return keys
}

// TestListingByDirectories lists trees of several forms by their directories, and one
// page after the other.
func TestListingByDirectories(t *testing.T) {
	small := numbered("d", 1100)
	for i := range small {
		small[i] += "/x"
	}
	for name, c := range map[string]struct {
		keys []string
		// asked are the prefixes that must be listed, and flat those as one directory.
		asked, flat []string
		// pages says that some are listed in several pages, which are not counted.
		pages bool
	}{
		"beside objects": {slices.Concat(
			numbered("a/", 600), numbered("a-x/", 300), numbered("a.b/", 450), numbered("a.b.c/", 30), numbered("z/y/x/", 200),
			[]string{"!", "a!", "a,", "a-y", "a.b!", "a.b0", "b", "é/1", "日本/2", "z!", "zz", "z/"},
		), []string{"", "a/", "z/", "é/", "日本/"}, []string{""}, false},
		"one large one":      {slices.Concat(numbered("a/", 2500), numbered("b/", 700), numbered("c/", 1)), []string{"", "a/", "b/", "c/"}, []string{""}, true},
		"within others":      {slices.Concat(numbered("x/y/a/", 800), numbered("x/y/b/", 800), numbered("x/y/c/", 10), []string{"x/y/bb"}), []string{"", "x/y/b/", "x/y/c/"}, []string{"", "x/", "x/y/"}, false},
		"on a page's border": {slices.Concat(numbered("a/", 1000), numbered("b/", 1000), numbered("c/", 1)), []string{"", "a/", "b/", "c/"}, []string{""}, true},
		"one page":           {slices.Concat(numbered("a/", 500), numbered("b/", 500)), []string{""}, nil, false},
		// No directory, or too many for one page and for one each; at the end it is asked
		// whether that was all.
		"loose objects": {slices.Concat(numbered("a", 1200), numbered("b/", 300)), []string{"", "", ""}, nil, false},
		"small ones":    {small, []string{"", "", ""}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			config := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
			config.Prefix = "p/"
			slices.Sort(c.keys)
			write(t, open(t, config), c.keys)
			var l listings
			b := open(t, proxy(t, config, func(q *http.Request) { l.note(q) }, nil))
			for _, metadata := range []bool{false, true} {
				l.all, l.flat = nil, nil
				got := list(t, b, ListOptions{Metadata: metadata})
				if !slices.Equal(keysOf(got), c.keys) {
					t.Fatalf("%d keys, want %d:\n%q", len(got), len(c.keys), keysOf(got))
				}
				for _, o := range got {
					if metadata && o.Meta["Key"] != fmt.Sprintf("%+q", o.Key) || !metadata && o.Meta != nil {
						t.Fatalf("%q: metadata %v", o.Key, o.Meta)
					}
				}
				slices.Sort(l.all)
				prefixed := func(of []string) (out []string) {
					for _, p := range of {
						out = append(out, "p/"+p)
					}
					return out
				}
				if c.pages {
					l.all = slices.Compact(l.all)
				}
				if !slices.Equal(l.all, prefixed(c.asked)) || !slices.Equal(l.flat, prefixed(c.flat)) {
					t.Errorf("asked for %q and, as one directory, for %q", l.all, l.flat)
				}
			}
		})
	}
}

// TestAListingByDirectoriesThatFails has one directory's listing fail: what comes
// before it is there, then the error, and nothing else.
func TestAListingByDirectoriesThatFails(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	var keys []string
	for d := range 8 {
		keys = append(keys, numbered(fmt.Sprintf("d%d/", d), 300)...)
	}
	write(t, open(t, c), keys)
	fail := func(prefix string) func(*http.Response) error {
		return func(a *http.Response) error {
			if q := a.Request; !isListing(q) || q.URL.Query().Get("prefix") != prefix {
				return nil
			}
			a.StatusCode = http.StatusForbidden
			_, err := rewrite(a, func([]byte) []byte { return []byte("<Error><Code>InvalidAccessKeyId</Code></Error>") })
			return err
		}
	}
	for at, want := range map[string]int{"d3/": 1000, "d5/": 1500, "d7/": 2100} {
		b := open(t, proxy(t, c, nil, fail(at)))
		var got []string
		var last error
		for o, err := range b.List(t.Context(), ListOptions{}) {
			if last != nil {
				t.Fatal("it goes on after an error")
			}
			if last = err; err == nil {
				got = append(got, o.Key)
			}
		}
		wants(t, last, ErrCredentials)
		if !slices.Equal(got, keys[:want]) {
			t.Errorf("%s fails: %d keys, want %d", at, len(got), want)
		}
	}
}

// TestAListingByDirectoriesEndsWhenAsked breaks it off in a directory that is listed by
// itself, and cancels it there; that nothing goes on is seen when the tests end.
func TestAListingByDirectoriesEndsWhenAsked(t *testing.T) {
	b := fresh(t)
	var keys []string
	for d := range 20 {
		keys = append(keys, numbered(fmt.Sprintf("d%02d/", d), 150)...)
	}
	write(t, b, keys)
	n := 0
	for _, err := range b.List(t.Context(), ListOptions{}) {
		must(t, err)
		if n++; n == 1400 {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	n = 0
	for _, err := range b.List(ctx, ListOptions{}) {
		if n++; n == 1400 {
			cancel()
		}
		last = err
	}
	wants(t, last, context.Canceled)
}

// TestAListingWithoutDirectories: where what lies directly below cannot be had, or cannot
// be right, and on other servers, all is listed page by page.
func TestAListingWithoutDirectories(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	keys := slices.Concat(numbered("a/", 600), numbered("b/", 600), numbered("c/", 600))
	write(t, open(t, c), keys)
	flat := func(change func(text string) string) func(*http.Response) error {
		return func(a *http.Response) error {
			if !isListing(a.Request) || a.Request.URL.Query().Get("delimiter") == "" {
				return nil
			}
			_, err := rewrite(a, func(text []byte) []byte { return []byte(change(string(text))) })
			return err
		}
	}
	const b = "<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>"
	replaced := func(with string) func(*http.Response) error {
		return flat(func(text string) string {
			if !strings.Contains(text, b) {
				t.Errorf("no directory b/ in %s", text)
			}
			text = strings.Replace(text, b, with, 1)
			return regexp.MustCompile("<KeyCount>[0-9]+</KeyCount>").ReplaceAllString(text, "")
		})
	}
	for name, answer := range map[string]func(*http.Response) error{
		"broken":            flat(func(text string) string { return text[:len(text)/2] }),
		"without the last":  replaced(""),
		"deeper":            replaced("<CommonPrefixes><Prefix>b/b/</Prefix></CommonPrefixes>"),
		"the root":          replaced("<CommonPrefixes><Prefix></Prefix></CommonPrefixes>"),
		"both ways":         replaced(b + "<Contents><Key>b/</Key><Size>0</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"),
		"objects in others": replaced(b + "<Contents><Key>b/b/c</Key><Size>0</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"),
		"another server": func(a *http.Response) error {
			a.Header.Set("Server", "Other")
			if a.Request.URL.Query().Get("delimiter") != "" {
				t.Error("it was asked for directories")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := keysOf(list(t, open(t, proxy(t, c, nil, answer)), ListOptions{})); !slices.Equal(got, keys) {
				t.Errorf("%d keys, want %d", len(got), len(keys))
			}
		})
	}
}

// TestCredentialsThatMayListTheWholeOnly may be refused each directory by itself, as by a
// policy of exact prefixes: the whole is listed then, each object once.
func TestCredentialsThatMayListTheWholeOnly(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	c.Prefix = "p/"
	keys := slices.Concat(numbered("a/", 1400), []string{"b!", "b"}, numbered("c/", 700), numbered("d/", 1200), []string{"z"})
	slices.Sort(keys)
	write(t, open(t, c), keys)
	for name, dirs := range map[string]string{"none": "", "the first": `, "p/a/"`, "all but one": `, "p/a/", "p/d/"`} {
		t.Run(name, func(t *testing.T) {
			limited := assume(t, c, nil, fmt.Sprintf(`{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::BUCKET/*"]},
				{"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::BUCKET"], "Condition": {"StringEquals": {"s3:prefix": ["", "p/"%s]}}}`, dirs))
			var l listings
			b := open(t, proxy(t, limited, func(q *http.Request) { l.note(q) }, nil))
			for _, metadata := range []bool{false, true} {
				l.all = nil
				got := list(t, b, ListOptions{Metadata: metadata})
				if !slices.Equal(keysOf(got), keys) {
					t.Errorf("%d keys, want %d", len(got), len(keys))
				}
				if !slices.ContainsFunc(l.all, func(prefix string) bool { return len(prefix) > len("p/") }) {
					t.Errorf("no directory was asked for: %q", l.all)
				}
			}
		})
	}
}

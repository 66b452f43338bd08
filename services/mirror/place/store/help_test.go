package store

import (
	"bytes"
	"context"
	"hash/crc32"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// mtime is no multiple of anything that a server may cut times to.
const mtime = 1_000_000_000_123_456_789

// file is the write of a new file.
func file(path, content string) place.Write {
	return place.Write{
		Entry: entry.Entry{Path: path, Size: int64(len(content)), Mode: 0o640, UID: 12, GID: 34, MTime: mtime},
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(content)), nil
		},
	}
}

func put(t testing.TB, p *Place, w place.Write) entry.Entry {
	t.Helper()
	e, err := p.Put(t.Context(), w)
	must(t, err)
	return e
}

// listed are the entries, by key, and the errors of a stream.
func listed(t testing.TB, p *Place) (map[string]entry.Entry, []error) {
	t.Helper()
	out := map[string]entry.Entry{}
	var errs []error
	for e, err := range p.Entries(t.Context(), place.ListOptions{}) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[e.Key()] = e
	}
	return out, errs
}

// holds fails unless the place holds exactly the files of these contents, beside
// directories.
func holds(t testing.TB, p *Place, want map[string]string) {
	t.Helper()
	all, errs := listed(t, p)
	for _, err := range errs {
		t.Error(err)
	}
	for key, e := range all {
		if e.Kind == entry.Dir {
			continue
		}
		content, ok := want[key]
		if got := read(t, p, e); !ok || got != content {
			t.Errorf("%q: %t, %d bytes instead of %d", key, ok, len(got), len(content))
		}
	}
	for key := range want {
		if _, ok := all[key]; !ok {
			t.Errorf("%q is not there", key)
		}
	}
}

func read(t testing.TB, p *Place, e entry.Entry) string {
	t.Helper()
	r, err := p.Open(t.Context(), e, 0, -1)
	must(t, err)
	defer r.Close()
	raw, err := io.ReadAll(r)
	must(t, err)
	return string(raw)
}

// behind writes as another program would.
func behind(t testing.TB, c bucket.Config, key, content string, o minio.PutObjectOptions) {
	t.Helper()
	_, err := admin(t, c).PutObject(t.Context(), c.Bucket, key, strings.NewReader(content), int64(len(content)), o)
	must(t, err)
}

func crcOf(content string) uint32 {
	return crc32.Checksum([]byte(content), crc32.MakeTable(crc32.Castagnoli))
}

// pattern is a content of n bytes in which every range is another one.
func pattern(n int) string {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		b.WriteString(strings.Repeat(string(rune('a'+i%26)), i%50))
		b.WriteByte('\n')
	}
	return string(b.Bytes()[:n])
}

// proxy stands between a place and its server, and may change what passes. An
// error of answer ends the connection.
func proxy(t testing.TB, c bucket.Config, ask func(*http.Request), answer func(*http.Response) error) bucket.Config {
	t.Helper()
	target, err := url.Parse(c.Endpoint)
	must(t, err)
	transport := &http.Transport{}
	p := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport, ModifyResponse: answer, ErrorLog: log.New(io.Discard, "", 0),
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // It is signed.
			if ask != nil {
				ask(r.Out)
			}
		},
	})
	t.Cleanup(func() { p.Close(); transport.CloseIdleConnections() })
	c.Endpoint = p.URL
	return c
}

func fresh(t testing.TB, o minio.MakeBucketOptions, options Options) (bucket.Config, *Place) {
	t.Helper()
	c := newBucket(t, server(t), o)
	return c, opened(t, c, options)
}

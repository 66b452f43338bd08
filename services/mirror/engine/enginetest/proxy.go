package enginetest

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/firedrill/firedrill/pkg/lazy"
	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// Proxy stands in front of a server and counts what it is asked. Its methods may be used
// concurrently.
type Proxy struct {
	bucket string
	plain  bool

	mu    sync.Mutex
	count map[string]int
	still bool
}

// Counting opens a bucket through a proxy that only counts.
func Counting(t testing.TB, c bucket.Config) (bucket.Config, *Proxy) {
	t.Helper()
	return through(t, c, &Proxy{bucket: c.Bucket})
}

// Plain opens a bucket through a proxy that takes away what AWS S3 would not answer: the
// server has another name, lists no metadata, and knows whole seconds only, which pass as
// milliseconds do so that nobody has to wait for them.
func Plain(t testing.TB, c bucket.Config) (bucket.Config, *Proxy) {
	t.Helper()
	return through(t, c, &Proxy{bucket: c.Bucket, plain: true})
}

func through(t testing.TB, c bucket.Config, p *Proxy) (bucket.Config, *Proxy) {
	t.Helper()
	target, err := url.Parse(c.Endpoint)
	Must(t, err)
	p.count = map[string]int{}
	transport := &http.Transport{}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport, ErrorLog: log.New(io.Discard, "", 0), ModifyResponse: p.answer,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // It is signed.
			if p.plain && (r.In.URL.Query().Get("metadata") != "" || r.In.Header.Get("X-Amz-Meta-Snowball-Auto-Extract") != "") {
				t.Errorf("%s %s asks for what only MinIO has", r.In.Method, r.In.URL)
			}
			p.asked(r.In)
		},
	})
	t.Cleanup(func() { server.Close(); transport.CloseIdleConnections() })
	c.Endpoint = server.URL
	return c, p
}

func (p *Proxy) asked(q *http.Request) {
	what := "object"
	switch path := strings.Trim(q.URL.Path, "/"); {
	case path == "":
		what = "server"
	case path == p.bucket && q.URL.Query().Get("metadata") != "":
		what = "bucket with metadata"
	case path == p.bucket:
		what = "bucket"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count[q.Method+" "+what]++
}

// Took gives how often what was asked since the last call, by method and whether it is
// about an "object", the "bucket" or the "server".
func (p *Proxy) Took() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := p.count
	p.count = map[string]int{}
	return took
}

// Still makes a plain server's clock stand still, so that all is written in the second in
// which it is asked for.
func (p *Proxy) Still() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.still = true
}

// answer makes an answer a plain one.
func (p *Proxy) answer(r *http.Response) error {
	if !p.plain {
		return nil
	}
	r.Header.Set("Server", "AmazonS3")
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Minio-") {
			r.Header.Del(name)
		}
	}
	for _, name := range []string{"Date", "Last-Modified"} {
		at, err := http.ParseTime(r.Header.Get(name))
		if err != nil {
			continue
		}
		if name == "Date" {
			at = time.Now() // which is finer
		}
		r.Header.Set(name, p.tells(at).Format(http.TimeFormat))
	}
	if r.Request.Method != http.MethodGet || strings.Trim(r.Request.URL.Path, "/") != p.bucket {
		return nil
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	raw = written().ReplaceAllFunc(raw, func(text []byte) []byte {
		at, err := time.Parse(listedTime, string(text))
		if err != nil {
			return text
		}
		return p.tells(at).AppendFormat(nil, listedTime)
	})
	r.Body = io.NopCloser(bytes.NewReader(raw))
	r.ContentLength = int64(len(raw))
	r.Header.Set("Content-Length", strconv.Itoa(len(raw)))
	return nil
}

// began is when the clock of a plain server shows fast.
var began, fast = time.Now(), time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// tells is what a plain server's clock showed at a time.
func (p *Proxy) tells(at time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	since := at.UnixMilli() - began.UnixMilli()
	switch {
	case p.still:
		return fast
	case since < -time.Hour.Milliseconds(): // a time that somebody has set
		return at.UTC().Truncate(time.Second)
	}
	return fast.Add(time.Duration(since) * time.Second)
}

const listedTime = "2006-01-02T15:04:05.000Z"

// written are the times in a listing.
var written = lazy.Regexp(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`)

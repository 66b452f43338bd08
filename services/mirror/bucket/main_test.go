package bucket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/lab"
)

// servers are started by the first test that wants them, and stopped after the last.
type servers struct {
	mu      sync.Mutex
	dir     string
	running map[bool]*lab.MinIO
}

var shared servers

func TestMain(m *testing.M) {
	code := m.Run()
	shared.stop()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func (s *servers) stop() {
	for _, m := range s.running {
		m.Stop()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// server returns the MinIO, with or without TLS, that all tests share.
func server(t testing.TB, secure bool) *lab.MinIO {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if m := shared.running[secure]; m != nil {
		return m
	}
	if shared.dir == "" {
		// In memory where that is possible: the disk is not what is tested.
		dir, err := os.MkdirTemp("/dev/shm", "firedrill-bucket-")
		if err != nil {
			dir, err = os.MkdirTemp("", "firedrill-bucket-")
		}
		must(t, err)
		shared.dir, shared.running = dir, map[bool]*lab.MinIO{}
	}
	bin := os.Getenv("FIREDRILL_BIN")
	if bin == "" {
		bin = "../../../out/bin"
	}
	m, err := lab.StartMinIO(t.Context(), lab.MinIOOptions{
		Binary: filepath.Join(bin, "minio"), Dir: filepath.Join(shared.dir, fmt.Sprint(secure)), TLS: secure,
	})
	must(t, err)
	shared.running[secure] = m
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t testing.TB, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Fatalf("got %v, want %v", err, w)
		}
	}
}

var bucketNumber atomic.Int64

// make makes a new bucket on the server and returns how to open it.
func makeBucket(t testing.TB, m *lab.MinIO, o minio.MakeBucketOptions) Config {
	t.Helper()
	c := Config{
		Endpoint: m.Endpoint, Bucket: fmt.Sprintf("b-%d-%d", os.Getpid(), bucketNumber.Add(1)),
		Credentials: credentials.NewStaticV4(m.AccessKey, m.SecretKey, ""),
		Limits:      Limits{Attempts: 2},
	}
	if m.Roots != nil {
		c.TLS = &tls.Config{RootCAs: m.Roots}
	}
	must(t, admin(t, c).MakeBucket(t.Context(), c.Bucket, o))
	return c
}

// admin is a plain client, to set up and to look from outside.
func admin(t testing.TB, c Config) *minio.Client {
	t.Helper()
	u, err := url.Parse(c.Endpoint)
	must(t, err)
	transport := &http.Transport{TLSClientConfig: c.TLS}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := minio.New(u.Host, &minio.Options{Creds: c.Credentials, Secure: u.Scheme == "https", Transport: transport, Region: "us-east-1"})
	must(t, err)
	return client
}

func open(t testing.TB, c Config) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), c)
	must(t, err)
	t.Cleanup(b.Close)
	return b
}

// fresh opens a new bucket of the shared server.
func fresh(t testing.TB) *Bucket {
	t.Helper()
	return open(t, makeBucket(t, server(t, false), minio.MakeBucketOptions{}))
}

func put(t testing.TB, b *Bucket, key, content string, o PutOptions) Written {
	t.Helper()
	w, err := b.Put(t.Context(), key, strings.NewReader(content), int64(len(content)), o)
	must(t, err)
	return w
}

func list(t testing.TB, b *Bucket, o ListOptions) []Object {
	t.Helper()
	var out []Object
	for object, err := range b.List(t.Context(), o) {
		must(t, err)
		out = append(out, object)
	}
	return out
}

func keysOf(objects []Object) []string {
	out := make([]string, len(objects))
	for i, o := range objects {
		out[i] = o.Key
	}
	return out
}

func content(t testing.TB, b *Bucket, key string) string {
	t.Helper()
	r, _, err := b.Get(t.Context(), key, 0, -1)
	must(t, err)
	defer r.Close()
	raw, err := io.ReadAll(r)
	must(t, err)
	return string(raw)
}

// failedKeys are the keys of a KeysError, sorted.
func failedKeys(t testing.TB, err error) []string {
	t.Helper()
	many, ok := errors.AsType[*KeysError](err)
	if !ok {
		t.Fatalf("got %v, want a KeysError", err)
	}
	var out []string
	for _, f := range many.Failed {
		out = append(out, f.Key)
	}
	slices.Sort(out)
	return out
}

// proxy stands between a bucket and its server, and may change what passes.
// It returns the config of the bucket behind it.
func proxy(t testing.TB, c Config, rewrite func(*http.Request), answer func(*http.Response) error) Config {
	t.Helper()
	target, err := url.Parse(c.Endpoint)
	must(t, err)
	transport := &http.Transport{TLSClientConfig: c.TLS}
	p := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport, ModifyResponse: answer, ErrorLog: log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) },
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			// It is signed.
			r.Out.Host = r.In.Host
			if rewrite != nil {
				rewrite(r.Out)
			}
		},
	})
	t.Cleanup(func() { p.Close(); transport.CloseIdleConnections() })
	c.Endpoint = p.URL
	return c
}

func isListing(q *http.Request) bool { return q.URL.Query().Get("list-type") == "2" }

func soon(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

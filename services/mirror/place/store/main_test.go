package store

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"go.uber.org/goleak"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/services/mirror/bucket"
)

// shared is the MinIO of all tests: started by the first that wants it, and
// stopped after the last.
type shared struct {
	mu      sync.Mutex
	dir     string
	running *lab.MinIO
}

var servers shared

func TestMain(m *testing.M) {
	code := m.Run()
	servers.stop()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func (s *shared) stop() {
	if s.running != nil {
		s.running.Stop()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

func server(t testing.TB) *lab.MinIO {
	t.Helper()
	servers.mu.Lock()
	defer servers.mu.Unlock()
	if servers.running == nil {
		servers.dir = memory(t)
		servers.running = start(t, servers.dir)
	}
	return servers.running
}

// memory is a directory in memory where that is possible: the disk is not what is
// tested.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "firedrill-store-")
	if err != nil {
		dir, err = os.MkdirTemp("", "firedrill-store-")
	}
	must(t, err)
	return dir
}

func start(t testing.TB, dir string) *lab.MinIO {
	t.Helper()
	bin := os.Getenv("FIREDRILL_BIN")
	if bin == "" {
		bin = "../../../../out/bin"
	}
	m, err := lab.StartMinIO(t.Context(), lab.MinIOOptions{Binary: filepath.Join(bin, "minio"), Dir: dir})
	must(t, err)
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

var number atomic.Int64

// newBucket makes a bucket and returns how to open it.
func newBucket(t testing.TB, m *lab.MinIO, o minio.MakeBucketOptions) bucket.Config {
	t.Helper()
	c := bucket.Config{
		Endpoint: m.Endpoint, Bucket: fmt.Sprintf("s-%d-%d", os.Getpid(), number.Add(1)),
		Credentials: credentials.NewStaticV4(m.AccessKey, m.SecretKey, ""),
		Limits:      bucket.Limits{Attempts: 2},
	}
	must(t, admin(t, c).MakeBucket(t.Context(), c.Bucket, o))
	return c
}

// admin is a plain client, to set up and to look from outside.
func admin(t testing.TB, c bucket.Config) *minio.Client {
	t.Helper()
	u, err := url.Parse(c.Endpoint)
	must(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := minio.New(u.Host, &minio.Options{Creds: c.Credentials, Secure: u.Scheme == "https", Transport: transport, Region: "us-east-1"})
	must(t, err)
	return client
}

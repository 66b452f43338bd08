// Package enginetest is what the mirror's tests share: a MinIO for all tests of a
// package, its buckets, and trees of files that can be described and compared.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// Server is the MinIO of all tests of a package: started by the first that wants
// it. Its methods may be used concurrently.
type Server struct {
	mu      sync.Mutex
	dir     string
	running *lab.MinIO
	number  atomic.Int64
}

// Main runs the tests, stops the server, and fails if goroutines are left but those
// that are excused.
func (s *Server) Main(m *testing.M, excused ...goleak.Option) {
	code := m.Run()
	if s.running != nil {
		s.running.Stop()
	}
	err := os.RemoveAll(s.dir)
	if err = errors.Join(err, goleak.Find(excused...)); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// Start gives the server, which it starts if it does not run yet.
func (s *Server) Start(t testing.TB) *lab.MinIO {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		// In memory where that is possible: the disk is not what is tested.
		dir, err := os.MkdirTemp("/dev/shm", "firedrill-mirror-")
		if err != nil {
			dir, err = os.MkdirTemp("", "firedrill-mirror-")
		}
		Must(t, err)
		s.dir = dir
		s.running, err = lab.StartMinIO(t.Context(), lab.MinIOOptions{Binary: Binary(t, "minio"), Dir: dir})
		Must(t, err)
	}
	return s.running
}

// Drive is the directory in which the server keeps its objects.
func (s *Server) Drive() string { return filepath.Join(s.dir, "data") }

// Bucket makes a bucket, with versions or without, and says how it is opened.
func (s *Server) Bucket(t testing.TB, versions bool) bucket.Config {
	t.Helper()
	m := s.Start(t)
	c := bucket.Config{
		Endpoint: m.Endpoint, Bucket: fmt.Sprintf("b-%d-%d", os.Getpid(), s.number.Add(1)),
		Credentials: credentials.NewStaticV4(m.AccessKey, m.SecretKey, ""),
		Limits:      bucket.Limits{Attempts: 2},
	}
	client := Client(t, c)
	Must(t, client.MakeBucket(t.Context(), c.Bucket, minio.MakeBucketOptions{}))
	if versions {
		Must(t, client.EnableVersioning(t.Context(), c.Bucket))
	}
	return c
}

// Client is a plain client, to look and to change from outside.
func Client(t testing.TB, c bucket.Config) *minio.Client {
	t.Helper()
	u, err := url.Parse(c.Endpoint)
	Must(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := minio.New(u.Host, &minio.Options{Creds: c.Credentials, Transport: transport, Region: "us-east-1"})
	Must(t, err)
	return client
}

// Binary is the path of a program that the repository's Makefile builds. It is an
// error if it is not built.
func Binary(t testing.TB, name string) string {
	t.Helper()
	bin := os.Getenv("FIREDRILL_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "..", "out", "bin")
	}
	path, err := filepath.Abs(filepath.Join(bin, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%s is needed: %v; run make out/bin/%s", name, err, name)
	}
	return path
}

// Must ends the test on an error.
func Must(t interface {
	Helper()
	Fatal(...any)
}, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Write makes a file, and the directories above it.
func Write(t testing.TB, dir, path, content string) {
	t.Helper()
	path = filepath.Join(dir, path)
	Must(t, errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)))
}

// Touch moves the times of all that lies below a directory, but links, a minute
// back. The times at which inodes changed cannot be moved.
func Touch(t testing.TB, dir string) {
	t.Helper()
	Must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		old := i.ModTime().Add(-60e9)
		return os.Chtimes(path, old, old)
	}))
}

// Tree describes what lies below a directory: by path the kind, mode and content.
func Tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	Must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		what := fmt.Sprintf("%o %d:%d ", st.Mode, st.Uid, st.Gid)
		switch {
		case d.Type().IsRegular():
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += fmt.Sprintf("%d %s", st.Mtim.Nano(), raw)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what = "link " + target
		}
		all[strings.TrimPrefix(path, dir+"/")] = what
		return nil
	}))
	return all
}

// Rot changes a byte of what the server keeps of an object's content, behind its
// back, as a failing disk would. The content must hold the mark, and only once.
func (s *Server) Rot(t testing.TB, bucketName, key, mark string) {
	t.Helper()
	found := 0
	Must(t, filepath.WalkDir(filepath.Join(s.Drive(), bucketName, key), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(raw, []byte(mark))
		if at < 0 {
			return nil
		}
		found++
		raw[at] ^= 1
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(raw[at:at+1], int64(at))
		return errors.Join(err, f.Close())
	}))
	if found != 1 {
		t.Fatalf("%q was found in %d files of %q", mark, found, key)
	}
}

// Rotten is a place some of whose contents have a byte that is not what was written,
// with nothing that tells: a disk that lies.
type Rotten struct {
	place.Place
	mu   sync.Mutex
	keys map[string]bool
}

// Rot makes a content of the place rotten.
func (r *Rotten) Rot(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil {
		r.keys = map[string]bool{}
	}
	r.keys[key] = true
}

// Put implements [place.Place]: what is written anew is sound.
func (r *Rotten) Put(ctx context.Context, w place.Write) (entry.Entry, error) {
	e, err := r.Place.Put(ctx, w)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.keys, e.Key())
	}
	return e, err
}

// Open implements [place.Place].
func (r *Rotten) Open(ctx context.Context, e entry.Entry, off, n int64) (place.Content, error) {
	c, err := r.Place.Open(ctx, e, off, n)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || !r.keys[e.Key()] {
		return c, err
	}
	return rottenContent{c}, nil
}

type rottenContent struct{ place.Content }

func (c rottenContent) Read(p []byte) (int, error) {
	n, err := c.Content.Read(p)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

// Memory is a directory that goes with the test, in memory where that is possible:
// what syncs much is not slowed down by a disk.
func Memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "firedrill-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { Must(t, os.RemoveAll(dir)) })
	return dir
}

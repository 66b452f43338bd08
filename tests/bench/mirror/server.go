package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/firedrill/firedrill/pkg/lab"
)

// host is a running server, seen by somebody who takes no side: it is looked at with
// another client than the contestants' code. Its methods may be used by one goroutine.
type host struct {
	server    *lab.MinIO
	client    *minio.Client
	transport *http.Transport
	dir       string
	// roots is the file with the certificate to trust, "" without TLS.
	roots string
}

func startHost(ctx context.Context, s Server, binary, dir string) (*host, error) {
	server, err := lab.StartMinIO(ctx, lab.MinIOOptions{
		Binary: binary, Dir: dir, TLS: s.TLS,
		// Its own rounds through all objects would come at random times.
		Env: []string{"MINIO_SCANNER_SPEED=slowest"},
	})
	if err != nil {
		return nil, err
	}
	h := &host{server: server, dir: dir, transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.Roots}}}
	if s.TLS {
		h.roots = filepath.Join(dir, "certs", "public.crt")
	}
	u, err := url.Parse(server.Endpoint)
	if err == nil {
		h.client, err = minio.New(u.Host, &minio.Options{
			Creds: credentials.NewStaticV4(server.AccessKey, server.SecretKey, ""), Secure: s.TLS, Transport: h.transport, Region: "us-east-1",
		})
	}
	if err != nil {
		server.Stop()
		return nil, fmt.Errorf("client of the server %s: %w", s.Name, err)
	}
	return h, nil
}

// stop stops the server and removes its data.
func (h *host) stop() error {
	h.transport.CloseIdleConnections()
	h.server.Stop()
	return os.RemoveAll(h.dir)
}

func (h *host) makeBucket(ctx context.Context, bucket string) error {
	return h.client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{})
}

// dropBucket removes a bucket with all that it holds, at once: what MinIO would
// otherwise remove minutes later, beside somebody's run.
func (h *host) dropBucket(ctx context.Context, bucket string) error {
	if err := h.client.RemoveBucketWithOptions(ctx, bucket, minio.RemoveBucketOptions{ForceDelete: true}); err != nil {
		return fmt.Errorf("drop bucket %s: %w", bucket, err)
	}
	trash := filepath.Join(h.dir, "data", ".minio.sys", "tmp", ".trash")
	entries, err := os.ReadDir(trash)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("drop bucket %s: %w", bucket, err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(trash, e.Name())); err != nil {
			return fmt.Errorf("drop bucket %s: %w", bucket, err)
		}
	}
	return nil
}

// compare lists a bucket; the error is an [ErrWrong] unless it has exactly the files
// of the tree. An ETag that is an MD5 must be the file's. Any other object is read
// where deep is set; else its size has to do. Keys that end in / stand for
// directories, which some contestants keep.
func (h *host) compare(ctx context.Context, bucket string, t *Tree, deep bool) error {
	found := 0
	for o := range h.client.ListObjectsIter(ctx, bucket, minio.ListObjectsOptions{Prefix: prefix + "/", Recursive: true}) {
		if o.Err != nil {
			return fmt.Errorf("list bucket %s: %w", bucket, o.Err)
		}
		if strings.HasSuffix(o.Key, "/") {
			continue
		}
		name := strings.TrimPrefix(o.Key, prefix+"/")
		want, ok := t.Sums[name]
		if !ok {
			return fmt.Errorf("%w: object %s was not asked for", ErrWrong, o.Key)
		}
		found++
		if o.Size != want.Size {
			return fmt.Errorf("%w: object %s has %d bytes of %d", ErrWrong, o.Key, o.Size, want.Size)
		}
		etag := strings.Trim(o.ETag, `"`)
		switch plain := !strings.Contains(etag, "-"); {
		case plain && etag != hex.EncodeToString(want.MD5[:]):
			return fmt.Errorf("%w: object %s has other content", ErrWrong, o.Key)
		case !plain && deep:
			if err := h.read(ctx, bucket, o.Key, want); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if found != len(t.Sums) {
		return fmt.Errorf("%w: %d of %d objects are there", ErrWrong, found, len(t.Sums))
	}
	return nil
}

func (h *host) read(ctx context.Context, bucket, key string, want Sum) error {
	o, err := h.client.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return fmt.Errorf("read object %s: %w", key, err)
	}
	defer o.Close()
	return want.compare(key, o)
}

// fingerprint is another one when any object is written, also with the same content.
func (h *host) fingerprint(ctx context.Context, bucket string) (string, error) {
	sum := sha256.New()
	for o := range h.client.ListObjectsIter(ctx, bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			return "", fmt.Errorf("list bucket %s: %w", bucket, o.Err)
		}
		if !strings.HasSuffix(o.Key, "/") {
			fmt.Fprintf(sum, "%q %s %d\n", o.Key, o.ETag, o.LastModified.UnixNano())
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), ctx.Err()
}

// spoil changes one byte of an object, and nothing else that a client could tell.
// The returned function puts back what was there.
func (h *host) spoil(ctx context.Context, bucket, name string, t *Tree) (restore func(context.Context) error, err error) {
	key := prefix + "/" + name
	good, err := os.ReadFile(filepath.Join(t.Dir, name))
	if err != nil {
		return nil, err
	}
	was, err := h.client.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return nil, fmt.Errorf("spoil object %s: %w", key, err)
	}
	put := func(ctx context.Context, content []byte) error {
		_, err := h.client.PutObject(ctx, bucket, key, bytes.NewReader(content), int64(len(content)),
			minio.PutObjectOptions{UserMetadata: was.UserMetadata, ContentType: was.ContentType, DisableMultipart: true})
		return err
	}
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 1
	if err := put(ctx, bad); err != nil {
		return nil, fmt.Errorf("spoil object %s: %w", key, err)
	}
	return func(ctx context.Context) error { return put(ctx, good) }, nil
}

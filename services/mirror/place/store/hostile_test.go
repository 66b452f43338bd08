package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

func TestOpenFails(t *testing.T) {
	c := newBucket(t, server(t), minio.MakeBucketOptions{})
	const secret = "not-the-right-secret"
	wrong, missing, nobody := c, c, c
	wrong.Credentials = credentials.NewStaticV4(server(t).AccessKey, secret, "")
	missing.Bucket = "there-is-none"
	nobody.Endpoint = "http://127.0.0.1:1"
	for _, f := range []struct {
		c    bucket.Config
		want error
	}{{wrong, bucket.ErrCredentials}, {missing, bucket.ErrNoBucket}, {nobody, bucket.ErrUnreachable}} {
		_, err := Open(t.Context(), f.c, Options{})
		wants(t, err, f.want)
		if strings.Contains(err.Error(), secret) {
			t.Errorf("it tells a secret: %v", err)
		}
	}
}

// TestClock is twenty minutes off.
func TestClock(t *testing.T) {
	c := newBucket(t, server(t), minio.MakeBucketOptions{})
	const format = "20060102T150405Z"
	for _, ahead := range []time.Duration{20 * time.Minute, -20 * time.Minute} {
		_, err := Open(t.Context(), proxy(t, c, func(q *http.Request) {
			if sent, err := time.Parse(format, q.Header.Get("X-Amz-Date")); err == nil {
				q.Header.Set("X-Amz-Date", sent.Add(ahead).Format(format))
			}
		}, func(a *http.Response) error {
			told, err := http.ParseTime(a.Header.Get("Date"))
			a.Header.Set("Date", told.Add(-ahead).Format(http.TimeFormat))
			return err
		}), Options{})
		if e, ok := errors.AsType[*bucket.ClockSkewError](err); !ok || (e.Skew-ahead).Abs() > time.Minute {
			t.Errorf("%v: got %v", ahead, err)
		}
	}
}

// assume returns credentials that a policy restricts.
func assume(t testing.TB, c bucket.Config, statements string) bucket.Config {
	t.Helper()
	policy := `{"Version":"2012-10-17","Statement":[` + strings.ReplaceAll(statements, "BUCKET", c.Bucket) + `]}`
	role, err := credentials.NewSTSAssumeRole(c.Endpoint, credentials.STSAssumeRoleOptions{
		AccessKey: server(t).AccessKey, SecretKey: server(t).SecretKey, Policy: policy, DurationSeconds: 3600,
	})
	must(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	_, err = role.GetWithContext(&credentials.CredContext{Client: &http.Client{Transport: transport}})
	must(t, err)
	c.Credentials = role
	return c
}

// TestReadOnlyUser may read, and changes nothing.
func TestReadOnlyUser(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	have := put(t, p, file("a", "text"))
	large := put(t, p, file("large", pattern(300_000)))
	dir, err := p.MakeDir(t.Context(), entry.Entry{Path: "d", Kind: entry.Dir})
	must(t, err)
	ro := opened(t, assume(t, c, `{"Effect":"Allow","Action":["s3:GetObject","s3:ListBucket"],"Resource":["arn:aws:s3:::BUCKET","arn:aws:s3:::BUCKET/*"]}`), Options{})
	w := file("a", "more")
	w.Have = have
	_, err = ro.Put(t.Context(), w)
	wants(t, err, bucket.ErrDenied)
	var ws []place.Write
	for i := range 20 {
		ws = append(ws, file(fmt.Sprint("new/", i), "text"))
	}
	for _, o := range ro.PutBatch(t.Context(), ws) {
		wants(t, o.Err, bucket.ErrDenied)
	}
	_, err = ro.MakeDir(t.Context(), entry.Entry{Path: "e", Kind: entry.Dir})
	wants(t, err, bucket.ErrDenied)
	for _, e := range []entry.Entry{have, large, dir} {
		_, err = ro.SetAttrs(t.Context(), e, e)
		wants(t, err, bucket.ErrDenied)
	}
	for _, err := range ro.Remove(t.Context(), []entry.Entry{have, large, dir}) {
		wants(t, err, bucket.ErrDenied)
	}
	_, err = ro.StartParts(t.Context(), file("parts", "text"), bucket.MinPart)
	wants(t, err, bucket.ErrDenied)
	holds(t, ro, map[string]string{"a": "text", "large": pattern(300_000)})
}

// TestLockedObjects are overwritten and removed, and their versions stay.
func TestLockedObjects(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{ObjectLocking: true}, Options{})
	have := put(t, p, file("a", "first"))
	client := admin(t, c)
	mode, until := minio.Compliance, time.Now().Add(time.Hour)
	must(t, client.PutObjectRetention(t.Context(), c.Bucket, "a", minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until}))
	w := file("a", "second")
	w.Have = have
	have = put(t, p, w)
	want := have
	want.Mode = 0o600
	have, err := p.SetAttrs(t.Context(), want, have)
	must(t, err)
	must(t, p.Remove(t.Context(), []entry.Entry{have})[0])
	holds(t, p, nil)
	var kept []string
	for o := range client.ListObjects(t.Context(), c.Bucket, minio.ListObjectsOptions{WithVersions: true}) {
		must(t, o.Err)
		if !o.IsDeleteMarker {
			kept = append(kept, o.ETag)
		}
	}
	if len(kept) != 3 {
		t.Errorf("versions: %q", kept)
	}
}

// smallDisk starts a MinIO whose disk has so many MiB, in a name space of its own.
func smallDisk(t *testing.T, mib int) *lab.MinIO {
	t.Helper()
	bin := os.Getenv("FIREDRILL_BIN")
	if bin == "" {
		bin = "../../../../out/bin"
	}
	real, err := filepath.Abs(filepath.Join(bin, "minio"))
	must(t, err)
	script := fmt.Sprintf(`#!/bin/sh
for data; do :; done
exec unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=%dm tmpfs "$1" && shift && exec "$@"' sh "$data" %s "$@"
`, mib, real)
	wrapper := filepath.Join(t.TempDir(), "minio")
	must(t, os.WriteFile(wrapper, []byte(script), 0o700))
	m, err := lab.StartMinIO(t.Context(), lab.MinIOOptions{Binary: wrapper, Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(m.Stop)
	return m
}

// noise cannot be compressed.
func noise(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw)
	return string(raw)
}

// TestFullDisk fills the server's disk in all the ways there are to write: what was
// acknowledged is there, and nothing else.
func TestFullDisk(t *testing.T) {
	c := newBucket(t, smallDisk(t, 48), minio.MakeBucketOptions{})
	p := opened(t, c, Options{})
	want := map[string]string{}
	// Of the very write that fills its disk a server does not always say why it failed: now
	// and then MinIO says that the body was incomplete.
	var full error
	isFull := func() bool { return full != nil && strings.Contains(full.Error(), "StorageFull") }
	for i := 0; !isFull() && i < 100; i++ {
		w := file(fmt.Sprint("large", i), noise(4<<20))
		raw, err := w.Open(t.Context())
		must(t, err)
		content, err := io.ReadAll(raw)
		must(t, err)
		if _, full = p.Put(t.Context(), w); full == nil {
			want[w.Entry.Path] = string(content)
		}
	}
	if !isFull() {
		t.Fatalf("it is full, and says %v", full)
	}
	for n := 0; ; n++ {
		var ws []place.Write
		contents := map[string]string{}
		for i := range 100 {
			path := fmt.Sprintf("small%d/%d", n, i)
			contents[path] = noise(50 << 10)
			ws = append(ws, file(path, contents[path]))
		}
		failed := 0
		for i, o := range p.PutBatch(t.Context(), ws) {
			if o.Err == nil {
				want[ws[i].Entry.Path] = contents[ws[i].Entry.Path]
			} else {
				failed++
			}
		}
		if failed == len(ws) || n == 20 {
			break
		}
	}
	if token, err := p.StartParts(t.Context(), file("parts", noise(8<<20)), bucket.MinPart); err == nil {
		if _, err = p.PutPart(t.Context(), token, 1, strings.NewReader(noise(5<<20)), 5<<20); err == nil {
			t.Error("a part is stored on a full disk")
		}
		must(t, p.AbortParts(t.Context(), token))
	}
	holds(t, p, want)
	makeRoom(t, p)
}

// makeRoom removes large objects until there is room again, and then all goes on. The
// server keeps what is removed in a trash for minutes, unless it knows that its disk is
// almost full, and it looks once a second only: so one object is removed a second.
func makeRoom(t *testing.T, p *Place) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all, _ := listed(t, p)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	full := errors.New("nothing large is there")
	for i := 0; all[fmt.Sprint("large", i)].Path != ""; i++ {
		must(t, p.Remove(ctx, []entry.Entry{all[fmt.Sprint("large", i)]})[0])
		for next := false; !next; {
			if _, full = p.Put(ctx, file("again", noise(1<<20))); full == nil {
				return
			}
			select {
			case <-tick.C:
				next = true
			default:
			}
		}
	}
	t.Fatalf("it stays full though everything large is removed: %v", full)
}

// TestServerIsKilled kills the server again and again in the middle of writes:
// what was acknowledged is there, and what was not is whole or not there.
func TestServerIsKilled(t *testing.T) {
	dir := memory(t)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := start(t, dir)
	t.Cleanup(m.Stop)
	c := newBucket(t, m, minio.MakeBucketOptions{})
	p := opened(t, c, Options{})
	content := func(path string) string { return path + pattern(300_000)[:len(path)*20_000] }
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	for round := range 4 {
		begun := make(chan struct{}, 1000)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				path := fmt.Sprintf("r%d/%d", round, i)
				w := file(path, content(path))
				inner := w.Open
				w.Open = func(ctx context.Context) (io.ReadCloser, error) {
					r, err := inner(ctx)
					begun <- struct{}{}
					return r, err
				}
				if _, err := p.Put(t.Context(), w); err == nil {
					mu.Lock()
					acknowledged[path] = true
					mu.Unlock()
				}
			})
		}
		all.Go(func() {
			var ws []place.Write
			for i := range 100 {
				path := fmt.Sprintf("b%d/%03d", round, i)
				ws = append(ws, file(path, content(path)[:1000]))
			}
			for i, o := range p.PutBatch(t.Context(), ws) {
				if o.Err == nil {
					mu.Lock()
					acknowledged[ws[i].Entry.Path] = true
					mu.Unlock()
				}
			}
		})
		for range 1 + 2*round {
			<-begun
		}
		m.Stop()
		must(t, m.Restart(t.Context()))
		all.Wait()
	}
	whole(t, p, acknowledged, content)
}

// whole fails unless what was acknowledged is there, and all that is there has its
// content: that of a batch is short.
func whole(t *testing.T, p *Place, acknowledged map[string]bool, content func(string) string) {
	t.Helper()
	all, errs := listed(t, p)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for path := range acknowledged {
		if _, ok := all[path]; !ok {
			t.Errorf("%q was acknowledged and is gone", path)
		}
	}
	for key, e := range all {
		want := content(e.Path)
		if strings.HasPrefix(key, "b") {
			want = want[:1000]
		}
		if read(t, p, e) != want {
			t.Errorf("%q is torn", key)
		}
	}
}

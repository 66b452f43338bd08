package store

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
)

// TestForeignObjects reads what others wrote: each look at it gives the same, so
// that a second run finds nothing to do.
func TestForeignObjects(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	behind(t, c, "file", "text", minio.PutObjectOptions{})
	behind(t, c, "rclone", "text", minio.PutObjectOptions{UserMetadata: map[string]string{"mtime": "1500000000.123456789"}})
	behind(t, c, "dir/", "", minio.PutObjectOptions{})
	behind(t, c, "implied/file", "text", minio.PutObjectOptions{})
	all, errs := listed(t, p)
	if len(errs) > 0 || len(all) != 4 {
		t.Fatalf("listed %v, %v", all, errs)
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	for key, e := range all {
		mode := map[entry.Kind]uint32{entry.File: 0o644, entry.Dir: 0o755}[e.Kind]
		if e.Mode != mode || e.UID != uid || e.GID != gid || !e.Sum.Contains(entry.HasETag) {
			t.Errorf("%q: %+v", key, e)
		}
		if since := time.Since(time.Unix(0, e.MTime)); key != "rclone" && since.Abs() > time.Minute {
			t.Errorf("%q was written %v ago", key, since)
		}
		now, ok, err := p.Look(t.Context(), e)
		now.Sum = e.Sum // Look knows more of it.
		if err != nil || !ok || !equal(now, e) {
			t.Errorf("%q: listed %+v, looked at %+v, %v", key, e, now, err)
		}
	}
	if got := all["rclone"].MTime; got != 1_500_000_000_123_456_789 {
		t.Errorf("rclone's time is %d", got)
	}
	other := New(p.b, Options{Foreign: &Foreign{0o600, 0o700, 7, 8}})
	all, _ = listed(t, other)
	if f, d := all["file"], all["dir/"]; f.Mode != 0o600 || d.Mode != 0o700 || f.UID != 7 || d.GID != 8 {
		t.Errorf("got %+v and %+v", f, d)
	}
}

func equal(a, b entry.Entry) bool {
	return a.Path == b.Path && a.Kind == b.Kind && a.Size == b.Size && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		a.MTime == b.MTime && a.Target == b.Target && a.Device == b.Device && a.Sum == b.Sum
}

// TestKeysThatAreNoEntries are errors in the stream, which goes on behind them.
func TestKeysThatAreNoEntries(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	behind(t, c, "a", "text", minio.PutObjectOptions{})
	// Others write no such escape, so that its name is made longer, here too long.
	behind(t, c, "b/%2E"+strings.Repeat("x", 250), "text", minio.PutObjectOptions{})
	behind(t, c, "c/", "text", minio.PutObjectOptions{})
	behind(t, c, "d", "text", minio.PutObjectOptions{UserMetadata: map[string]string{"mtime": "1.0", "firedrill": "mode=999"}})
	behind(t, c, "e", "text", minio.PutObjectOptions{})
	all, errs := listed(t, p)
	if _, ok := all["e"]; len(errs) != 3 || len(all) != 2 || !ok {
		t.Errorf("listed %v, %v", all, errs)
	}
	wants(t, errors.Join(errs...), entry.ErrName, entry.ErrMeta)
}

// TestMetadataThatIsKeptBack reads with credentials that may list and not read:
// the server leaves metadata out without a word.
func TestMetadataThatIsKeptBack(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	put(t, p, file("a", "text"))
	only := assume(t, c, `{"Effect":"Allow","Action":["s3:ListBucket"],"Resource":["arn:aws:s3:::BUCKET"]}`)
	only.ReadOnly = true
	simple, _ := enginetest.Plain(t, only)
	for _, c := range []bucket.Config{only, simple} {
		all, errs := listed(t, opened(t, c, Options{}))
		if len(all) > 0 || len(errs) != 1 || !strings.Contains(errs[0].Error(), "s3:GetObject") {
			t.Errorf("listed %v, %v", all, errs)
		}
	}
}

func TestIdentity(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{Name: "mine"})
	if p.String() != "mine" {
		t.Errorf("it is called %q", p)
	}
	moved := c
	moved.Endpoint = strings.Replace(c.Endpoint, "127.0.0.1", "localhost", 1)
	if got := opened(t, moved, Options{}).Traits().Identity; got != p.Traits().Identity || got == "" {
		t.Errorf("%q under another name is %q", p.Traits().Identity, got)
	}
	below := c
	below.Prefix = "below"
	again := c
	must(t, admin(t, c).RemoveBucket(t.Context(), c.Bucket))
	must(t, admin(t, c).MakeBucket(t.Context(), c.Bucket, minio.MakeBucketOptions{}))
	for _, other := range []string{opened(t, below, Options{}).Traits().Identity, opened(t, again, Options{}).Traits().Identity} {
		if other == p.Traits().Identity || other == "" {
			t.Errorf("another place has the identity %q too", other)
		}
	}
	// Who is not shown the bucket's age still has its name and its server's.
	must(t, admin(t, c).SetBucketPolicy(t.Context(), c.Bucket, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:ListBucket"],"Resource":["arn:aws:s3:::`+c.Bucket+`"]}]}`))
	c.Credentials, c.ReadOnly = nil, true
	if got := opened(t, c, Options{}).Traits().Identity; got != "s3:"+c.Endpoint+"/"+c.Bucket+"/" {
		t.Errorf("anonymously it is %q", got)
	}
}

package bucket

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

func TestGet(t *testing.T) {
	b := fresh(t)
	raw := randomBytes(300_000)
	put(t, b, "key", string(raw), PutOptions{Meta: map[string]string{"name": "x"}})
	put(t, b, "empty", "", PutOptions{})
	for _, r := range []struct{ off, n int64 }{{0, -1}, {0, 10}, {100, 1}, {299_990, -1}, {299_990, 100}, {5, 0}} {
		body, o, err := b.Get(t.Context(), "key", r.off, r.n)
		must(t, err)
		got, err := io.ReadAll(body)
		must(t, errors.Join(err, body.Close()))
		end := min(r.off+r.n, int64(len(raw)))
		if r.n < 0 {
			end = int64(len(raw))
		}
		if string(got) != string(raw[r.off:end]) || o.Size != int64(len(raw)) || o.Meta["Name"] != "x" || o.Key != "key" {
			t.Errorf("%+v: %d bytes of %+v", r, len(got), o)
		}
	}
	if content(t, b, "empty") != "" {
		t.Error("an empty object has content")
	}
	_, _, err := b.Get(t.Context(), "nothing", 0, -1)
	wants(t, err, ErrNotFound)
	_, err = b.Stat(t.Context(), "nothing")
	wants(t, err, ErrNotFound)
	for _, off := range []int64{-1, 300_000, 1 << 40} {
		if _, _, err := b.Get(t.Context(), "key", off, 10); err == nil {
			t.Errorf("offset %d is taken", off)
		}
	}
}

// TestGetThatBreaksOff reads through a proxy that ends in the middle.
func TestGetThatBreaksOff(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	put(t, open(t, c), "key", strings.Repeat("x", 100_000), PutOptions{})
	b := open(t, proxy(t, c, nil, func(a *http.Response) error {
		if a.Request.Method == http.MethodGet && !isListing(a.Request) && a.Request.URL.RawQuery == "" {
			a.Body = io.NopCloser(io.LimitReader(a.Body, 50_000))
		}
		return nil
	}))
	r, _, err := b.Get(t.Context(), "key", 0, -1)
	must(t, err)
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, then %v", n, err)
	}
}

// TestGetFromAServerWithoutRanges must not take the whole for the part.
func TestGetFromAServerWithoutRanges(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	put(t, open(t, c), "key", "0123456789", PutOptions{})
	b := open(t, proxy(t, c, nil, func(a *http.Response) error {
		if a.StatusCode == http.StatusPartialContent {
			a.StatusCode, a.Status = http.StatusOK, "200 OK"
		}
		return nil
	}))
	_, _, err := b.Get(t.Context(), "key", 5, 2)
	wants(t, err, ErrUnsupported)
}

func TestDelete(t *testing.T) {
	b := fresh(t)
	keys := fill(t, b, 2500)
	must(t, b.Delete(t.Context(), nil))
	must(t, b.Delete(t.Context(), append([]string{"never there"}, keys[:2400]...)))
	if got := keysOf(list(t, b, ListOptions{})); !slices.Equal(got, keys[2400:]) {
		t.Errorf("%d are left, want 100", len(got))
	}
}

// TestDeleteThatIsNotAnswered leaves a key out of the answer.
func TestDeleteThatIsNotAnswered(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	keys := fill(t, open(t, c), 10)
	b := open(t, proxy(t, c, nil, func(a *http.Response) error {
		if a.Request.Method != http.MethodPost {
			return nil
		}
		text, err := io.ReadAll(a.Body)
		if err != nil {
			return err
		}
		changed := strings.Replace(string(text), "<Key>"+keys[3], "<Key>other", 1)
		a.Header.Set("Content-Length", fmt.Sprint(len(changed)))
		a.ContentLength, a.Body = int64(len(changed)), io.NopCloser(strings.NewReader(changed))
		return nil
	}))
	if got := failedKeys(t, b.Delete(t.Context(), keys)); !slices.Equal(got, keys[3:4]) {
		t.Errorf("failed: %q, want %q", got, keys[3:4])
	}
}

func TestDeleteDeniedForSome(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	keys := fill(t, open(t, c), 710)
	b := open(t, assume(t, c, nil, `{"Effect":"Allow","Action":["s3:ListBucket","s3:DeleteObject"],"Resource":["arn:aws:s3:::BUCKET","arn:aws:s3:::BUCKET/d00/*"]}`))
	err := b.Delete(t.Context(), keys)
	wants(t, err, ErrDenied)
	if got := failedKeys(t, err); !slices.Equal(got, keys[700:]) {
		t.Errorf("%d failed: %v", len(got), err)
	}
}

// TestVersionsAndLocks deletes what comes back, what goes for good, and what a
// lock keeps.
func TestVersionsAndLocks(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{ObjectLocking: true})
	b := open(t, c)
	first := put(t, b, "key", "first", PutOptions{})
	second := put(t, b, "key", "second", PutOptions{})
	if first.VersionID == "" || first.VersionID == second.VersionID {
		t.Fatalf("versions %q and %q", first.VersionID, second.VersionID)
	}
	must(t, b.Delete(t.Context(), []string{"key"}))
	_, err := b.Stat(t.Context(), "key")
	wants(t, err, ErrNotFound)
	if got := list(t, b, ListOptions{}); len(got) > 0 {
		t.Errorf("a delete marker is listed: %+v", got)
	}
	versions := func() (out []minio.ObjectInfo) {
		for o := range admin(t, c).ListObjects(t.Context(), c.Bucket, minio.ListObjectsOptions{WithVersions: true}) {
			must(t, o.Err)
			out = append(out, o)
		}
		return out
	}
	all := versions()
	if len(all) != 3 || !all[0].IsDeleteMarker {
		t.Fatalf("versions: %+v", all)
	}
	must(t, b.DeleteVersion(t.Context(), "key", all[0].VersionID))
	if content(t, b, "key") != "second" {
		t.Error("it did not come back")
	}
	mode, until := minio.Governance, time.Now().Add(time.Hour)
	must(t, admin(t, c).PutObjectRetention(t.Context(), c.Bucket, "key", minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until}))
	wants(t, b.DeleteVersion(t.Context(), "key", second.VersionID), ErrDenied)
	must(t, b.DeleteVersion(t.Context(), "key", first.VersionID))
	must(t, b.DeleteVersion(t.Context(), "key", first.VersionID))
	if got := versions(); len(got) != 1 || got[0].VersionID != second.VersionID {
		t.Errorf("versions: %+v", got)
	}
}

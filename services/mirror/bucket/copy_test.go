package bucket

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

// TestSetMeta gives objects of all origins other metadata, and finds their content
// and what is known of it as before.
func TestSetMeta(t *testing.T) {
	for _, versions := range []bool{false, true} {
		b := open(t, makeBucket(t, server(t, false), minio.MakeBucketOptions{ObjectLocking: versions}))
		raw := randomBytes(MinPart + 1000)
		put(t, b, "put", string(raw), PutOptions{Meta: map[string]string{"Old": "x"}})
		_, err := b.PutBatch(t.Context(), []BatchItem{item("batched", string(raw[:1000]), nil)})
		must(t, err)
		u, parts := upload(t, b, "parts", raw, MinPart)
		_, err = b.FinishParts(t.Context(), u, parts, FinishOptions{})
		must(t, err)
		for _, key := range []string{"put", "batched", "parts"} {
			before, err := b.Stat(t.Context(), key)
			must(t, err)
			o := SetMetaOptions{Meta: map[string]string{"New": "y"}, Headers: map[string]string{"Content-Type": "text/plain"}, IfMatch: before.ETag}
			etag, err := b.SetMeta(t.Context(), key, o)
			must(t, err)
			after, err := b.Stat(t.Context(), key)
			must(t, err)
			if after.ETag != etag || !maps.Equal(after.Meta, o.Meta) || after.Headers["Content-Type"] != "text/plain" || after.Size != before.Size {
				t.Errorf("versions %v: %s has ETag %s: %+v", versions, key, etag, after)
			}
			if before.CRC32C != nil && (after.CRC32C == nil || *after.CRC32C != *before.CRC32C) {
				t.Errorf("versions %v: %s lost its checksum", versions, key)
			}
			if content(t, b, key) != string(raw[:before.Size]) {
				t.Errorf("versions %v: %s has another content", versions, key)
			}
			o.IfMatch, o.Meta = "0123", map[string]string{"Never": "z"}
			_, err = b.SetMeta(t.Context(), key, o)
			wants(t, err, ErrPrecondition)
			o.IfMatch, o.Rewrite = after.ETag, true
			_, err = b.SetMeta(t.Context(), key, o)
			must(t, err)
			if again, err := b.Stat(t.Context(), key); err != nil || again.CRC32C == nil || strings.Contains(again.ETag, "-") {
				t.Errorf("versions %v: %s was not written again: %+v, %v", versions, key, again, err)
			}
		}
		_, err = b.SetMeta(t.Context(), "nothing", SetMetaOptions{IfMatch: "0123"})
		wants(t, err, ErrNotFound)
		if _, err := b.SetMeta(t.Context(), "put", SetMetaOptions{}); err == nil {
			t.Error("it is done to whatever is there")
		}
	}
}

// TestSetMetaInParts does what objects above MaxCopy need, and that nothing is
// left of what fails.
func TestSetMetaInParts(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	b := open(t, c)
	raw := randomBytes(2*MinPart + 1000)
	u, parts := upload(t, b, "key", raw, MinPart)
	before, err := b.FinishParts(t.Context(), u, parts, FinishOptions{})
	must(t, err)
	o := SetMetaOptions{Meta: map[string]string{"New": "y"}, IfMatch: before.ETag, Size: int64(len(raw)), PartSize: MinPart}
	etag, err := b.SetMeta(t.Context(), "key", o)
	must(t, err)
	after, err := b.Stat(t.Context(), "key")
	must(t, err)
	if etag != before.ETag || after.ETag != etag || !maps.Equal(after.Meta, o.Meta) || content(t, b, "key") != string(raw) {
		t.Errorf("ETag %s: %+v", etag, after)
	}
	for name, change := range map[string]func(*SetMetaOptions){
		"another content": func(o *SetMetaOptions) { o.IfMatch = "0123" },
		"too much":        func(o *SetMetaOptions) { o.Size += MinPart },
		"small parts":     func(o *SetMetaOptions) { o.PartSize-- },
	} {
		bad := o
		change(&bad)
		if _, err := b.SetMeta(t.Context(), "key", bad); err == nil {
			t.Errorf("%s: it is done", name)
		}
	}
	for left := range admin(t, c).ListIncompleteUploads(t.Context(), c.Bucket, "key", true) {
		t.Errorf("left behind: %+v", left)
	}
}

// TestFinishPartsConditions finds the condition that the object has to meet at the
// moment when it appears.
func TestFinishPartsConditions(t *testing.T) {
	b := fresh(t)
	raw := randomBytes(1000)
	u, parts := upload(t, b, "key", raw, MinPart)
	put(t, b, "key", "other", PutOptions{})
	other, err := b.Stat(t.Context(), "key")
	must(t, err)
	for _, o := range []FinishOptions{{IfNoneMatch: true}, {IfMatch: "0123"}} {
		_, err := b.FinishParts(t.Context(), u, parts, o)
		wants(t, err, ErrPrecondition)
	}
	_, err = b.FinishParts(t.Context(), u, parts, FinishOptions{CRC32C: new(crcOf(raw) + 1)})
	wants(t, err, ErrChecksum)
	if content(t, b, "key") != "other" {
		t.Fatal("it was overwritten")
	}
	o := FinishOptions{IfMatch: other.ETag, CRC32C: new(crcOf(raw))}
	w, err := b.FinishParts(t.Context(), u, parts, o)
	must(t, err)
	// Done twice, it is done: what is there is what was to be.
	again, err := b.FinishParts(t.Context(), u, parts, o)
	must(t, err)
	if w.Found = true; again != w {
		t.Errorf("finished again: %+v, before %+v", again, w)
	}
}

// TestTimesThatServersDoNotKnow writes with times up to 1970, with which this
// server fails, or forgets conditions.
func TestTimesThatServersDoNotKnow(t *testing.T) {
	for _, versions := range []bool{false, true} {
		b := open(t, makeBucket(t, server(t, false), minio.MakeBucketOptions{ObjectLocking: versions}))
		for _, ns := range []int64{-1 << 62, -1, 0, 1, 999_999, 1_000_000} {
			mtime := time.Unix(0, ns)
			put(t, b, "put", "text", PutOptions{MTime: mtime})
			_, err := b.Put(t.Context(), "put", strings.NewReader("more"), 4, PutOptions{IfMatch: "0123"})
			wants(t, err, ErrPrecondition)
			_, err = b.Put(t.Context(), "put", strings.NewReader("more"), 4, PutOptions{IfNoneMatch: true})
			wants(t, err, ErrPrecondition)
			it := item("batched", "text", nil)
			it.MTime = mtime
			_, err = b.PutBatch(t.Context(), []BatchItem{it})
			must(t, err)
			u, err := b.StartParts(t.Context(), "parts", PartsOptions{PartSize: MinPart, MTime: mtime})
			must(t, err)
			p, err := b.PutPart(t.Context(), u, 1, strings.NewReader("new"), 3, nil)
			must(t, err)
			_, err = b.FinishParts(t.Context(), u, []Part{p}, FinishOptions{})
			must(t, err)
		}
		if got := keysOf(list(t, b, ListOptions{})); !slices.Equal(got, []string{"batched", "parts", "put"}) {
			t.Errorf("listed: %q", got)
		}
	}
}

func TestCreated(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	at := open(t, c).Created()
	if time.Since(at).Abs() > time.Minute {
		t.Errorf("made at %v", at)
	}
	// Who is not shown the bucket is not told, and that is no error.
	must(t, admin(t, c).SetBucketPolicy(t.Context(), c.Bucket, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:ListBucket"],"Resource":["arn:aws:s3:::`+c.Bucket+`"]}]}`))
	c.Credentials, c.ReadOnly = nil, true
	at = open(t, c).Created()
	if !at.IsZero() {
		t.Errorf("anybody is told that it was made at %v", at)
	}
}

func TestHeaders(t *testing.T) {
	b := fresh(t)
	want := map[string]string{"Content-Type": "text/html", "Cache-Control": "no-store", "Content-Language": "de"}
	put(t, b, "key", "text", PutOptions{Headers: want})
	o, err := b.Stat(t.Context(), "key")
	must(t, err)
	if !maps.Equal(o.Headers, want) {
		t.Errorf("got %v", o.Headers)
	}
	r, o, err := b.Get(t.Context(), "key", 0, -1)
	must(t, err)
	must(t, r.Close())
	if !maps.Equal(o.Headers, want) {
		t.Errorf("got %v", o.Headers)
	}
	if len(o.Meta) != 0 {
		t.Errorf("as metadata: %v", o.Meta)
	}
}

// TestAnEncodingOfTheContent is kept also of a body whose checksum comes behind it, which is
// sent in an encoding of its own.
func TestAnEncodingOfTheContent(t *testing.T) {
	b := fresh(t)
	for _, size := range []int{4, smallBody + 1} {
		put(t, b, "key", strings.Repeat("x", size), PutOptions{Headers: map[string]string{"Content-Encoding": "gzip"}})
		o, err := b.Stat(t.Context(), "key")
		must(t, err)
		if got := o.Headers["Content-Encoding"]; got != "gzip" || o.Size != int64(size) {
			t.Errorf("of %d bytes %d are there, encoded as %q", size, o.Size, got)
		}
	}
}

// TestCopy copies to other keys, at once and in parts, only what is meant and, where that is
// asked for, over nothing.
func TestCopy(t *testing.T) {
	b := fresh(t)
	raw := string(randomBytes(MinPart + 1000))
	meta := map[string]string{"Mine": "x"}
	from := put(t, b, "from", raw, PutOptions{Meta: meta, Headers: map[string]string{"Content-Type": "text/x-mine"}})
	put(t, b, "there", "stays", PutOptions{})
	whole := CopyOptions{IfMatch: from.ETag}
	parts := CopyOptions{IfMatch: from.ETag, Size: from.Size, PartSize: MinPart, Meta: meta, Headers: map[string]string{"Content-Type": "text/x-mine"}}
	for name, o := range map[string]CopyOptions{"whole": whole, "parts": parts} {
		etag, err := b.Copy(t.Context(), "from", name, o)
		must(t, err)
		got, err := b.Stat(t.Context(), name)
		must(t, err)
		if got.ETag != etag || !maps.Equal(got.Meta, meta) || got.Headers["Content-Type"] != "text/x-mine" || content(t, b, name) != raw {
			t.Errorf("%s: %+v, of ETag %s", name, got, etag)
		}
		o.IfMatch = "0123"
		_, err = b.Copy(t.Context(), "from", name, o)
		wants(t, err, ErrPrecondition)
		_, err = b.Copy(t.Context(), "nothing", name, o)
		wants(t, err, ErrNotFound)
	}
	parts.IfNoneMatch, whole.IfNoneMatch = true, true
	_, err := b.Copy(t.Context(), "from", "there", parts)
	wants(t, err, ErrPrecondition)
	if _, err := b.Copy(t.Context(), "from", "new", whole); err == nil {
		t.Error("a condition that no server knows was taken")
	}
	if _, err := b.Copy(t.Context(), "from", "new", CopyOptions{}); err == nil {
		t.Error("whatever is there was copied")
	}
	if got := keysOf(list(t, b, ListOptions{})); content(t, b, "there") != "stays" || !slices.Equal(got, []string{"from", "parts", "there", "whole"}) {
		t.Errorf("there is %q", got)
	}
}

// TestVersions lists more than a page of keys of all sorts, in order, what was deleted and
// what was written over.
func TestVersions(t *testing.T) {
	b := open(t, makeBucket(t, server(t, false), minio.MakeBucketOptions{ObjectLocking: true}))
	keys := append(numbered("many/", 1050), "many/a b&<\"+%\n", "many/é", "other")
	slices.Sort(keys)
	write(t, b, keys)
	put(t, b, "many/é", "again", PutOptions{})
	must(t, b.Delete(t.Context(), []string{"many/00007", "many/é"}))
	must(t, b.Delete(t.Context(), []string{"many/00007"}))
	var got []string
	marks := ""
	for v, err := range b.Versions(t.Context(), "many/") {
		must(t, err)
		if v.ID == "" || v.Modified.IsZero() || v.Marker != (v.ETag == "") {
			t.Errorf("%+v", v)
		}
		if len(got) == 0 || got[len(got)-1] != v.Key {
			got = append(got, v.Key)
			if !v.Latest {
				t.Errorf("%q is not the latest", v.Key)
			}
		}
		if v.Key == "many/00007" || v.Key == "many/é" {
			marks += map[bool]string{true: "x", false: "o"}[v.Marker]
		}
	}
	if !slices.Equal(got, keys[:len(keys)-1]) {
		t.Errorf("%d keys, of %d", len(got), len(keys)-1)
	}
	if marks != "xxoxoo" {
		t.Errorf("deleted and written over: %s", marks)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range b.Versions(ctx, "") {
		wants(t, err, context.Canceled)
	}
}

// TestBrokenVersions: an answer that is not whole is none.
func TestBrokenVersions(t *testing.T) {
	for _, text := range []string{
		"", "<ListVersionsResult>", "<ListVersionsResult></ListVersionsResult>", "<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>",
		"<ListVersionsResult><IsTruncated>maybe</IsTruncated></ListVersionsResult>",
		"<ListVersionsResult><IsTruncated>false</IsTruncated><Version><Key>other/x</Key></Version></ListVersionsResult>",
		"<ListVersionsResult><IsTruncated>false</IsTruncated><Version><Key>p/%zz</Key></Version></ListVersionsResult>",
	} {
		if err := new(versionsPage).read(strings.NewReader(text), "p/"); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

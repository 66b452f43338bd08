package bucket

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"
)

// upload starts an upload of raw and puts its parts, the last first.
func upload(t *testing.T, b *Bucket, key string, raw []byte, size int64) (Upload, []Part) {
	t.Helper()
	started, err := b.StartParts(t.Context(), key, PartsOptions{PartSize: size, Meta: map[string]string{"Part": "x"}})
	must(t, err)
	// Another worker gets it as text.
	text, err := json.Marshal(started)
	must(t, err)
	var u Upload
	must(t, json.Unmarshal(text, &u))
	if u != started {
		t.Fatalf("%+v became %+v", started, u)
	}
	parts := make([]Part, (int64(len(raw))+size-1)/size)
	var all sync.WaitGroup
	for i := range parts {
		all.Go(func() {
			piece := raw[int64(i)*size : min(int64(i+1)*size, int64(len(raw)))]
			var known *uint32
			if i%2 == 0 {
				known = new(crcOf(piece))
			}
			p, err := b.PutPart(t.Context(), u, i+1, bytes.NewReader(piece), int64(len(piece)), known)
			if err != nil {
				t.Error(err)
			}
			parts[i] = p
		})
	}
	all.Wait()
	return u, parts
}

func TestParts(t *testing.T) {
	b := fresh(t)
	for _, n := range []int{100, MinPart, 2*MinPart + 1, 3 * MinPart} {
		raw := randomBytes(n)
		u, parts := upload(t, b, "key", raw, MinPart)
		w, err := b.FinishParts(t.Context(), u, parts, FinishOptions{})
		must(t, err)
		o, err := b.Stat(t.Context(), "key")
		must(t, err)
		if !w.Confirmed || w.CRC32C != crcOf(raw) || o.ETag != w.ETag || o.Size != int64(n) || o.CRC32C == nil || *o.CRC32C != w.CRC32C || o.Meta["Part"] != "x" {
			t.Errorf("%d bytes: wrote %+v, then %+v", n, w, o)
		}
		if content(t, b, "key") != string(raw) {
			t.Errorf("%d bytes: another content", n)
		}
		// Done twice, it is done.
		again, err := b.FinishParts(t.Context(), u, parts, FinishOptions{})
		must(t, err)
		if w.Found = true; again != w {
			t.Errorf("finished again: %+v, before %+v", again, w)
		}
		must(t, b.AbortParts(t.Context(), u))
	}
}

func TestPartsThatDoNotFit(t *testing.T) {
	b := fresh(t)
	raw := randomBytes(2*MinPart + 10)
	u, parts := upload(t, b, "key", raw, MinPart)
	for name, bad := range map[string][]Part{
		"none":         nil,
		"one missing":  {parts[0], parts[2]},
		"out of order": {parts[1], parts[0], parts[2]},
		"a short one":  {parts[0], {Number: 2, Size: 1, ETag: parts[1].ETag}, parts[2]},
	} {
		if _, err := b.FinishParts(t.Context(), u, bad, FinishOptions{}); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	wrong := append([]Part(nil), parts...)
	wrong[1].CRC32C++
	if _, err := b.FinishParts(t.Context(), u, wrong, FinishOptions{}); err == nil {
		t.Error("a wrong checksum is taken")
	}
	if _, err := b.PutPart(t.Context(), u, 1, bytes.NewReader(raw), MinPart+1, nil); err == nil {
		t.Error("a part that is too large is taken")
	}
	_, err := b.PutPart(t.Context(), u, 1, bytes.NewReader(raw), MinPart, new(uint32(1)))
	wants(t, err, ErrChecksum)
	_, err = b.StartParts(t.Context(), "key", PartsOptions{PartSize: 1})
	if err == nil {
		t.Error("a tiny part size is taken")
	}
	must(t, b.AbortParts(t.Context(), u))
	must(t, b.AbortParts(t.Context(), u))
	_, err = b.PutPart(t.Context(), u, 1, bytes.NewReader(raw), MinPart, nil)
	wants(t, err, ErrNotFound)
	_, err = b.FinishParts(t.Context(), u, parts, FinishOptions{})
	wants(t, err, ErrNotFound)
	_, err = b.Stat(t.Context(), "key")
	wants(t, err, ErrNotFound)
}

// TestFinishWhoseAnswerIsLost finds out that it succeeded.
func TestFinishWhoseAnswerIsLost(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	var lost atomic.Int32
	b := open(t, proxy(t, c, nil, func(a *http.Response) error {
		if a.Request.Method == http.MethodPost && a.Request.URL.Query().Has("uploadId") {
			lost.Add(1)
			return errors.New("lost")
		}
		return nil
	}))
	raw := []byte(strings.Repeat("x", 1000))
	u, parts := upload(t, b, "key", raw, MinPart)
	w, err := b.FinishParts(t.Context(), u, parts, FinishOptions{})
	must(t, err)
	if lost.Load() != 1 || !w.Confirmed || w.Size != 1000 || content(t, b, "key") != string(raw) {
		t.Errorf("after %d lost answers: %+v", lost.Load(), w)
	}
}

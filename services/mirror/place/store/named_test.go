package store

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// names lists a place by names, by key.
func names(t testing.TB, p *Place) map[string]entry.Entry {
	t.Helper()
	all := map[string]entry.Entry{}
	for e, err := range p.Entries(t.Context(), place.ListOptions{Names: true}) {
		must(t, err)
		all[e.Key()] = e
	}
	return all
}

// What a listing refuses of an object is refused when it is opened by its name: nothing
// is made of metadata that does not read.
func TestOpeningByNameRefusesWhatAListingRefuses(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	for key, own := range map[string]string{
		"mode": "mode=9999&uid=1&gid=1", "kind": "kind=blob&mode=644", "twice": "mode=644&mode=600", "directory": "kind=dir&mode=755", "link/": "kind=symlink&mode=777",
	} {
		behind(t, c, key, "", minio.PutObjectOptions{UserMetadata: map[string]string{entry.MetaEntry: own, entry.MetaMTime: "1.5"}})
	}
	behind(t, c, "time", "x", minio.PutObjectOptions{UserMetadata: map[string]string{entry.MetaEntry: "mode=644", entry.MetaMTime: "noon"}})
	link := map[string]string{entry.MetaEntry: "kind=symlink&mode=777", entry.MetaMTime: "1.5"}
	behind(t, c, "link", "", minio.PutObjectOptions{UserMetadata: link})
	behind(t, c, "long", strings.Repeat("x", maxTarget+1), minio.PutObjectOptions{UserMetadata: link})
	all, errs := listed(t, p)
	if len(all) != 0 || len(errs) != 8 {
		t.Fatalf("the listing gives %v and %v", all, errs)
	}
	opened := names(t, p)
	for key, e := range opened {
		content, got, err := p.OpenNamed(t.Context(), e)
		if err == nil || content != nil || errors.Is(err, place.ErrChanged) {
			t.Errorf("%q is %+v, %v", key, got, err)
		}
	}
	if len(opened) != 8 {
		t.Errorf("%d names", len(opened))
	}
}

// What stands between may cut a content short, headers and all: where the server knows no
// checksum, only the listing tells.
func TestOpeningByNameFindsAnotherSize(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	behind(t, c, "file", "content", minio.PutObjectOptions{})
	e := names(t, p)["file"]
	e.Size++
	if content, got, err := p.OpenNamed(t.Context(), e); !errors.Is(err, place.ErrChanged) || content != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// A content that is opened by its name is checked as any other is.
func TestOpeningByNameFindsAnotherContent(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	meta := entry.Entry{Path: "f", Mode: 0o644, Sum: entry.Sum{Has: entry.HasCRC32C, CRC32C: crcOf("what was")}}.Meta()
	behind(t, c, "f", "what is", minio.PutObjectOptions{UserMetadata: meta})
	content, _, err := p.OpenNamed(t.Context(), names(t, p)["f"])
	must(t, err)
	_, err = io.ReadAll(content)
	wants(t, errors.Join(err, content.Close()), place.ErrCorrupt)
}

// Each entry takes one request, and links and directories keep the connection open.
func TestOpeningByNameTakesOneRequestEach(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	put(t, p, file("f", "content"))
	for _, target := range []string{"f", strings.Repeat("é/", 1000)} {
		_, err := p.Put(t.Context(), place.Write{Entry: entry.Entry{Path: "l" + target[:1], Kind: entry.Symlink, Target: target, MTime: mtime}})
		must(t, err)
	}
	_, err := p.MakeDir(t.Context(), entry.Entry{Path: "d", Kind: entry.Dir, Mode: 0o755, MTime: mtime})
	must(t, err)
	var mu sync.Mutex
	var asked []string
	from := map[string]bool{}
	through := opened(t, proxy(t, c, func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasSuffix(strings.TrimSuffix(r.URL.Path, "/"), c.Bucket) {
			asked = append(asked, r.Method)
			from[r.RemoteAddr] = true
		}
	}, nil), Options{})
	mu.Lock()
	asked = nil
	clear(from)
	mu.Unlock()
	all := names(t, through)
	for _, key := range slices.Backward(slices.Sorted(maps.Keys(all))) { // links first
		content, _, err := through.OpenNamed(t.Context(), all[key])
		must(t, err)
		if content != nil {
			_, err = io.Copy(io.Discard, content)
			must(t, errors.Join(err, content.Close()))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(all) != 4 || strings.Join(asked, " ") != "GET GET GET GET" || len(from) != 1 {
		t.Errorf("%d entries were asked for with %q over %d connections", len(all), asked, len(from))
	}
}

package entry_test

import (
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/firedrill/firedrill/pkg/lab"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// startMinIO gives a client of a server with an empty bucket.
func startMinIO(t *testing.T, bucket string) *minio.Client {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "firedrill-entry-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	bin := os.Getenv("FIREDRILL_BIN")
	if bin == "" {
		bin = "../../../out/bin"
	}
	m, err := lab.StartMinIO(t.Context(), lab.MinIOOptions{Binary: filepath.Join(bin, "minio"), Dir: dir})
	must(t, err)
	t.Cleanup(m.Stop)
	u, err := url.Parse(m.Endpoint)
	must(t, err)
	c, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(m.AccessKey, m.SecretKey, ""), Region: "us-east-1"})
	must(t, err)
	must(t, c.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}))
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// awkward are entries with names that a server may refuse, change or misplace.
func awkward() map[string]entry.Entry {
	all := map[string]entry.Entry{}
	add := func(e entry.Entry) {
		if !foreign(e.Path) && e.Check() == nil {
			all[e.Key()] = e
		}
	}
	everywhere := func(name string) {
		if !isName(name) {
			return
		}
		add(entry.Entry{Path: "f/" + name})
		add(entry.Entry{Path: "d/" + name + "/in-" + name})
		add(entry.Entry{Path: "d/" + name, Kind: entry.Dir})
	}
	for c := 1; c < 256; c++ {
		everywhere(string([]byte{byte(c)}))
		everywhere(string([]byte{'x', byte(c), 'y'}))
	}
	for _, a := range pieces {
		for _, b := range pieces[:len(pieces)/2] {
			everywhere(a + b)
		}
	}
	for _, name := range []string{"xl.meta", "xl.json", "part.1", ".minio.sys", "format.json", strings.Repeat("\xff", 82), strings.Repeat("x", 246), strings.Repeat("x", 247)} {
		everywhere(name)
	}
	for _, name := range []string{" lead", "trail ", "-", strings.Repeat("12345678/", 113) + "1234567"} {
		add(entry.Entry{Path: name})
	}
	add(entry.Entry{Path: strings.Repeat("d", 246), Kind: entry.Dir})
	return all
}

func TestMinIOHoldsEveryKeyInItsOrder(t *testing.T) {
	const bucket = "keys"
	c := startMinIO(t, bucket)
	all := awkward()
	want := slices.SortedFunc(maps.Keys(all), entry.Compare)
	put := func(key string) error {
		_, err := c.PutObject(t.Context(), bucket, key, strings.NewReader(""), 0, minio.PutObjectOptions{UserMetadata: all[key].Meta()})
		return err
	}
	keys := make(chan string)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for key := range keys {
				if err := put(key); err != nil {
					t.Errorf("%q of %q: %v", key, all[key].Path, err)
				}
			}
		})
	}
	for _, key := range want {
		keys <- key
	}
	close(keys)
	wg.Wait()

	var got []string
	for o := range c.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		must(t, o.Err)
		got = append(got, o.Key)
	}
	if !slices.Equal(got, want) {
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("listed %q where %q should be", got[i], want[i])
			}
		}
		t.Fatalf("%d keys were listed and %d put", len(got), len(want))
	}
	for _, key := range want[:min(len(want), 100)] {
		o, err := c.StatObject(t.Context(), bucket, key, minio.StatObjectOptions{})
		must(t, err)
		if e, err := entry.FromMeta(key, o.Size, o.UserMetadata); err != nil || e.Path != all[key].Path || e.Kind != all[key].Kind {
			t.Errorf("%q came back as %+v, %v", key, e, err)
		}
	}
	t.Logf("%d keys", len(want))
}

// What is escaped is refused or changed without it: if this fails, a rule of
// MinIO's has gone and its escape may stay only for the sake of other servers.
func TestMinIOStillNeedsTheEscapes(t *testing.T) {
	const bucket = "raw"
	c := startMinIO(t, bucket)
	for _, key := range []string{"a/ .", "a/..\t/x", "a\\.\\b", "a/x__XLDIR__", "a//b", "/lead", "a/./b", "a/../b", strings.Repeat("x", 256), strings.Repeat("d", 247) + "/"} {
		_, err := c.PutObject(t.Context(), bucket, key, strings.NewReader(""), 0, minio.PutObjectOptions{})
		for o := range c.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
			if err == nil && o.Key == key {
				t.Errorf("MinIO holds %q", key)
			}
		}
	}
}

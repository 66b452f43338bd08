package bucket

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/minio/minio-go/v7"
	"pgregory.net/rapid"
)

func randomBytes(n int) []byte {
	out := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(out)
	return out
}

func crcOf(raw []byte) uint32 { return crc32.Checksum(raw, castagnoli()) }

// onlyReader hides everything but Read.
type onlyReader struct{ io.Reader }

func TestPutGuardsContent(t *testing.T) {
	b := fresh(t)
	for _, n := range []int{0, 1, smallBody, smallBody + 1, 1<<20 + 7} {
		raw := randomBytes(n)
		for name, r := range map[string]io.Reader{"seeker": bytes.NewReader(raw), "stream": onlyReader{bytes.NewReader(raw)}} {
			for _, known := range []*uint32{nil, new(crcOf(raw))} {
				if s, ok := r.(io.Seeker); ok {
					_, err := s.Seek(0, io.SeekStart)
					must(t, err)
				} else {
					r = onlyReader{bytes.NewReader(raw)}
				}
				w, err := b.Put(t.Context(), "key", r, int64(n), PutOptions{CRC32C: known})
				must(t, err)
				o, err := b.Stat(t.Context(), "key")
				must(t, err)
				if !w.Confirmed || w.CRC32C != crcOf(raw) || w.ETag != o.ETag || w.Size != int64(n) || o.Size != w.Size || o.CRC32C == nil || *o.CRC32C != w.CRC32C {
					t.Errorf("%s of %d bytes: wrote %+v, then %+v", name, n, w, o)
				}
			}
		}
	}
}

// TestPutReadsOnlyItsPart writes the middle of a file, which stays open.
func TestPutReadsOnlyItsPart(t *testing.T) {
	b := fresh(t)
	raw := randomBytes(3 * smallBody)
	f, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer f.Close()
	_, err = f.Write(raw)
	must(t, err)
	for _, n := range []int{10, 2 * smallBody} {
		_, err = f.Seek(7, io.SeekStart)
		must(t, err)
		_, err = b.Put(t.Context(), "part", f, int64(n), PutOptions{})
		must(t, err)
		if content(t, b, "part") != string(raw[7:7+n]) {
			t.Errorf("%d bytes: another content", n)
		}
		if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != int64(7+n) {
			t.Errorf("the file is at %d, %v", at, err)
		}
	}
}

func TestPutOfAChangedSource(t *testing.T) {
	b := fresh(t)
	broken := errors.New("the disk is gone")
	for _, n := range []int{100, 2 * smallBody} {
		raw := randomBytes(n)
		for name, c := range map[string]struct {
			r    io.Reader
			o    PutOptions
			want error
		}{
			"shorter": {bytes.NewReader(raw[:n-1]), PutOptions{}, io.ErrUnexpectedEOF},
			"broken":  {io.MultiReader(bytes.NewReader(raw[:n/2]), iotest.ErrReader(broken)), PutOptions{}, broken},
			"changed": {bytes.NewReader(raw), PutOptions{CRC32C: new(crcOf(raw) + 1)}, ErrChecksum},
		} {
			_, err := b.Put(t.Context(), "key", c.r, int64(n), c.o)
			if !errors.Is(err, c.want) || errors.Is(err, ErrUnreachable) {
				t.Errorf("%s, %d bytes: got %v, want %v", name, n, err, c.want)
			}
			if _, err := b.Stat(t.Context(), "key"); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s, %d bytes: it is stored (%v)", name, n, err)
			}
		}
	}
}

// TestDamageOnTheWay changes a byte between the two ends.
func TestDamageOnTheWay(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	var damage atomic.Bool
	b := open(t, proxy(t, c, func(q *http.Request) {
		if damage.Load() && q.Method == http.MethodPut {
			body := q.Body
			n := 0
			q.Body = struct {
				io.Reader
				io.Closer
			}{readerFunc(func(p []byte) (int, error) {
				k, err := body.Read(p)
				if n < 1000 && n+k > 1000 {
					p[1000-n] ^= 1
				}
				n += k
				return k, err
			}), body}
		}
	}, nil))
	damage.Store(true)
	for _, n := range []int{2000, 2 * smallBody} {
		_, err := b.Put(t.Context(), "key", bytes.NewReader(randomBytes(n)), int64(n), PutOptions{})
		wants(t, err, ErrChecksum)
	}
	var items []BatchItem
	for _, key := range []string{"k1", "k2", "k3"} {
		items = append(items, item(key, string(randomBytes(1000)), nil))
	}
	_, err := b.PutBatch(t.Context(), items)
	if err == nil {
		t.Fatal("a damaged batch is taken")
	}
	left := failedKeys(t, err)
	for _, o := range list(t, b, ListOptions{}) {
		if slices.Contains(left, o.Key) {
			continue
		}
		if content(t, b, o.Key) != string(randomBytes(1000)) {
			t.Errorf("%s is damaged, and reported as stored", o.Key)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestConditionalPuts(t *testing.T) {
	b := fresh(t)
	one := func(text string, o PutOptions) (Written, error) {
		return b.Put(t.Context(), "key", strings.NewReader(text), int64(len(text)), o)
	}
	_, err := one("a", PutOptions{IfMatch: "d41d8cd98f00b204e9800998ecf8427e"})
	wants(t, err, ErrNotFound)
	first, err := one("a", PutOptions{IfNoneMatch: true})
	must(t, err)
	_, err = one("b", PutOptions{IfNoneMatch: true})
	wants(t, err, ErrPrecondition)
	_, err = one("b", PutOptions{IfMatch: first.ETag})
	must(t, err)
	_, err = one("c", PutOptions{IfMatch: first.ETag})
	wants(t, err, ErrPrecondition)
	if content(t, b, "key") != "b" {
		t.Error("a refused write wrote")
	}

	var won atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, err := b.Put(t.Context(), "race", strings.NewReader("x"), 1, PutOptions{IfNoneMatch: true})
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, ErrPrecondition) {
				t.Error(err)
			}
		})
	}
	if all.Wait(); won.Load() != 1 {
		t.Errorf("%d won the race", won.Load())
	}
}

// TestRetries loses the answers of requests that were done: what may be repeated
// succeeds, what must not be says that its outcome is not known.
func TestRetries(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	c.Limits.Attempts = 4
	var lose, puts atomic.Int32
	b := open(t, proxy(t, c, nil, func(a *http.Response) error {
		if a.Request.Method == http.MethodPut {
			puts.Add(1)
			if lose.Add(-1) >= 0 {
				return errors.New("lost")
			}
		}
		return nil
	}))
	long := randomBytes(2 * smallBody)
	for name, put := range map[string]struct {
		r     io.Reader
		n     int
		o     PutOptions
		fails bool
		puts  int32
	}{
		"small stream": {onlyReader{strings.NewReader("text")}, 4, PutOptions{}, false, 3},
		"long file":    {bytes.NewReader(long), len(long), PutOptions{}, false, 3},
		"long stream":  {onlyReader{bytes.NewReader(long)}, len(long), PutOptions{}, true, 1},
		"condition":    {strings.NewReader("text"), 4, PutOptions{IfNoneMatch: true}, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			lose.Store(2)
			puts.Store(0)
			_, err := b.Put(t.Context(), name, put.r, int64(put.n), put.o)
			if (err != nil) != put.fails || put.fails && !errors.Is(err, ErrUnreachable) || puts.Load() != put.puts {
				t.Errorf("after %d requests: %v", puts.Load(), err)
			}
			if o, err := b.Stat(t.Context(), name); err != nil || o.Size != int64(put.n) {
				t.Errorf("got %+v, %v", o, err)
			}
		})
	}
}

// TestEarlyAnswer refuses a body before it is read: its source must not be used
// when Put has returned. The race detector watches.
func TestEarlyAnswer(t *testing.T) {
	c := makeBucket(t, server(t, false), minio.MakeBucketOptions{})
	var early atomic.Bool
	target := proxy(t, c, nil, nil)
	c.Endpoint = serve(t, func(w http.ResponseWriter, q *http.Request) {
		if early.Load() && q.Method == http.MethodPut {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		q.URL.Scheme, q.URL.Host, q.RequestURI = "http", strings.TrimPrefix(target.Endpoint, "http://"), ""
		a, err := http.DefaultTransport.RoundTrip(q)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer a.Body.Close()
		maps.Copy(w.Header(), a.Header)
		w.WriteHeader(a.StatusCode)
		_, _ = io.Copy(w, a.Body)
	})
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	b := open(t, c)
	early.Store(true)
	raw := randomBytes(8 << 20)
	for range 20 {
		uses := 0
		r := readerFunc(func(p []byte) (int, error) { uses++; return copy(p, raw), nil })
		_, err := b.Put(t.Context(), "key", r, int64(len(raw)), PutOptions{})
		if err == nil {
			t.Fatal("it is taken")
		}
		uses++
	}
}

func TestMetadata(t *testing.T) {
	b := fresh(t)
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.StringMatching(`[A-Za-z][A-Za-z0-9._-]{0,20}`)
		value := rapid.StringMatching(`([!-~]( [!-~]|[!-~])*)?`)
		meta := map[string]string{}
		for k, v := range rapid.MapOfN(name, value, 0, 4).Draw(r, "meta") {
			meta[http.CanonicalHeaderKey(k)] = v
		}
		if n++; n > 30 {
			return
		}
		if _, err := b.Put(t.Context(), "alone", strings.NewReader("x"), 1, PutOptions{Meta: meta}); err != nil {
			r.Fatal(err)
		}
		if _, err := b.PutBatch(t.Context(), []BatchItem{item("batched", "x", meta)}); err != nil {
			r.Fatal(err)
		}
		if err := b.Verify(t.Context(), []Expected{{Key: "alone", Size: 1, ETag: "9dd4e461268c8034f5c8564e155c67a6", Meta: meta}}); err != nil {
			r.Fatal(err)
		}
		o, err := b.Stat(t.Context(), "batched")
		if err != nil {
			r.Fatal(err)
		}
		if err := (Expected{Size: 1, ETag: o.ETag, Meta: meta}).compare(o); err != nil {
			r.Fatal(err)
		}
	})
	for name, value := range map[string]string{"": "x", "a b": "x", "ä": "x", "1": "x", "A": " x", "B": "x  y", "C": "ä", "D": "x\n"} {
		_, err := b.Put(t.Context(), "bad", strings.NewReader("x"), 1, PutOptions{Meta: map[string]string{name: value}})
		wants(t, err, ErrMeta)
		_, err = b.PutBatch(t.Context(), []BatchItem{item("bad", "x", map[string]string{name: value})})
		wants(t, err, ErrMeta)
	}
}

// TestModificationTimes looks at LastModified, which old times must not set in a
// bucket with versions: the new one would be hidden behind the old.
func TestModificationTimes(t *testing.T) {
	m := server(t, false)
	old := time.Date(2001, 2, 3, 4, 5, 6, 7_000_001, time.UTC)
	for _, versions := range []bool{false, true} {
		b := open(t, makeBucket(t, m, minio.MakeBucketOptions{ObjectLocking: versions}))
		put(t, b, "a", "old", PutOptions{})
		put(t, b, "b", "old", PutOptions{})
		put(t, b, "a", "new", PutOptions{MTime: old})
		again := item("b", "new", nil)
		again.MTime = old
		_, err := b.PutBatch(t.Context(), []BatchItem{again})
		must(t, err)
		u, err := b.StartParts(t.Context(), "c", PartsOptions{PartSize: MinPart, MTime: old})
		must(t, err)
		p, err := b.PutPart(t.Context(), u, 1, strings.NewReader("new"), 3, nil)
		must(t, err)
		_, err = b.FinishParts(t.Context(), u, []Part{p}, FinishOptions{})
		must(t, err)
		for _, o := range list(t, b, ListOptions{}) {
			if want := old.Add(999_999); o.LastModified.Equal(want) == versions {
				t.Errorf("versions %v: %s has the time %v", versions, o.Key, o.LastModified)
			}
			if content(t, b, o.Key) != "new" {
				t.Errorf("versions %v: %s hides what was written", versions, o.Key)
			}
		}
	}
}

func TestUnusableKeys(t *testing.T) {
	b := fresh(t)
	for _, key := range []string{"", " ", "\u00a0", "a\x00b", "a\xffb", strings.Repeat("x", 1025)} {
		_, err := b.Put(t.Context(), key, strings.NewReader(""), 0, PutOptions{})
		wants(t, err, ErrKey)
		_, err = b.Stat(t.Context(), key)
		wants(t, err, ErrKey)
		wants(t, b.Delete(t.Context(), []string{key}), ErrKey)
	}
}

// TestAnObjectHidesWhatIsBelowIt documents what this server does, and that a
// batch notices it.
func TestAnObjectHidesWhatIsBelowIt(t *testing.T) {
	b := fresh(t)
	put(t, b, "a", "text", PutOptions{})
	put(t, b, "a/b", "text", PutOptions{})
	if got := keysOf(list(t, b, ListOptions{})); !slices.Equal(got, []string{"a"}) {
		t.Errorf("listed: %q: the mirror need not avoid it any more", got)
	}
	_, err := b.PutBatch(t.Context(), []BatchItem{item("a/c", "text", nil), item("d", "text", nil)})
	wants(t, err, ErrHidden)
	if got := failedKeys(t, err); !slices.Equal(got, []string{"a/c"}) {
		t.Errorf("failed: %q", got)
	}
	must(t, b.Delete(t.Context(), []string{"a"}))
	if got := keysOf(list(t, b, ListOptions{})); !slices.Equal(got, []string{"a/b", "a/c", "d"}) {
		t.Errorf("listed: %q", got)
	}
}

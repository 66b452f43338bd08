package store

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// TestNothingIsHidden writes where MinIO would list nothing, or list no more what
// it lists now: it is an error, and nothing changes.
func TestNothingIsHidden(t *testing.T) {
	for _, versions := range []bool{false, true} {
		c, p := fresh(t, minio.MakeBucketOptions{ObjectLocking: versions}, Options{})
		put(t, p, file("f", "file"))
		put(t, p, file("d/x", "in a directory"))
		want := map[string]string{"f": "file", "d/x": "in a directory"}
		_, err := p.Put(t.Context(), file("f/below", "text"))
		wants(t, err, bucket.ErrHidden)
		_, err = p.Put(t.Context(), file("d", "text"))
		wants(t, err, place.ErrChanged)
		_, err = p.MakeDir(t.Context(), entry.Entry{Path: "f", Kind: entry.Dir})
		wants(t, err, place.ErrChanged)
		_, err = p.MakeDir(t.Context(), entry.Entry{Path: "f/e", Kind: entry.Dir})
		wants(t, err, bucket.ErrHidden)
		ws := []place.Write{file("f/g/h", "text"), file("d", "text")}
		for i := range 20 {
			ws = append(ws, file(fmt.Sprint("e/", i), "text"))
			want[fmt.Sprint("e/", i)] = "text"
		}
		out := p.PutBatch(t.Context(), ws)
		wants(t, out[0].Err, bucket.ErrHidden)
		wants(t, out[1].Err, place.ErrChanged)
		holds(t, p, want)
		must(t, p.Remove(t.Context(), []entry.Entry{{Path: "nothing"}})[0])
		// What was not listed is not there either.
		must(t, admin(t, c).RemoveObject(t.Context(), c.Bucket, "f", minio.RemoveObjectOptions{}))
		delete(want, "f")
		holds(t, p, want)
		// A file that becomes a directory: where it left versions they hide what is in it.
		_, err = p.Put(t.Context(), file("f/now", "text"))
		if versions {
			wants(t, err, bucket.ErrHidden)
		} else {
			must(t, err)
			want["f/now"] = "text"
		}
		holds(t, p, want)
	}
}

// TestNothingIsLostThatWasNotSent: a file without bytes that somebody else wrote the same is
// not taken for this one's while no request was made.
func TestNothingIsLostThatWasNotSent(t *testing.T) {
	c, _ := fresh(t, minio.MakeBucketOptions{}, Options{})
	put(t, opened(t, c, Options{}), file("empty", ""))
	c.Limits.Attempts = 1
	p := opened(t, proxy(t, c, nil, func(a *http.Response) error {
		if a.Request.Method == http.MethodPost {
			a.StatusCode = http.StatusInternalServerError
		}
		return nil
	}), Options{})
	if e, err := p.Put(t.Context(), file("empty", "")); err == nil {
		t.Errorf("what was there is overwritten: %+v", e)
	}
}

// TestLostAnswers loses the answer to a write that was done: it is found to be
// ours, and another's is not.
func TestLostAnswers(t *testing.T) {
	for name, size := range map[string]int{"small": 1000, "large": 2 << 20} {
		c := newBucket(t, server(t), minio.MakeBucketOptions{})
		// What is done before the next answer is lost.
		var lose atomic.Pointer[func()]
		p := opened(t, proxy(t, c, nil, func(a *http.Response) error {
			if a.Request.Method != http.MethodPut {
				return nil
			}
			if theirs := lose.Swap(nil); theirs != nil {
				(*theirs)()
				return errors.New("lost")
			}
			return nil
		}), Options{})
		for i, have := range []bool{false, true, false, true} {
			key := fmt.Sprint(i)
			w := file(key, pattern(size))
			if have {
				w.Have = put(t, p, file(key, "old"))
			}
			meddled := i >= 2
			theirs := func() {
				if meddled {
					behind(t, c, key, pattern(size-1)+"!", minio.PutObjectOptions{UserMetadata: w.Entry.Meta()})
				}
			}
			lose.Store(&theirs)
			e, err := p.Put(t.Context(), w)
			switch {
			case meddled:
				wants(t, err, place.ErrChanged)
			case err != nil:
				t.Errorf("%s, over something %v: %v", name, have, err)
			case e.Sum.CRC32C != crcOf(pattern(size)):
				t.Errorf("%s: it is taken for %+v", name, e)
			}
			if lose.Load() != nil {
				t.Fatal("nothing was lost")
			}
		}
	}
}

// TestContentThatChanged does not match what is known of it, and is not stored.
func TestContentThatChanged(t *testing.T) {
	_, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	for _, size := range []int{0, 1000, 300_000, 2 << 20} {
		w := file("a", pattern(size))
		w.Entry.Sum = entry.Sum{Has: entry.HasCRC32C, CRC32C: 1 + crcOf(pattern(size))}
		_, err := p.Put(t.Context(), w)
		wants(t, err, place.ErrCorrupt)
	}
	w := file("a", pattern(6<<20))
	token, err := p.StartParts(t.Context(), w, bucket.MinPart)
	must(t, err)
	var parts [][]byte
	for i, piece := range []string{pattern(6 << 20)[:5<<20], noise(1 << 20)} {
		part, err := p.PutPart(t.Context(), token, i+1, strings.NewReader(piece), int64(len(piece)))
		must(t, err)
		parts = append(parts, part)
	}
	w.Entry.Sum = entry.Sum{Has: entry.HasCRC32C, CRC32C: crcOf(pattern(6 << 20))}
	_, err = p.FinishParts(t.Context(), w, token, parts)
	wants(t, err, place.ErrCorrupt)
	must(t, p.AbortParts(t.Context(), token))
	holds(t, p, nil)
}

// TestDamagedContent flips a bit on the way: whatever checksum is known shows it
// before the last byte.
func TestDamagedContent(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	var ws []place.Write
	for i := range 20 {
		ws = append(ws, file(fmt.Sprint("batch/", i), "text in a batch"))
	}
	ws[1].Entry.Sum = entry.Sum{Has: entry.HasCRC32C, CRC32C: crcOf("text in a batch")}
	for _, o := range p.PutBatch(t.Context(), ws) {
		must(t, o.Err)
	}
	put(t, p, file("alone", pattern(300_000)))
	all, _ := listed(t, p)
	var damage atomic.Bool
	bad := opened(t, proxy(t, c, nil, func(a *http.Response) error {
		if damage.Load() && a.Request.Method == http.MethodGet {
			a.Body = &flipped{ReadCloser: a.Body}
		}
		return nil
	}), Options{})
	damage.Store(true)
	for _, key := range []string{"batch/0", "batch/1", "alone"} {
		r, err := bad.Open(t.Context(), all[key], 0, -1)
		must(t, err)
		raw, err := io.ReadAll(r)
		wants(t, err, place.ErrCorrupt)
		must(t, r.Close())
		if int64(len(raw)) != all[key].Size-1 {
			t.Errorf("%s: %d bytes were given of %d", key, len(raw), all[key].Size)
		}
		// Nor is it written back.
		want := all[key]
		want.Mode = 0
		if _, err := bad.SetAttrs(t.Context(), want, all[key]); key != "alone" {
			wants(t, err, place.ErrCorrupt)
		}
	}
	damage.Store(false)
	if got := read(t, p, all["batch/0"]); got != "text in a batch" {
		t.Errorf("it is %q now", got)
	}
}

// flipped is a body whose first bit is another one.
type flipped struct {
	io.ReadCloser
	done bool
}

func (f *flipped) Read(into []byte) (int, error) {
	n, err := f.ReadCloser.Read(into)
	if n > 0 && !f.done {
		into[0] ^= 1
		f.done = true
	}
	return n, err
}

// TestSetAttrsKeeps keeps what others know of an object, and its hashes.
func TestSetAttrsKeeps(t *testing.T) {
	for _, versions := range []bool{false, true} {
		c, p := fresh(t, minio.MakeBucketOptions{ObjectLocking: versions}, Options{})
		theirs := minio.PutObjectOptions{ContentType: "text/html", CacheControl: "no-store", UserMetadata: map[string]string{"colour": "blue"}}
		behind(t, c, "small", "text", theirs)
		behind(t, c, "large", pattern(300_000), theirs)
		parts := inTwo(t, p, "parts")
		all, _ := listed(t, p)
		for key, have := range all {
			want := have
			want.Mode, want.UID, want.MTime = 0o123, 99, mtime
			got, err := p.SetAttrs(t.Context(), want, have)
			must(t, err)
			now, ok, err := p.Look(t.Context(), have)
			must(t, err)
			if !ok || now.Mode != 0o123 || now.UID != 99 || now.MTime != mtime || now.Sum.ETag != got.Sum.ETag || now.Sum.CRC32C != got.Sum.CRC32C || got.Sum.BLAKE3 != have.Sum.BLAKE3 {
				t.Errorf("versions %v: %s: got %+v, then looked at %+v", versions, key, got, now)
			}
			if key == "parts" {
				if now.Sum.CRC32C != parts.Sum.CRC32C || now.Sum.Contains(entry.HasPartSize) != strings.Contains(now.Sum.ETag, "-") {
					t.Errorf("versions %v: in parts it was %+v, and is %+v", versions, parts.Sum, now.Sum)
				}
				continue
			}
			o, err := p.b.Stat(t.Context(), key)
			must(t, err)
			if o.Meta["Colour"] != "blue" || o.Headers["Content-Type"] != "text/html" || o.Headers["Cache-Control"] != "no-store" {
				t.Errorf("versions %v: %s lost %v, %v", versions, key, o.Meta, o.Headers)
			}
		}
		holds(t, p, map[string]string{"small": "text", "large": pattern(300_000), "parts": pattern(6 << 20)})
	}
}

// inTwo writes an object of 6 MiB in two parts.
func inTwo(t *testing.T, p *Place, key string) entry.Entry {
	t.Helper()
	content := pattern(6 << 20)
	w := file(key, content)
	w.Entry.Sum.BLAKE3[0], w.Entry.Sum.Has = 7, entry.HasBLAKE3
	token, err := p.StartParts(t.Context(), w, bucket.MinPart)
	must(t, err)
	var parts [][]byte
	for i, piece := range []string{content[:5<<20], content[5<<20:]} {
		part, err := p.PutPart(t.Context(), token, i+1, strings.NewReader(piece), int64(len(piece)))
		must(t, err)
		parts = append(parts, part)
	}
	e, err := p.FinishParts(t.Context(), w, token, parts)
	must(t, err)
	return e
}

// TestSetAttrsInParts is how objects are copied that are too large for one request.
func TestSetAttrsInParts(t *testing.T) {
	_, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	p.copyAbove = 1 << 20
	have := inTwo(t, p, "parts")
	want := have
	want.Mode = 0o123
	got, err := p.SetAttrs(t.Context(), want, have)
	must(t, err)
	if got.Sum != have.Sum || got.Mode != 0o123 {
		t.Errorf("it was %+v, and is %+v", have, got)
	}
	large := put(t, p, file("large", pattern(2<<20)))
	want = large
	want.Mode = 0o123
	got, err = p.SetAttrs(t.Context(), want, large)
	must(t, err)
	now, _, err := p.Look(t.Context(), got)
	must(t, err)
	// The server has no checksum of it any more. Its metadata has, which is no word of
	// the server's.
	if now.Sum.ETag != got.Sum.ETag || now.Sum.Contains(entry.HasCRC32C) || got.Sum.CRC32C != large.Sum.CRC32C {
		t.Errorf("got %+v, looked at %+v", got, now)
	}
	holds(t, p, map[string]string{"parts": pattern(6 << 20), "large": pattern(2 << 20)})
}

// TestSetAttrsInARace replaces the object when the server has looked at the
// condition already, and so gets what MinIO makes of it: another content with the
// metadata of the old one. It is mended.
func TestSetAttrsInARace(t *testing.T) {
	c := newBucket(t, server(t), minio.MakeBucketOptions{})
	p := opened(t, c, Options{})
	w := file("a", pattern(300_000))
	w.Entry.Sum.BLAKE3[0], w.Entry.Sum.Has = 7, entry.HasBLAKE3
	have := put(t, p, w)
	var once atomic.Bool
	racing := opened(t, proxy(t, c, func(q *http.Request) {
		if q.Header.Get("X-Amz-Copy-Source") == "" || once.Swap(true) {
			return
		}
		other, err := p.b.Put(q.Context(), "a", strings.NewReader(pattern(299_999)+"!"), 300_000, bucket.PutOptions{})
		if err == nil {
			_, err = p.b.SetMeta(q.Context(), "a", bucket.SetMetaOptions{Meta: metaOf(q.Header), IfMatch: other.ETag})
		}
		if err != nil {
			t.Error(err)
		}
	}, nil), Options{})
	want := have
	want.Mode = 0o600
	_, err := racing.SetAttrs(t.Context(), want, have)
	wants(t, err, place.ErrChanged)
	now, _, err := p.Look(t.Context(), have)
	must(t, err)
	if now.Sum.Contains(entry.HasBLAKE3) || now.Sum.CRC32C != crcOf(pattern(299_999)+"!") {
		t.Errorf("it is said to be %+v", now)
	}
	holds(t, p, map[string]string{"a": pattern(299_999) + "!"})
}

// metaOf is the user metadata that a request carries.
func metaOf(h http.Header) map[string]string {
	meta := map[string]string{}
	for name := range h {
		if bare, ok := strings.CutPrefix(name, "X-Amz-Meta-"); ok {
			meta[bare] = h.Get(name)
		}
	}
	return meta
}

// TestTheSameTwiceInParts leaves no upload where the same was finished before, and asks for
// nothing more where it was not.
func TestTheSameTwiceInParts(t *testing.T) {
	c, _ := fresh(t, minio.MakeBucketOptions{}, Options{})
	var aborts atomic.Int64
	p := opened(t, proxy(t, c, func(q *http.Request) {
		if q.Method == http.MethodDelete && !strings.Contains(q.URL.Path, ".firedrill-probe") {
			aborts.Add(1)
		}
	}, nil), Options{})
	w := file("a", pattern(1000))
	var tokens, parts [2][]byte
	for i := range tokens {
		var err error
		tokens[i], err = p.StartParts(t.Context(), w, bucket.MinPart)
		must(t, err)
		parts[i], err = p.PutPart(t.Context(), tokens[i], 1, strings.NewReader(pattern(1000)), 1000)
		must(t, err)
	}
	for i, want := range []int64{0, 1} {
		_, err := p.FinishParts(t.Context(), w, tokens[i], parts[i:i+1])
		must(t, err)
		if n := aborts.Load(); n != want {
			t.Errorf("finished %d times: %d uploads given up, want %d", i+1, n, want)
		}
	}
	for u := range admin(t, c).ListIncompleteUploads(t.Context(), c.Bucket, "a", true) {
		t.Errorf("left: %+v", u)
	}
}

// TestPartsTravel finishes in one place what was started in another, twice, and
// not where somebody gave the same content other attributes.
func TestPartsTravel(t *testing.T) {
	c, here := fresh(t, minio.MakeBucketOptions{}, Options{})
	there := opened(t, c, Options{})
	w := file("a", pattern(6<<20))
	token, err := here.StartParts(t.Context(), w, bucket.MinPart)
	must(t, err)
	one, err := there.PutPart(t.Context(), token, 1, strings.NewReader(pattern(5<<20)), 5<<20)
	must(t, err)
	two, err := here.PutPart(t.Context(), token, 2, strings.NewReader(pattern(6 << 20)[5<<20:]), 1<<20)
	must(t, err)
	for _, bad := range [][][]byte{nil, {one}, {two, one}, {one, []byte("{")}} {
		if _, err := there.FinishParts(t.Context(), w, token, bad); err == nil {
			t.Errorf("%q is all of it", bad)
		}
	}
	e, err := there.FinishParts(t.Context(), w, token, [][]byte{one, two})
	must(t, err)
	again, err := here.FinishParts(t.Context(), w, token, [][]byte{one, two})
	must(t, err)
	if !equal(e, again) || e.Sum.PartSize != bucket.MinPart || e.Sum.CRC32C != crcOf(pattern(6<<20)) {
		t.Errorf("it became %+v, then %+v", e, again)
	}
	want := e
	want.Mode = 0
	_, err = here.SetAttrs(t.Context(), want, e)
	must(t, err)
	_, err = here.FinishParts(t.Context(), w, token, [][]byte{one, two})
	wants(t, err, place.ErrChanged)
	must(t, here.AbortParts(t.Context(), token))
	for _, bad := range []string{"", "{}", "null", `{"key":"b","id":"x","partSize":1}`} {
		if _, err := here.FinishParts(t.Context(), w, []byte(bad), [][]byte{one, two}); err == nil {
			t.Errorf("%q is a token", bad)
		}
	}
	for _, size := range []int64{0, -1, bucket.MinPart - 1} {
		if _, err := here.StartParts(t.Context(), w, size); err == nil {
			t.Errorf("parts of %d bytes", size)
		}
	}
	w.Entry.Size = bucket.MinPart*bucket.MaxParts + 1
	if _, err := here.StartParts(t.Context(), w, bucket.MinPart); err == nil {
		t.Error("too many parts")
	}
}

// TestBatchOfAllSorts has what a batch cannot hold, and what two of it say of one
// key.
func TestBatchOfAllSorts(t *testing.T) {
	_, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	want := map[string]string{}
	var ws []place.Write
	add := func(path, content string) {
		ws = append(ws, file(path, content))
		want[file(path, content).Entry.Key()] = content
	}
	for i := range 1200 {
		add(fmt.Sprintf("many/%d", i), fmt.Sprint(i))
	}
	for i := range 80 {
		add(fmt.Sprintf("heavy/%d", i), pattern(128<<10-i))
	}
	add("large", pattern(128<<10+1))
	add("new\nline/%41/\xff", "name")
	ws = append(ws, file("many/7", "7"))
	ws = append(ws, place.Write{Entry: entry.Entry{Path: "link", Kind: entry.Symlink, Target: "many/7", MTime: -1}})
	ws = append(ws, place.Write{Entry: entry.Entry{Path: "dir", Kind: entry.Dir}})
	out := p.PutBatch(t.Context(), ws)
	n := len(ws)
	for i, o := range out[:n-3] {
		if o.Err != nil || o.Entry.Path != ws[i].Entry.Path || o.Entry.Sum.ETag == "" {
			t.Fatalf("%q: %+v", ws[i].Entry.Path, o)
		}
	}
	wants(t, out[n-3].Err, place.ErrChanged)
	must(t, out[n-2].Err)
	if out[n-1].Err == nil {
		t.Error("a directory is put")
	}
	link, _, err := p.Look(t.Context(), ws[n-2].Entry)
	if err != nil || link.Target != "many/7" || link.MTime != -1 {
		t.Errorf("the link is %+v, %v", link, err)
	}
	must(t, p.Remove(t.Context(), []entry.Entry{link})[0])
	holds(t, p, want)
}

// TestExclusive overwrites in batches without a look.
func TestExclusive(t *testing.T) {
	_, p := fresh(t, minio.MakeBucketOptions{}, Options{Exclusive: true})
	var ws []place.Write
	want := map[string]string{}
	for i := range 20 {
		put(t, p, file(fmt.Sprint(i), "old"))
		ws = append(ws, file(fmt.Sprint(i), "new"))
		want[fmt.Sprint(i)] = "new"
	}
	for _, o := range p.PutBatch(t.Context(), ws) {
		must(t, o.Err)
	}
	holds(t, p, want)
}

// TestRemoveMuch removes a tree with all its directories in one call, in any order,
// among keys that stay and lie densely around one part and thinly around another.
func TestRemoveMuch(t *testing.T) {
	for _, versions := range []bool{false, true} {
		c, p := fresh(t, minio.MakeBucketOptions{ObjectLocking: versions}, Options{})
		var ws []place.Write
		for i := range 4000 {
			ws = append(ws, file(fmt.Sprintf("keep/%05d", i), "text"))
		}
		for i := range 1100 {
			ws = append(ws, file(fmt.Sprintf("go/%d/%d/f", i%3, i), "text"))
		}
		have := make([]entry.Entry, 0, len(ws))
		for _, o := range p.PutBatch(t.Context(), ws) {
			must(t, o.Err)
			have = append(have, o.Entry)
		}
		var gone []entry.Entry
		for _, path := range []string{"go", "go/0", "go/1", "go/2", "go/0/0", "go/1/1"} {
			d, err := p.MakeDir(t.Context(), entry.Entry{Path: path, Kind: entry.Dir})
			must(t, err)
			gone = append(gone, d)
		}
		gone = append(gone, have[4000:]...)
		gone = append(gone, have[10], have[3990])
		behind(t, c, "keep/03990", "theirs", minio.PutObjectOptions{})
		for i, err := range p.Remove(t.Context(), gone) {
			if i == len(gone)-1 {
				wants(t, err, place.ErrChanged)
			} else if err != nil {
				t.Fatalf("%q: %v", gone[i].Key(), err)
			}
		}
		all, errs := listed(t, p)
		if len(errs) > 0 || len(all) != 3999 || slices.ContainsFunc(slices.Collect(maps.Keys(all)), func(key string) bool { return strings.HasPrefix(key, "go") }) {
			t.Errorf("versions %v: %d left, %v", versions, len(all), errs)
		}
	}
}

// TestWhatIsOverwrittenAndHiddenIsNotDeleted: somebody has made an object of a
// directory's name meanwhile. What lay below is written, cannot be seen, and stays.
func TestWhatIsOverwrittenAndHiddenIsNotDeleted(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{Exclusive: true})
	var ws []place.Write
	for i := range 12 {
		w := file(fmt.Sprint("a/", i), "old")
		w.Have = put(t, p, w)
		w.Entry.Size, w.Open = 3, file("", "new").Open
		ws = append(ws, w)
	}
	_, err := admin(t, c).PutObject(t.Context(), c.Bucket, "a", strings.NewReader("x"), 1, minio.PutObjectOptions{})
	must(t, err)
	for _, o := range p.PutBatch(t.Context(), ws) {
		if o.Err == nil {
			t.Error("it is not seen, and no error")
		}
	}
	must(t, admin(t, c).RemoveObject(t.Context(), c.Bucket, "a", minio.RemoveObjectOptions{}))
	all, _ := listed(t, p)
	if len(all) != 12 {
		t.Errorf("%d of 12 are left", len(all))
	}
}

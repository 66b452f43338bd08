package store

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
)

// TestExact reads in all sorts of steps what has too few, too many or just as many
// bytes as it should, or fails: only the right number arrives whole.
func TestExact(t *testing.T) {
	broken := errors.New("broken")
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(0, 40).Draw(t, "size")
		has := rapid.IntRange(0, 60).Draw(t, "has")
		fails := rapid.Bool().Draw(t, "fails")
		content := pattern(has)
		var r io.Reader = strings.NewReader(content)
		if fails {
			r = io.MultiReader(r, iotest.ErrReader(broken))
		}
		for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
			if rapid.Bool().Draw(t, "wrap") {
				r = wrap(r)
			}
		}
		x := &exact{r: io.NopCloser(r), left: int64(size)}
		var got []byte
		into := make([]byte, rapid.IntRange(1, 50).Draw(t, "step"))
		var err error
		for err == nil {
			var n int
			n, err = x.Read(into)
			got = append(got, into[:n]...)
		}
		_, again := x.Read(into)
		good := has == size && !fails
		switch {
		case again != err:
			t.Fatalf("%v, then %v", err, again)
		case good && (err != io.EOF || string(got) != content):
			t.Fatalf("%d bytes, %v", len(got), err)
		case !good && (err == io.EOF || len(got) >= size && size > 0):
			t.Fatalf("%d of %d bytes are given as %d: %v", has, size, len(got), err)
		case fails && has <= size && !errors.Is(err, broken):
			t.Fatalf("got %v", err)
		case !strings.HasPrefix(content, string(got)):
			t.Fatalf("other bytes")
		}
	})
}

// TestFilter compares with a filter that asks for each directory of each path.
func TestFilter(t *testing.T) {
	name := rapid.StringMatching(`[ab!0]{1,2}`)
	rapid.Check(t, func(t *rapid.T) {
		var all []entry.Entry
		for _, parts := range rapid.SliceOf(rapid.SliceOfN(name, 1, 4)).Draw(t, "paths") {
			kind := rapid.SampledFrom([]entry.Kind{entry.File, entry.Dir}).Draw(t, "kind")
			all = append(all, entry.Entry{Path: strings.Join(parts, "/"), Kind: kind})
		}
		slices.SortFunc(all, func(a, b entry.Entry) int { return entry.Compare(a.Key(), b.Key()) })
		rejected := rapid.SliceOfN(name, 0, 3).Draw(t, "rejected")
		var asked []string
		keep := func(path string, kind entry.Kind) bool {
			asked = append(asked, path)
			return !slices.Contains(rejected, path[strings.LastIndexByte(path, '/')+1:])
		}
		f := filter{keep: keep}
		for _, e := range all {
			asked = nil
			got := f.takes(e)
			want := !slices.ContainsFunc(strings.Split(e.Path, "/"), func(name string) bool { return slices.Contains(rejected, name) })
			if got != want {
				t.Fatalf("%q: %v", e.Key(), got)
			}
			for _, path := range asked {
				if dir, _, more := cutLast(path); more && slices.ContainsFunc(strings.Split(dir, "/"), func(name string) bool { return slices.Contains(rejected, name) }) {
					t.Fatalf("%q lies in what is rejected, and was asked for", path)
				}
			}
		}
	})
}

func cutLast(path string) (dir, name string, more bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// TestPartSize forgets a part size from which an ETag cannot come.
func TestPartSize(t *testing.T) {
	for _, c := range []struct {
		size, part int64
		etag       string
		kept       bool
	}{
		{100, 10, "x-10", true}, {101, 10, "x-11", true}, {0, 10, "x-1", true}, {10, 10, "x-1", true},
		{100, 10, "x", false}, {100, 10, "", false}, {100, 10, "x-9", false}, {100, 0, "x-1", false}, {100, -1, "x-1", false}, {100, 10, "x-", false},
	} {
		e := entry.Entry{Size: c.size, Sum: entry.Sum{PartSize: c.part, Has: entry.HasPartSize}}
		if setETag(&e, c.etag); e.Sum.Contains(entry.HasPartSize) != c.kept || e.Sum.Contains(entry.HasETag) != (c.etag != "") {
			t.Errorf("%+v became %+v", c, e.Sum)
		}
	}
}

// TestJustBefore is before the key, and a key may be before it only if it is
// before the key too.
func TestVisible(t *testing.T) {
	var v visible
	v.saw("a/b/c")
	v.saw("d/")
	for key, want := range map[string]bool{"x": true, "x/": true, "a/x": true, "a/b/x": true, "a/b/x/": true, "a/b/c/x": false, "d/x": false, "e/": true, "e/f/": false} {
		if v.has(key) != want {
			t.Errorf("%q: %v", key, !want)
		}
	}
	v.forget("a/b/c")
	if !v.has("a/b/x") {
		t.Error("a file forgets what lies beside it")
	}
	v.forget("a")
	if v.has("a/b/x") {
		t.Error("it sees through a file")
	}
}

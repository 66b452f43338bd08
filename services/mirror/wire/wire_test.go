package wire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/wire"
)

// texts generates what names may be: any bytes, often with a common beginning.
func texts() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"", "a", "a/b", "a/b/", "a/b\n", "a/\xff", "a/b/c", "é", "%0A", "/", "0123456789abcdef0123456789abcdef",
			"0123456789abcdef0123456789abcdef-12", "0123456789ABCDEF0123456789ABCDEF", "0123456789abcdef0123456789abcdeg"}),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 40), func(b []byte) string { return string(b) }),
	)
}

func numbers() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64(), rapid.Int64Range(-3, 3), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64}))
}

func entries() *rapid.Generator[entry.Entry] {
	return rapid.Custom(func(t *rapid.T) (e entry.Entry) {
		if rapid.Bool().Draw(t, "absent") {
			return e
		}
		number := func(name string) int64 { return numbers().Draw(t, name) }
		e.Path = texts().Draw(t, "path")
		e.Kind = entry.Kind(rapid.Byte().Draw(t, "kind"))
		e.Size, e.MTime, e.Device = number("size"), number("mtime"), uint64(number("device"))
		e.Mode, e.UID, e.GID = uint32(number("mode")), uint32(number("uid")), uint32(number("gid"))
		e.Target = texts().Draw(t, "target")
		e.Xattrs = rapid.MapOfN(texts(), rapid.SliceOfN(rapid.Byte(), 0, 5), 0, 3).Draw(t, "xattrs")
		e.Change = entry.Change{Inode: uint64(number("inode")), CTime: number("ctime")}
		binary.NativeEndian.PutUint64(e.Change.FS[:], uint64(number("fs")))
		e.Sum = entry.Sum{Has: entry.Has(rapid.Byte().Draw(t, "has")), CRC32C: uint32(number("crc")), ETag: texts().Draw(t, "etag"), PartSize: number("part")}
		binary.NativeEndian.PutUint64(e.Sum.BLAKE3[:], uint64(number("blake3")))
		return e
	})
}

// similar generates two entries that have a random part in common.
func similar(t *rapid.T) (a, b entry.Entry) {
	a, b = entries().Draw(t, "a"), entries().Draw(t, "b")
	x, y := reflect.ValueOf(a), reflect.ValueOf(&b).Elem()
	for i := range x.NumField() {
		if rapid.Bool().Draw(t, "common") {
			y.Field(i).Set(x.Field(i))
		}
	}
	return a, b
}

func pasts() *rapid.Generator[plan.Past] {
	return rapid.Custom(func(t *rapid.T) plan.Past {
		p := plan.Past{Key: texts().Draw(t, "key"), Missing: [2]uint8{rapid.Byte().Draw(t, "missing"), rapid.Byte().Draw(t, "missing")}}
		p.Source, p.Dest = similar(t)
		p.Dirty = [2]bool{rapid.Bool().Draw(t, "dirty"), rapid.Bool().Draw(t, "dirty")}
		return p
	})
}

func actions() *rapid.Generator[plan.Action] {
	return rapid.Custom(func(t *rapid.T) plan.Action {
		a := plan.Action{Op: plan.Op(rapid.Byte().Draw(t, "op")), Key: texts().Draw(t, "key"), To: plan.Side(rapid.Byte().Draw(t, "to"))}
		a.Past = pasts().Draw(t, "past")
		a.Source, a.Dest = similar(t)
		switch rapid.IntRange(0, 2).Draw(t, "past kind") {
		case 0:
			a.Past = plan.Past{}
		case 1:
			a.Past.Key, a.Past.Source = a.Key, a.Source
		}
		a.Doubt = [2]bool{rapid.Bool().Draw(t, "doubt"), rapid.Bool().Draw(t, "doubt")}
		a.Reason = plan.Reason(texts().Draw(t, "reason"))
		a.Twin = texts().Draw(t, "twin")
		if rapid.Bool().Draw(t, "failed") {
			a.Err = errors.New(texts().Draw(t, "error"))
		}
		return a
	})
}

func sameEntry(a, b entry.Entry) bool {
	if !maps.EqualFunc(a.Xattrs, b.Xattrs, bytes.Equal) {
		return false
	}
	a.Xattrs, b.Xattrs = nil, nil
	return reflect.DeepEqual(a, b)
}

func samePast(a, b plan.Past) bool {
	same := sameEntry(a.Source, b.Source) && sameEntry(a.Dest, b.Dest)
	a.Source, a.Dest, b.Source, b.Dest = entry.Entry{}, entry.Entry{}, entry.Entry{}, entry.Entry{}
	return same && reflect.DeepEqual(a, b)
}

func sameAction(a, b plan.Action) bool {
	same := sameEntry(a.Source, b.Source) && sameEntry(a.Dest, b.Dest) && samePast(a.Past, b.Past) &&
		(a.Err == nil) == (b.Err == nil) && (a.Err == nil || a.Err.Error() == b.Err.Error())
	for _, x := range []*plan.Action{&a, &b} {
		x.Source, x.Dest, x.Past, x.Err = entry.Entry{}, entry.Entry{}, plan.Past{}, nil
	}
	return same && reflect.DeepEqual(a, b)
}

// form is how one type of items is written, read and compared.
type form[T any] struct {
	append func([]byte, T) []byte
	read   func([]byte) (T, []byte, error)
	write  func(*wire.Encoder, []byte, T) []byte
	next   func(*wire.Decoder, []byte) (T, []byte, error)
	same   func(T, T) bool
}

var (
	entryForm  = form[entry.Entry]{wire.AppendEntry, wire.ReadEntry, (*wire.Encoder).AppendEntry, (*wire.Decoder).ReadEntry, sameEntry}
	pastForm   = form[plan.Past]{wire.AppendPast, wire.ReadPast, (*wire.Encoder).AppendPast, (*wire.Decoder).ReadPast, samePast}
	actionForm = form[plan.Action]{wire.AppendAction, wire.ReadAction, (*wire.Encoder).AppendAction, (*wire.Decoder).ReadAction, sameAction}
)

func TestSingleItemsComeBack(t *testing.T) {
	t.Run("entry", func(t *testing.T) { single(t, entryForm, entries()) })
	t.Run("past", func(t *testing.T) { single(t, pastForm, pasts()) })
	t.Run("action", func(t *testing.T) { single(t, actionForm, actions()) })
}

func single[T any](t *testing.T, f form[T], g *rapid.Generator[T]) {
	rapid.Check(t, func(t *rapid.T) {
		want := g.Draw(t, "item")
		before, behind := rapid.SliceOf(rapid.Byte()).Draw(t, "before"), rapid.SliceOf(rapid.Byte()).Draw(t, "behind")
		b := append(f.append(bytes.Clone(before), want), behind...)
		if !bytes.HasPrefix(b, before) {
			t.Fatalf("what was there before is gone")
		}
		b = b[len(before):]
		got, rest, err := f.read(b)
		if err != nil || !f.same(got, want) || !bytes.Equal(rest, behind) {
			t.Fatalf("got %+v, %q, %v\nwant %+v, %q", got, rest, err, want, behind)
		}
		clear(b)
		if !f.same(got, want) {
			t.Fatal("what was read refers to the input")
		}
	})
}

func TestWhatIsCutOffIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := wire.AppendAction(nil, actions().Draw(t, "action"))
		for n := range b {
			var e *wire.Error
			if _, _, err := wire.ReadAction(b[:n]); !errors.As(err, &e) || !errors.Is(err, wire.ErrFormat) {
				t.Fatalf("the first %d of %d bytes: %v", n, len(b), err)
			}
		}
	})
}

func TestSequencesComeBack(t *testing.T) {
	t.Run("entry", func(t *testing.T) { sequence(t, entryForm, entries()) })
	t.Run("past", func(t *testing.T) { sequence(t, pastForm, pasts()) })
	t.Run("action", func(t *testing.T) { sequence(t, actionForm, actions()) })
}

func sequence[T any](t *testing.T, f form[T], g *rapid.Generator[T]) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(g, 1, 6).Draw(t, "items")
		var w wire.Encoder
		var b []byte
		for _, item := range want {
			b = f.write(&w, b, item)
		}
		var r wire.Decoder
		for i, item := range want {
			got, rest, err := f.next(&r, b)
			if err != nil || !f.same(got, item) {
				t.Fatalf("item %d: got %+v, %v\nwant %+v", i, got, err, item)
			}
			b = rest
		}
		if len(b) > 0 {
			t.Fatalf("%d bytes are left", len(b))
		}
	})
}

func TestKindsCanBeMixed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, p, a := entries().Draw(t, "entry"), pasts().Draw(t, "past"), actions().Draw(t, "action")
		var w wire.Encoder
		b := w.AppendPast(w.AppendEntry(w.AppendAction(w.AppendPast(nil, p), a), e), p)
		var r wire.Decoder
		p1, b, err1 := r.ReadPast(b)
		a1, b, err2 := r.ReadAction(b)
		e1, b, err3 := r.ReadEntry(b)
		p2, b, err4 := r.ReadPast(b)
		if err := errors.Join(err1, err2, err3, err4); err != nil || len(b) > 0 {
			t.Fatalf("%d bytes are left: %v", len(b), err)
		}
		if !samePast(p, p1) || !sameAction(a, a1) || !sameEntry(e, e1) || !samePast(p, p2) {
			t.Fatal("they did not come back")
		}
	})
}

func TestTheKeyOfAPastIsReadAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pasts().Draw(t, "past")
		if key, _, err := wire.PastKey(wire.AppendPast(nil, p)); err != nil || string(key) != p.Key {
			t.Fatalf("got %q, %v; want %q", key, err, p.Key)
		}
	})
	var w wire.Encoder
	first := w.AppendPast(nil, plan.Past{Key: "a"})
	second := w.AppendPast(nil, plan.Past{Key: "ab"})
	for _, b := range [][]byte{nil, first[:2], second} {
		if key, _, err := wire.PastKey(b); !errors.Is(err, wire.ErrFormat) {
			t.Errorf("%x: got %q, %v", b, key, err)
		}
	}
}

func TestWhatIsNotMeantIsRefused(t *testing.T) {
	past := wire.AppendPast(nil, plan.Past{Key: "a"})
	newer := bytes.Clone(past)
	newer[0]++
	var w wire.Encoder
	w.AppendPast(nil, plan.Past{Key: "a"})
	second := w.AppendPast(nil, plan.Past{Key: "ab"})
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, wire.ErrFormat},
		{"an entry", wire.AppendEntry(nil, entry.Entry{}), wire.ErrFormat},
		{"a newer form", newer, wire.ErrVersion},
		{"one of a sequence", second, wire.ErrFormat},
		{"a length of 2^62", append([]byte{past[0], 0}, binary.AppendUvarint(nil, 1<<62)...), wire.ErrFormat},
		{"a number of more than 64 bits", append([]byte{past[0]}, bytes.Repeat([]byte{0xff}, 20)...), wire.ErrFormat},
		{"unknown flags", []byte{past[0], 0, 0, 0xff}, wire.ErrFormat},
		{"unknown fields", append([]byte{past[0], 0, 0, 0}, binary.AppendUvarint(nil, 1<<40)...), wire.ErrFormat},
	} {
		_, _, err := wire.ReadPast(c.b)
		if e, ok := errors.AsType[*wire.Error](err); !ok || !errors.Is(err, c.want) || e.Item != "past" {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	var r wire.Decoder
	if _, _, err := r.ReadPast(nil); err == nil {
		t.Error("no error")
	}
	if _, _, err := r.ReadPast(past); err == nil {
		t.Error("a decoder went on after an error")
	}
}

// mirrored is what a mirror of a directory to a bucket remembers of a file.
func mirrored(i int, rng *rand.ChaCha8) plan.Past {
	name := fmt.Sprintf("projects/client-%03d/report-%02d/page-%03d.html", i/1000, i/50%20, i%50)
	at := int64(1_700_000_000_000_000_000) + int64(rng.Uint64()>>10)
	e := entry.Entry{
		Path: name, Size: int64(rng.Uint64() % 100_000), Mode: 0o644, UID: 1000, GID: 1000, MTime: at,
		Change: entry.Change{FS: entry.FSID{1, 2, 3}, Inode: uint64(1_000_000 + i), CTime: at},
		Sum:    entry.Sum{Has: entry.HasBLAKE3 | entry.HasCRC32C, CRC32C: uint32(rng.Uint64())},
	}
	_, _ = rng.Read(e.Sum.BLAKE3[:]) // it never fails
	object := e
	object.Change = entry.Change{}
	return plan.Past{Key: name, Source: e, Dest: object}
}

func TestAFileTakesAbout72Bytes(t *testing.T) {
	rng := rand.NewChaCha8([32]byte{})
	var plain, etags wire.Encoder
	var a, b []byte
	const n = 10_000
	for i := range n {
		p := mirrored(i, rng)
		a = plain.AppendPast(a, p)
		var md5 [16]byte
		_, _ = rng.Read(md5[:]) // it never fails
		p.Dest.Sum.Has |= entry.HasETag
		p.Dest.Sum.ETag = hex.EncodeToString(md5[:])
		b = etags.AppendPast(b, p)
	}
	t.Logf("%.1f bytes a file, %.1f with its ETag", float64(len(a))/n, float64(len(b))/n)
	if len(a) > 64*n || len(b) > 82*n {
		t.Errorf("%.1f bytes a file, %.1f with its ETag", float64(len(a))/n, float64(len(b))/n)
	}
}

func TestOnlyStringsAreAllocated(t *testing.T) {
	p := mirrored(1, rand.NewChaCha8([32]byte{}))
	p.Dest.Sum.ETag = "0123456789abcdef0123456789abcdef"
	b := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { wire.AppendPast(b, p) }); n > 0 {
		t.Errorf("writing allocates %v times", n)
	}
	b = wire.AppendPast(b, p)
	read := func() {
		if _, _, err := wire.ReadPast(b); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(100, read); n > 2 { // key and ETag
		t.Errorf("reading allocates %v times", n)
	}
}

func FuzzRead(f *testing.F) {
	e := mirrored(1, rand.NewChaCha8([32]byte{}))
	e.Source.Xattrs = map[string][]byte{"user.a": []byte("b"), "user.c": nil}
	f.Add(wire.AppendEntry(nil, e.Source))
	f.Add(wire.AppendPast(nil, e))
	var w wire.Encoder
	f.Add(w.AppendAction(w.AppendPast(nil, e), plan.Action{Op: plan.Put, Key: e.Key, Source: e.Source, Past: e, Reason: "r", Twin: "t", Err: errors.New("e")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, b, entryForm)
		again(t, b, pastForm)
		again(t, b, actionForm)
		if p, _, err := wire.ReadPast(b); err == nil {
			if key, _, err := wire.PastKey(b); err != nil || string(key) != p.Key {
				t.Fatalf("key %q, %v; want %q", key, err, p.Key)
			}
		}
		var r wire.Decoder
		for err := error(nil); err == nil; {
			_, after, errPast := r.ReadPast(b)
			b, err = after, errPast
		}
	})
}

// again checks that whatever can be read is written and read again as the same.
func again[T any](t *testing.T, b []byte, f form[T]) {
	item, rest, err := f.read(b)
	if err != nil {
		if _, ok := errors.AsType[*wire.Error](err); !ok {
			t.Fatalf("%T: %v", err, err)
		}
		return
	}
	if len(rest) >= len(b) {
		t.Fatal("nothing was read")
	}
	if got, rest, err := f.read(f.append(nil, item)); err != nil || len(rest) > 0 || !f.same(got, item) {
		t.Fatalf("got %+v, %d bytes left, %v\nwant %+v", got, len(rest), err, item)
	}
}

func BenchmarkPast(b *testing.B) {
	rng := rand.NewChaCha8([32]byte{})
	items := make([]plan.Past, 4096)
	var w wire.Encoder
	var raw []byte
	for i := range items {
		items[i] = mirrored(i, rng)
		raw = w.AppendPast(raw, items[i])
	}
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 2*len(raw))
		for b.Loop() {
			var w wire.Encoder
			buf = buf[:0]
			for i := range items {
				buf = w.AppendPast(buf, items[i])
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(items)), "ns/item")
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r wire.Decoder
			for rest := raw; len(rest) > 0; {
				var err error
				if _, rest, err = r.ReadPast(rest); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(items)), "ns/item")
	})
}

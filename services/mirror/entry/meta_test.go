package entry_test

import (
	"errors"
	"maps"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"pgregory.net/rapid"
)

// entries generates what a directory may hold, with an ETag nowhere: objects have
// it from their server.
func entries() *rapid.Generator[entry.Entry] {
	return rapid.Custom(func(t *rapid.T) entry.Entry {
		e := entry.Entry{
			Path:  paths().Draw(t, "path"),
			Kind:  entry.Kind(rapid.ByteMax(byte(entry.BlockDevice)).Draw(t, "kind")),
			Mode:  rapid.Uint32Max(0o7777).Draw(t, "mode"),
			UID:   rapid.Uint32().Draw(t, "uid"),
			GID:   rapid.Uint32().Draw(t, "gid"),
			MTime: rapid.Int64().Draw(t, "mtime"),
		}
		switch e.Kind {
		case entry.File:
			e.Size = rapid.Int64Min(0).Draw(t, "size")
		case entry.Symlink:
			e.Target = string(rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 300).Draw(t, "target"))
			e.Size = int64(len(e.Target))
		case entry.CharDevice, entry.BlockDevice:
			e.Device = rapid.Uint64().Draw(t, "device")
		}
		for _, name := range rapid.SliceOfDistinct(rapid.StringMatching(`user\.[a-z&=%+]{1,9}`), rapid.ID).Draw(t, "xattrs") {
			if e.Xattrs == nil {
				e.Xattrs = map[string][]byte{}
			}
			e.Xattrs[name] = append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "value")...)
		}
		if rapid.Bool().Draw(t, "hashed") {
			e.Sum.Has = entry.HasBLAKE3 | entry.HasCRC32C | entry.HasPartSize
			copy(e.Sum.BLAKE3[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "blake3"))
			e.Sum.CRC32C = rapid.Uint32().Draw(t, "crc32c")
			e.Sum.PartSize = rapid.Int64Min(1).Draw(t, "part")
		}
		return e
	})
}

func TestAnObjectKeepsWhatADirectoryKnows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := entries().Draw(t, "entry")
		if len(e.Key()) > 1024 {
			return
		}
		meta := map[string]string{}
		for name, value := range e.Meta() {
			if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Fatalf("header %s: %q is not printable ASCII", name, value)
			}
			if name != http.CanonicalHeaderKey(name) {
				t.Fatalf("%s comes back from a server as %s", name, http.CanonicalHeaderKey(name))
			}
			meta[strings.ToLower(name)] = value
		}
		got, err := entry.FromMeta(e.Key(), e.Size, meta)
		if err != nil {
			t.Fatalf("FromMeta(%q, %v): %v", e.Key(), meta, err)
		}
		if !reflect.DeepEqual(got, e) {
			t.Fatalf("%+v\ncame back as\n%+v\nfrom %v", e, got, meta)
		}
	})
}

func TestALongTargetTravelsAsTheBody(t *testing.T) {
	e := entry.Entry{Path: "l", Kind: entry.Symlink, Target: strings.Repeat("\xff", 4000), Size: 4000}
	if err := e.Check(); err != nil {
		t.Fatalf("a link with a long target cannot be held: %v", err)
	}
	if string(e.Body()) != e.Target {
		t.Error("the body is not the target")
	}
	got, err := entry.FromMeta(e.Key(), e.Size, e.Meta())
	if err != nil || got.Target != "" || got.Size != e.Size || got.Kind != entry.Symlink {
		t.Errorf("it came back as %+v, %v", got, err)
	}
}

func TestAttributesTooLargeForMetadataAreNamed(t *testing.T) {
	e := entry.Entry{Path: "a", Xattrs: map[string][]byte{"user.x": make([]byte, 700)}}
	err := e.Check()
	if m, ok := errors.AsType[*entry.MetaError](err); !ok || m.Key != "a" || !errors.Is(err, entry.ErrMeta) {
		t.Errorf("Check: %v", err)
	}
	e.Xattrs["user.x"] = make([]byte, 500)
	if err := e.Check(); err != nil {
		t.Errorf("Check: %v", err)
	}
}

func TestObjectsOfOthersAreFiles(t *testing.T) {
	for _, c := range []struct {
		key   string
		meta  map[string]string
		kind  entry.Kind
		mtime int64
	}{
		{"a", nil, entry.File, 0},
		{"a/", nil, entry.Dir, 0},
		{"a", map[string]string{"mtime": "1700000000.123456789", "other": "x"}, entry.File, 1700000000123456789},
		{"a", map[string]string{"Mtime": "1700000000"}, entry.File, 1700000000000000000},
		{"a", map[string]string{"Mtime": "1.5"}, entry.File, 1500000000},
		{"a", map[string]string{"Mtime": "-0.000000001"}, entry.File, -1},
		{"a", map[string]string{"Mtime": "2024-01-01T00:00:00Z"}, entry.File, 0},
		{"a", map[string]string{"Mtime": "99999999999999"}, entry.File, 0},
		{"a", map[string]string{"Mtime": ".5"}, entry.File, 0},
	} {
		e, err := entry.FromMeta(c.key, 0, c.meta)
		if err != nil || e.Kind != c.kind || e.MTime != c.mtime {
			t.Errorf("FromMeta(%q, %v) = %+v, %v", c.key, c.meta, e, err)
		}
	}
}

func TestMetadataThatDoesNotReadIsRefused(t *testing.T) {
	for field, own := range map[string]string{
		"kind": "kind=file", "mode": "kind=dir&mode=10000", "uid": "kind=dir&uid=-1", "gid": "kind=dir&gid=4294967296",
		"blake3": "kind=dir&blake3=00", "crc32c": "kind=dir&crc32c=x", "part": "kind=dir&part=x", "device": "kind=dir&device=x",
		entry.MetaEntry: "mode=%zz",
	} {
		_, err := entry.FromMeta("d/", 0, map[string]string{entry.MetaMTime: "0", entry.MetaEntry: own})
		if m, ok := errors.AsType[*entry.MetaError](err); !ok || m.Field != field || m.Key != "d/" {
			t.Errorf("%s: %v", own, err)
		}
	}
	for _, meta := range []map[string]string{
		{entry.MetaEntry: "mode=644"},
		{entry.MetaMTime: "0", entry.MetaEntry: "kind=dir"},
		{entry.MetaMTime: "0", entry.MetaEntry: "kind=tape"},
		{entry.MetaMTime: "0", entry.MetaEntry: "mode=644&mode=755"},
	} {
		if e, err := entry.FromMeta("f", 0, meta); !errors.Is(err, entry.ErrMeta) {
			t.Errorf("%v gives %+v, %v", meta, e, err)
		}
	}
}

func TestTimesKeepTheirNanoseconds(t *testing.T) {
	for _, ns := range []int64{0, 1, -1, 999999999, -1000000001, math.MaxInt64, math.MinInt64} {
		e := entry.Entry{Path: "a", MTime: ns}
		if got, err := entry.FromMeta("a", 0, e.Meta()); err != nil || got.MTime != ns {
			t.Errorf("%d ns came back as %d, %v", ns, got.MTime, err)
		}
	}
}

func FuzzFromMeta(f *testing.F) {
	link := entry.Entry{Path: "l", Kind: entry.Symlink, Target: "t", Size: 1, MTime: 5, Xattrs: map[string][]byte{"user.x": {0, 255}}}
	f.Add("l", int64(1), link.Meta()[entry.MetaMTime], link.Meta()[entry.MetaEntry])
	f.Add("d/", int64(0), "1.5", "kind=dir&mode=755&blake3=00")
	f.Add("a", int64(-1), "", "part=-1&device=1")
	f.Fuzz(func(t *testing.T, key string, size int64, mtime, own string) {
		e, err := entry.FromMeta(key, size, map[string]string{entry.MetaMTime: mtime, entry.MetaEntry: own})
		if err != nil {
			if !errors.Is(err, entry.ErrName) && !errors.Is(err, entry.ErrMeta) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if e.Key() != key {
			t.Fatalf("the key %q became %q", key, e.Key())
		}
		// What was read is written and read the same, unless it was others' metadata.
		again, err := entry.FromMeta(key, e.Size, e.Meta())
		if err != nil {
			t.Fatalf("%v of %+v does not read: %v", e.Meta(), e, err)
		}
		if !maps.EqualFunc(again.Xattrs, e.Xattrs, func(a, b []byte) bool { return string(a) == string(b) }) || !reflect.DeepEqual(again.Meta(), e.Meta()) {
			t.Fatalf("%+v became %+v", e, again)
		}
	})
}

package entry

import (
	"testing"

	"pgregory.net/rapid"
)

// Two sides that were only believed to be equal share no hash.
func TestShared(t *testing.T) {
	blake := func(b byte, has Has) Sum {
		return Sum{Has: HasBLAKE3 | has, BLAKE3: [32]byte{b}, CRC32C: uint32(b)}
	}
	etag := Sum{Has: HasETag, ETag: "x"}
	crc := Sum{Has: HasCRC32C, CRC32C: 1}
	both := etag
	both.Has, both.CRC32C = both.Has|HasCRC32C, 1
	for name, c := range map[string]struct {
		a, b Sum
		want Has
	}{
		"one was never read":    {Sum{}, both, 0},
		"nor was the other":     {both, Sum{}, 0},
		"nothing in common":     {etag, crc, 0},
		"an equal BLAKE3":       {blake(1, 0), blake(1, HasCRC32C), HasBLAKE3 | HasCRC32C},
		"another BLAKE3":        {blake(1, 0), blake(2, 0), 0},
		"another BLAKE3, a CRC": {Sum{Has: 3, BLAKE3: [32]byte{1}}, Sum{Has: 3, BLAKE3: [32]byte{2}}, 0},
		"an equal CRC32C":       {crc, both, HasCRC32C | HasETag},
		"an equal ETag":         {etag, both, HasCRC32C | HasETag},
		"an equal CRC32C, a BLAKE3 that nobody has computed": {crc, blake(1, HasCRC32C), HasCRC32C},
		"an equal ETag, and what was read of one":            {etag, Sum{Has: HasETag | HasBLAKE3, ETag: "x"}, HasETag | HasBLAKE3},
		"another ETag":           {etag, Sum{Has: HasETag, ETag: "y"}, 0},
		"parts of another size":  {blake(1, 0), Sum{Has: 5, BLAKE3: [32]byte{1}, ETag: "y-2"}, HasBLAKE3 | HasETag},
		"an equal ETag, not CRC": {both, Sum{Has: both.Has, ETag: "x", CRC32C: 2}, 0},
	} {
		if got := c.a.Shared(c.b); got.Has != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestMerge(t *testing.T) {
	b3, crc := Sum{Has: HasBLAKE3, BLAKE3: [32]byte{1}}, Sum{Has: HasCRC32C, CRC32C: 2}
	plain := Sum{Has: HasETag, ETag: "x"}
	parts := Sum{Has: HasETag | HasPartSize, ETag: "x", PartSize: 5}
	other := Sum{Has: HasETag | HasPartSize, ETag: "y", PartSize: 7}
	for _, c := range []struct{ a, b, want Sum }{
		{b3, crc, Sum{Has: HasBLAKE3 | HasCRC32C, BLAKE3: [32]byte{1}, CRC32C: 2}},
		{Sum{}, parts, parts},
		{plain, parts, parts},
		{plain, other, plain}, // the size belongs to the other ETag
		{parts, plain, parts},
		{parts, other, parts},
	} {
		if got := c.a.Merge(c.b); got != c.want {
			t.Errorf("%+v.Merge(%+v) = %+v", c.a, c.b, got)
		}
	}
}

func TestSameAs(t *testing.T) {
	blake := Sum{Has: HasBLAKE3, BLAKE3: [32]byte{1}}
	otherBlake := Sum{Has: HasBLAKE3 | HasCRC32C, BLAKE3: [32]byte{2}, CRC32C: 7}
	etag := func(etag string, size int64) Sum {
		s := Sum{Has: HasETag | HasCRC32C, ETag: etag, CRC32C: 7}
		if size > 0 {
			s.PartSize, s.Has = size, s.Has|HasPartSize
		}
		return s
	}
	for name, c := range map[string]struct {
		a, b        Sum
		known, same bool
	}{
		"nothing":                            {Sum{}, otherBlake, false, false},
		"nothing in common":                  {blake, etag("x", 0), false, false},
		"an equal BLAKE3":                    {blake, blake, true, true},
		"another BLAKE3":                     {blake, otherBlake, true, false},
		"an equal ETag":                      {etag("x", 0), etag("x", 0), true, true},
		"another ETag":                       {etag("x", 0), etag("y", 0), true, false},
		"parts of another size, a CRC32C":    {etag("x-1", 5), etag("y-2", 6), true, true},
		"parts of an unknown size, a CRC32C": {etag("x-1", 5), etag("x", 0), true, true},
		"parts of the same size":             {etag("x-2", 5), etag("y-2", 5), true, false},
	} {
		known, same := c.a.SameAs(c.b)
		if known != c.known || same != c.same {
			t.Errorf("%s: known %t, same %t", name, known, same)
		}
		if k, s := c.b.SameAs(c.a); k != known || s != same {
			t.Errorf("%s: the other way round it is known %t, same %t", name, k, s)
		}
	}
}

func drawSum(t *rapid.T, name string) Sum {
	s := Sum{
		Has: Has(rapid.IntRange(0, 15).Draw(t, name)), BLAKE3: [32]byte{rapid.Byte().Draw(t, "BLAKE3")}, CRC32C: rapid.Uint32Range(0, 2).Draw(t, "CRC32C"),
		ETag: rapid.SampledFrom([]string{"x", "y", "x-2", "y-2"}).Draw(t, "ETag"), PartSize: rapid.Int64Range(1, 2).Draw(t, "part size"),
	}
	return s.Without(^s.Has)
}

func TestSumsOfOneContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawSum(t, "a"), drawSum(t, "b")
		has := Has(rapid.IntRange(0, 15).Draw(t, "without"))
		if got := a.Without(has); got.Has != a.Has&^has || got.Without(^got.Has) != got {
			t.Errorf("%+v without %b is %+v", a, has, got)
		}
		if got := a.Merge(b); got.Has&a.Has != a.Has || a.Contains(HasBLAKE3) && got.BLAKE3 != a.BLAKE3 {
			t.Errorf("%+v and %+v are %+v", a, b, got)
		}
		// Not every store makes its ETags of the content, so a hash that is equal has
		// the word before them in what two sides are remembered to share.
		x, y := a, b
		if a.Has&b.Has&(HasBLAKE3|HasCRC32C) != 0 {
			x, y = a.Without(HasETag|HasPartSize), b.Without(HasETag|HasPartSize)
		}
		known, same := x.SameAs(y)
		if shared := a.Shared(b); shared.Has != 0 && !(known && same) {
			t.Errorf("%+v and %+v share %+v and are not the same", a, b, shared)
		}
		if shared := a.Shared(b); shared.Contains(HasBLAKE3) && a.Has&b.Has&HasBLAKE3 == 0 && a.ETag != b.ETag {
			t.Errorf("%+v and %+v share a BLAKE3 that one side has", a, b)
		}
	})
}

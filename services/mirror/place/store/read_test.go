package store

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// TestCheck reads a content that is, and one that is not, what an ETag says; servers may
// have other things in one that is just as long.
func TestCheck(t *testing.T) {
	const text = "content"
	sum := md5.Sum([]byte(text))
	right := hex.EncodeToString(sum[:])
	for etag, want := range map[string]error{
		right: nil, strings.ToUpper(right): nil, strings.Repeat("0", 32): place.ErrCorrupt, strings.Repeat("x", 32): nil, right + "-1": nil,
	} {
		o := bucket.Object{Key: "some key", Size: int64(len(text)), ETag: etag}
		c := (&Place{o: Options{Name: "bucket"}}).checked(io.NopCloser(strings.NewReader(text)), entry.Entry{}, o)
		if c.CRC32C() != nil {
			t.Errorf("%q: it says to sum up what it does not", etag)
		}
		raw, err := io.ReadAll(c)
		switch {
		case !errors.Is(err, want):
			t.Errorf("%q: %v, want %v", etag, err, want)
		case err == nil && string(raw) != text, err != nil && string(raw) != text[:len(text)-1]:
			t.Errorf("%q: read %q", etag, raw)
		case err != nil && (!strings.Contains(err.Error(), `"some key" in bucket`) || !strings.Contains(err.Error(), "its MD5 is "+right+" and should be "+etag)):
			t.Errorf("%q: %v", etag, err)
		}
	}
}

// TestSummed reads a content whose CRC32C is known, which sums that up on its way.
func TestSummed(t *testing.T) {
	const text = "content"
	e := entry.Entry{Sum: entry.Sum{Has: entry.HasCRC32C, CRC32C: crcOf(text)}}
	c := (&Place{}).checked(io.NopCloser(strings.NewReader(text)), e, bucket.Object{Size: int64(len(text))})
	sum := c.CRC32C()
	if sum == nil {
		t.Fatal("it says to sum up nothing")
	}
	if _, err := io.ReadFull(c, make([]byte, 3)); err != nil || sum() != crcOf(text[:3]) {
		t.Errorf("after 3 bytes it is %08x, %v", sum(), err)
	}
	if _, err := io.ReadAll(c); err != nil || sum() != crcOf(text) {
		t.Errorf("at the end it is %08x, %v; want %08x", sum(), err, crcOf(text))
	}
}

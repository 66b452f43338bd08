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
		raw, err := io.ReadAll((&Place{o: Options{Name: "bucket"}}).checked(io.NopCloser(strings.NewReader(text)), entry.Entry{}, o))
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

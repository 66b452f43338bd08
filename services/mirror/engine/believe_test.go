package engine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Two sides that were only believed to be equal share no hash.
func TestSharedSums(t *testing.T) {
	blake := func(b byte, has entry.Has) entry.Sum {
		return entry.Sum{Has: entry.HasBLAKE3 | has, BLAKE3: [32]byte{b}, CRC32C: uint32(b)}
	}
	etag := entry.Sum{Has: entry.HasETag, ETag: "x"}
	crc := entry.Sum{Has: entry.HasCRC32C, CRC32C: 1}
	both := etag
	both.Has, both.CRC32C = both.Has|entry.HasCRC32C, 1
	for name, c := range map[string]struct {
		a, b entry.Sum
		want entry.Has
	}{
		"one was never read":     {entry.Sum{}, both, 0},
		"nor was the other":      {both, entry.Sum{}, 0},
		"nothing in common":      {etag, crc, 0},
		"an equal BLAKE3":        {blake(1, 0), blake(1, entry.HasCRC32C), entry.HasBLAKE3 | entry.HasCRC32C},
		"another BLAKE3":         {blake(1, 0), blake(2, 0), 0},
		"another BLAKE3, a CRC":  {entry.Sum{Has: 3, BLAKE3: [32]byte{1}}, entry.Sum{Has: 3, BLAKE3: [32]byte{2}}, 0},
		"an equal CRC32C":        {crc, both, entry.HasCRC32C | entry.HasETag},
		"an equal ETag":          {etag, both, entry.HasCRC32C | entry.HasETag},
		"another ETag":           {etag, entry.Sum{Has: entry.HasETag, ETag: "y"}, 0},
		"parts of another size":  {blake(1, 0), entry.Sum{Has: 5, BLAKE3: [32]byte{1}, ETag: "y-2"}, entry.HasBLAKE3 | entry.HasETag},
		"an equal ETag, not CRC": {both, entry.Sum{Has: both.Has, ETag: "x", CRC32C: 2}, 0},
	} {
		if got := SharedSums(c.a, c.b); got.Has != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// What a run left standing in the way is not remembered: the next one looks, and does
// not fail over what it believes.
func TestARunThatLeftSomethingInTheWayIsFollowedByAListing(t *testing.T) {
	dir := t.TempDir()
	w := between(t, plan.Mirror, openLocal(t, dir))
	w.job.Guards.Number = 1
	w.job.Guards.Percent = 100
	w.write("a/x", "x")
	w.write("b", "x")
	enginetest.Write(t, dir, "a", "in the way")
	enginetest.Write(t, dir, "c", "too much")
	if r := w.run(); r.Whole() || len(r.Refusals) != 1 || r.Done[plan.Conflict] != 2 {
		t.Fatalf("got %+v", r)
	}
	w.job.Guards.Number = 2
	if r := w.whole(); r.Check != CheckListing || r.Believed != 0 || r.Done[plan.Delete] != 2 {
		t.Fatalf("then %+v", r)
	}
	w.same()
	if r := w.whole(); r.Check != CheckState || r.Believed != 3 || r.Listed.IsZero() || r.Listed.Equal(r.Began) {
		t.Fatalf("in the end %+v", r)
	}
	// A file that is read again here is no better known over there.
	must(t, os.Chmod(filepath.Join(w.dir, "b"), 0o644))
	read := 0
	w.from.opened = func(string) error { read++; return nil }
	if r := w.whole(); read != 1 || r.Believed != 3 || r.Done[plan.Equal] != 3 {
		t.Errorf("%d read: %+v", read, r)
	}
}

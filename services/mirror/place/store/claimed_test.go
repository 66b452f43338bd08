package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
)

// TestAnArchivesObjectsAreLeftAlone: they are neither removed nor written over, whoever
// believes that they may be, and in whatever way; what a mirror has put there under such a
// name is.
func TestAnArchivesObjectsAreLeftAlone(t *testing.T) {
	c, p := fresh(t, minio.MakeBucketOptions{}, Options{})
	const n = 30 // enough for a batch
	var keys []string
	for i := range n {
		keys = append(keys, fmt.Sprintf("zfs/points/20260102T030405Z-%016x.json", i))
		behind(t, c, keys[i], "index", minio.PutObjectOptions{})
		put(t, p, file("own/"+keys[i], "copy"))
	}
	all, errs := listed(t, p)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, prefix := range []string{"", "own/"} {
		var want error
		if prefix == "" {
			want = place.ErrClaimed
		}
		var have []entry.Entry
		var writes []place.Write
		for i := range n {
			e := all[prefix+keys[i]]
			w := file(e.Path, "other")
			w.Have = e
			have, writes = append(have, e), append(writes, w)
		}
		attrs := have[0]
		attrs.Mode = 0o600
		if _, err := p.SetAttrs(t.Context(), attrs, have[0]); !errors.Is(err, want) {
			t.Errorf("SetAttrs in %q: %v", prefix, err)
		}
		if _, err := p.Put(t.Context(), writes[1]); !errors.Is(err, want) {
			t.Errorf("Put in %q: %v", prefix, err)
		}
		for _, out := range p.PutBatch(t.Context(), writes[2:]) {
			if !errors.Is(out.Err, want) {
				t.Errorf("PutBatch in %q: %v", prefix, out.Err)
			}
		}
		now, _ := listed(t, p)
		for i := range n {
			have[i] = now[prefix+keys[i]]
		}
		gone := p.Remove(t.Context(), have[:n/2])
		gone = append(gone, p.PutAside(t.Context(), place.Bin{Of: "m", Run: "r", At: time.Unix(1_700_000_000, 0)}, have[n/2:])...)
		for i, err := range gone {
			if !errors.Is(err, want) {
				t.Errorf("Remove of %q: %v", have[i].Path, err)
			}
		}
	}
	want := map[string]string{}
	for _, key := range keys {
		want[key] = "index"
	}
	holds(t, p, want)
}

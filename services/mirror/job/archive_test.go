package job

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// archived are the keys of an archive of one point.
var archived = []string{"parts/00000000000000ff-0123456789abcdef/000000", "parts/00000000000000ff-0123456789abcdef/000001", "points/20260102T030405Z-00000000000000ff.json"}

// archive writes one below a prefix, as package zfs does.
func (w *world) archive(prefix string) {
	w.Helper()
	for _, key := range archived {
		_, err := enginetest.Client(w, w.bucket).PutObject(w.Context(), w.bucket.Bucket, prefix+key, strings.NewReader(key), int64(len(key)), minio.PutObjectOptions{})
		must(w, err)
	}
}

// objects are the bucket's contents below a prefix.
func (w *world) objects(prefix string) map[string]string {
	w.Helper()
	out, c := map[string]string{}, enginetest.Client(w, w.bucket)
	for o := range c.ListObjects(w.Context(), w.bucket.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		must(w, o.Err)
		r, err := c.GetObject(w.Context(), w.bucket.Bucket, o.Key, minio.GetObjectOptions{})
		must(w, err)
		var content bytes.Buffer
		_, err = io.Copy(&content, r)
		must(w, errors.Join(err, r.Close()))
		out[strings.TrimPrefix(o.Key, prefix)] = content.String()
	}
	return out
}

// still fails unless the archive below a prefix is what it was.
func (w *world) still(prefix string) {
	w.Helper()
	got := w.objects(prefix)
	for _, key := range archived {
		if got[key] != key {
			w.Errorf("of the archive in %s there is %q at %s", prefix, got[key], key)
		}
	}
}

func inArchive(t *testing.T, mode string, plainly bool) *world {
	w := between(t, mode, true)
	if plainly {
		c, _ := plain(t, &w.env)
		w.bucket, w.mirror.To = c, "s3:plain/"+c.Bucket
	}
	w.mirror.To += "/root"
	w.write("a", "x")
	w.write("d/b", "y")
	return w
}

// TestAnArchiveInTheDestinationStays: however the destination is looked at, and whatever is
// remembered of it.
func TestAnArchiveInTheDestinationStays(t *testing.T) {
	for name, plainly := range map[string]bool{"MinIO": false, "plain S3": true} {
		t.Run(name, func(t *testing.T) {
			w := inArchive(t, drill.MirrorMirror, plainly)
			w.archive("root/first/")
			w.whole()
			w.archive("root/d/zfs/") // behind the mirror's back
			w.archive("root/")
			for _, check := range []engine.Check{engine.CheckListing, engine.CheckListing, engine.CheckAudit, engine.CheckState, engine.CheckListing} {
				kept := map[plan.Reason]int{}
				res := w.sync(SyncOptions{Check: check, Each: func(d engine.Done) {
					if d.Action.Op == plan.Keep {
						kept[d.Action.Reason]++
					}
				}})
				want := 9
				if check == engine.CheckState {
					want = 0 // as nobody looks
				}
				if !res.Whole() || res.Done[plan.Delete] != 0 || kept[plan.KeepClaimed] != want || len(kept) > 1 {
					t.Errorf("%v: %+v, kept %v", check, res.Done, kept)
				}
			}
			for _, prefix := range []string{"root/first/", "root/d/zfs/", "root/"} {
				w.still(prefix)
			}
			for _, level := range []proof.Level{proof.L1, proof.L4} {
				if v := w.verified(plan.Dest, level); !v.Verified() || v.Verdict.Claimed != 9 || v.differs() {
					t.Errorf("%v: %v", level, v)
				}
			}
			must(t, os.RemoveAll(filepath.Join(w.from, "d")))
			if res := w.sync(SyncOptions{Check: engine.CheckListing}); !res.Whole() || res.Done[plan.Delete] != 1 {
				t.Errorf("what else lies there: %+v", res.Report)
			}
			w.still("root/d/zfs/")
		})
	}
}

// TestAnArchiveIsNotWrittenOver: neither by what has its names in the source, nor by a file
// where a directory of it is.
func TestAnArchiveIsNotWrittenOver(t *testing.T) {
	w := inArchive(t, drill.MirrorMirror, false)
	w.archive("root/zfs/")
	w.write("zfs/"+archived[0], "another")
	w.write("zfs/"+archived[2], "another, and longer")
	for range 2 {
		res := w.sync(SyncOptions{Check: engine.CheckListing})
		if res.Whole() || res.Done[plan.Conflict] != 2 || res.Conflicts[0].Reason != plan.ConflictClaimed || res.Conflicts[0].Reason.Fix() == "" {
			t.Errorf("%+v", res.Report)
		}
	}
	w.still("root/zfs/")
	must(t, os.RemoveAll(filepath.Join(w.from, "zfs")))
	w.write("zfs", "a file")
	for range 2 {
		if res := w.sync(SyncOptions{Check: engine.CheckListing}); res.Done[plan.Conflict] != 1 {
			t.Errorf("a file in its place: %+v", res.Report)
		}
	}
	w.still("root/zfs/")
}

// TestAnArchiveThatWasCopiedBackStays: the source has had it, by a copy the other way, and
// has it no more.
func TestAnArchiveThatWasCopiedBackStays(t *testing.T) {
	for name, check := range map[string]engine.Check{"listed": engine.CheckListing, "believed": engine.CheckState} {
		for _, keeps := range []bool{false, true} {
			w := inArchive(t, drill.MirrorMirror, false)
			if keeps {
				w.mirror.KeepDeleted = 1 << 40
			}
			w.whole()
			w.archive("root/zfs/")
			back := drill.Mirror{Name: "back", From: w.mirror.To, To: w.mirror.From}
			j, err := w.env.OpenRun(t.Context(), back, false)
			must(t, err)
			_, err = j.Sync(t.Context(), SyncOptions{})
			must(t, errors.Join(err, j.Close(t.Context())))
			w.sync(SyncOptions{Check: engine.CheckListing})
			must(t, os.RemoveAll(filepath.Join(w.from, "zfs")))
			res := w.sync(SyncOptions{Check: check})
			w.still("root/zfs/")
			if !slices.ContainsFunc(res.Failures, func(f engine.Failure) bool { return errors.Is(f.Err, place.ErrClaimed) }) {
				t.Errorf("%s: %+v", name, res.Report)
			}
		}
	}
}

// TestAnArchiveIsMirrored: what is a copy of one is the mirror's, and goes where the archive
// was thinned.
func TestAnArchiveIsMirrored(t *testing.T) {
	w := inArchive(t, drill.MirrorMirror, false)
	w.archive("arc/")
	w.mirror.From = "s3:lab/" + w.bucket.Bucket + "/arc"
	w.whole()
	w.still("root/")
	must(t, enginetest.Client(t, w.bucket).RemoveObject(t.Context(), w.bucket.Bucket, "arc/"+archived[2], minio.RemoveObjectOptions{}))
	for range 2 {
		if res := w.sync(SyncOptions{Check: engine.CheckListing}); !res.Whole() {
			t.Errorf("%+v", res.Report)
		}
	}
	if got := slices.Sorted(maps.Keys(w.objects("root/"))); !slices.Equal(got, archived[:2]) {
		t.Errorf("its copy holds %q", got)
	}
}

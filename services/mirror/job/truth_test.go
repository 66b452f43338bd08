package job

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

func (w *world) audit(o AuditOptions) (a Audited) {
	w.Helper()
	w.with(func(j *Job) {
		var err error
		a, err = j.Audit(w.Context(), o)
		must(w, err)
	})
	return a
}

// unrepaired audits with a content of the destination that has rotted, which must be found
// and not be repaired, for that reason.
func (w *world) unrepaired(key, why string) {
	w.Helper()
	w.with(func(j *Job) {
		r := &enginetest.Rotten{Place: j.places[plan.Dest]}
		r.Rot(key)
		j.places[plan.Dest] = r
		a, err := j.Audit(w.Context(), AuditOptions{Repair: true})
		must(w, err)
		if a.Clean() || len(a.Rotten) != 1 || a.Rotten[0].Repaired || !strings.Contains(a.Rotten[0].Err.Error(), why) {
			w.Errorf("got %+v", a.Rotten)
		}
	})
}

// rewrite gives a file another content of the same size, and its time back.
func (w *world) rewrite(path, content string) {
	w.Helper()
	path = filepath.Join(w.from, path)
	st, err := os.Stat(path)
	must(w, err)
	if st.Size() != int64(len(content)) {
		w.Fatalf("%d bytes are not %d", len(content), st.Size())
	}
	must(w, errors.Join(os.WriteFile(path, []byte(content), 0o644), os.Chtimes(path, time.Time{}, st.ModTime())))
}

// A first run takes equal sizes and times for equal contents. That makes no hash of the
// one side that of the other: an audit once "repaired" a good source with it.
func TestWhatWasNeverReadIsNobodysTruth(t *testing.T) {
	for _, intoBucket := range []bool{false, true} {
		w := between(t, drill.MirrorMirror, intoBucket)
		w.write("a", "stale content")
		w.write("b", "equal content")
		w.whole()
		w.rewrite("a", "good content!")
		w.env.StateDir = t.TempDir() // nothing is known of the copy
		if res := w.whole(); res.Done[plan.Equal] != 2 {
			t.Fatalf("the first run: %+v", res)
		}
		for _, side := range []plan.Side{plan.Source, plan.Dest} {
			for _, l := range []proof.Level{proof.L1, proof.L2, proof.L4} {
				if v := w.verified(side, l); v.Verified() || v.Verdict.Unchecked.Count != 2 || v.Verdict.Different.Count != 0 {
					t.Errorf("%s at %v: %v", side, l, v)
				}
			}
		}
		a := w.audit(AuditOptions{Repair: true, RepairSource: true})
		if a.Clean() || len(a.Rotten) != 0 || a.Contents != 2 || a.Checked != 1 || a.Apart.Count != 1 || a.Apart.First[0].Key != "a" {
			t.Errorf("the audit: %+v", a)
		}
		if raw, err := os.ReadFile(filepath.Join(w.from, "a")); err != nil || string(raw) != "good content!" {
			t.Fatalf("the source holds %q, %v", raw, err)
		}
		// A run that audits reads both, and the source's is what counts.
		if res := w.sync(SyncOptions{Check: engine.CheckAudit}); res.Done[plan.Put] != 1 || !res.Whole() {
			t.Errorf("the run that audits: %+v", res)
		}
		if a := w.audit(AuditOptions{}); !a.Clean() || a.Checked != 2 {
			t.Errorf("then: %+v", a)
		}
		for _, side := range []plan.Side{plan.Source, plan.Dest} {
			if v := w.verified(side, proof.L1); !v.Verified() {
				t.Errorf("then the %s: %v", side, v)
			}
		}
	}
}

// What no run has read can be equal on both sides and is not clean all the same: the
// manifest has no hash that either side was shown to hold. A run that audits gives it one.
func TestAnAuditComparesBothSides(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	w.write("a", "content")
	w.write("b", "another")
	w.whole()
	w.env.StateDir = t.TempDir()
	w.whole()
	a := w.audit(AuditOptions{})
	if a.Checked != 2 || a.Contents != 2 || a.Unchecked.Count != 0 {
		t.Errorf("got %+v", a)
	}
	if a.Clean() || a.Sides[plan.Source].Verified() || a.Sides[plan.Dest].Verified() {
		t.Errorf("clean without a hash in the manifest: %+v", a)
	}
	if res := w.sync(SyncOptions{Check: engine.CheckAudit}); !res.Whole() {
		t.Errorf("the run that audits: %+v", res)
	}
	if a := w.audit(AuditOptions{}); !a.Clean() || a.Checked != 2 {
		t.Errorf("then: %+v", a)
	}
	w.with(func(j *Job) {
		j.places[plan.Dest] = unreadable{j.places[plan.Dest], "b", errors.New("a bad sector")}
		a, err := j.Audit(t.Context(), AuditOptions{})
		must(t, err)
		if a.Clean() || a.Checked != 1 || a.Unchecked.Count != 1 || !strings.Contains(a.Unchecked.First[0].Detail, "destination") {
			t.Errorf("with one that cannot be read: %+v", a)
		}
	})
}

type unreadable struct {
	place.Place
	key string
	err error
}

func (u unreadable) Open(ctx context.Context, e entry.Entry, off, n int64) (place.Content, error) {
	if e.Key() == u.key {
		return nil, u.err
	}
	return u.Place.Open(ctx, e, off, n)
}

// A run that does not look says so, and what a check finds makes the next one look.
func TestWhatIsBelievedIsNotSeen(t *testing.T) {
	for name, look := range map[string]func(*world){
		"verify": func(w *world) { w.verified(plan.Dest, proof.L1) },
		"audit":  func(w *world) { w.audit(AuditOptions{}) },
	} {
		w := between(t, drill.MirrorMirror, true)
		w.write("a", "x")
		w.write("b", "y")
		first := w.whole()
		if first.Believed != 0 || !first.Listed.Equal(first.Began) {
			t.Errorf("the first run: %+v", first)
		}
		client := enginetest.Client(t, w.bucket)
		must(t, client.RemoveObject(t.Context(), w.bucket.Bucket, "a", minio.RemoveObjectOptions{}))
		res := w.sync(SyncOptions{Check: engine.CheckState})
		if res.Believed != 2 || res.Done[plan.Equal] != 2 || !res.Listed.Equal(first.Listed) || res.Check != engine.CheckState {
			t.Errorf("a run that believes: %+v", res)
		}
		look(w)
		res = w.sync(SyncOptions{Check: engine.CheckState})
		if res.Believed != 0 || res.Done[plan.Put] != 1 || res.Check != engine.CheckListing || !res.Listed.Equal(res.Began) {
			t.Errorf("the run after %s: %+v", name, res)
		}
	}
}

func TestTheRootIsCarriedToo(t *testing.T) {
	mode := func(dir string, want os.FileMode) {
		t.Helper()
		if st, err := os.Stat(dir); err != nil || st.Mode() != want|os.ModeDir {
			t.Errorf("%v, %v, want %v", st.Mode(), err, want)
		}
	}
	w := between(t, drill.MirrorCopy, false)
	w.to = filepath.Join(w.to, "made/by the first run")
	w.mirror.To = "dir:" + w.to
	w.write("a", "x")
	must(t, errors.Join(os.Chown(w.from, 12345, 54321), os.Chmod(w.from, 0o700)))
	w.with(func(*Job) { mode(w.to, 0o700) }) // nobody looks into it meanwhile
	w.whole()
	mode(w.to, 0o700)
	if got, want := owner(t, w.to), owner(t, w.from); got != want {
		t.Errorf("it belongs to %v, not %v", got, want)
	}
	must(t, os.Chmod(w.from, 0o750|os.ModeSetgid))
	w.sync(SyncOptions{DryRun: true})
	mode(w.to, 0o700)
	if res := w.whole(); res.Done[plan.Meta] != 1 {
		t.Errorf("got %+v", res)
	}
	mode(w.to, 0o750|os.ModeSetgid)
	if res := w.whole(); res.Done[plan.Meta] != 0 {
		t.Errorf("once more: %+v", res)
	}
	// Rules for permissions are the word of somebody who knows better.
	w.mirror.Permissions = []drill.Permission{{Match: "*", Files: "0600"}}
	must(t, os.Chmod(w.from, 0o700))
	w.whole()
	mode(w.to, 0o750|os.ModeSetgid)

	w = between(t, drill.MirrorTwoWay, false)
	w.write("a", "x")
	w.whole()
	must(t, os.Chmod(w.to, 0o700))
	w.whole()
	mode(w.from, 0o700)
	must(t, os.Chmod(w.from, 0o750))
	w.whole()
	mode(w.to, 0o750)
	must(t, errors.Join(os.Chmod(w.from, 0o711), os.Chmod(w.to, 0o755)))
	for range 2 {
		if res := w.sync(SyncOptions{}); res.Done[plan.Conflict] != 1 || res.Conflicts[0].Key != rootKey {
			t.Errorf("changed on both sides: %+v", res)
		}
	}
	must(t, os.Chmod(w.to, 0o711))
	w.whole()
	must(t, os.Chmod(w.to, 0o700))
	w.whole()
	mode(w.from, 0o700)
}

func owner(t testing.TB, path string) [2]uint32 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return [2]uint32{st.Uid, st.Gid}
}

// A delete on one side is none the less a delete where the other side's file was
// written a moment before the last run.
func TestTwoWayDeletesWhatWasDirty(t *testing.T) {
	for _, gone := range []plan.Side{plan.Source, plan.Dest} {
		w := between(t, drill.MirrorTwoWay, true)
		now := time.Now()
		w.env.Now = func() time.Time { return now }
		w.write("a", "content")
		w.write("stays", "content")
		now = time.Now()
		w.whole()
		client := enginetest.Client(t, w.bucket)
		if gone == plan.Source {
			must(t, os.Remove(filepath.Join(w.from, "a")))
		} else {
			must(t, client.RemoveObject(t.Context(), w.bucket.Bucket, "a", minio.RemoveObjectOptions{}))
		}
		now = now.Add(time.Minute)
		if res := w.sync(SyncOptions{MayDelete: -1}); !res.Whole() || res.Done[plan.Delete] != 1 {
			t.Errorf("gone from the %s: %+v", gone, res)
		}
	}
}

// What another program put into the bucket, or wrote over what was there, and is in
// the directory too, is one content and no conflict.
func TestTwoWayKnowsEqualContents(t *testing.T) {
	w := between(t, drill.MirrorTwoWay, true)
	client := enginetest.Client(t, w.bucket)
	parts := strings.Repeat("0123456789abcdef", 6<<16) // 6 MiB, of which clients make two parts
	both := func(key, content string) {
		t.Helper()
		w.write(key, content)
		must(t, os.Chmod(filepath.Join(w.from, key), 0o600))
		_, err := client.PutObject(t.Context(), w.bucket.Bucket, key, strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{PartSize: 5 << 20})
		must(t, err)
	}
	w.write("edited", "before")
	w.whole()
	both("created", "equal")
	both("in parts", parts)
	both("edited", "equal since")
	before := enginetest.Tree(t, w.from)
	if res := w.whole(); res.Done[plan.Meta] != 3 || res.Done[plan.Put] != 0 {
		t.Errorf("got %+v", res)
	}
	for path, was := range before {
		if now := enginetest.Tree(t, w.from)[path]; now != was {
			t.Errorf("%s was %.80s and is %.80s", path, was, now)
		}
	}
	if res := w.whole(); res.Done[plan.Equal] != 3 || len(res.Done) != 1 {
		t.Errorf("once more: %+v", res)
	}
	if v := w.verified(plan.Dest, proof.L4); !v.Verified() {
		t.Errorf("got %v", v)
	}
}

// What stands in the way of something else is removed before it, in one run and under
// the guards.
func TestAnObstacleIsRemovedInTheFirstRun(t *testing.T) {
	for _, intoBucket := range []bool{false, true} {
		for _, paths := range [][2]string{{"a/x", "a"}, {"a", "a/x"}, {"a/b/c", "a/b"}, {"a/b", "a/b/c"}} {
			w := between(t, drill.MirrorMirror, intoBucket)
			w.mirror.Deletes = drill.MirrorDeletes{}
			w.write(paths[0], "the source's")
			for _, other := range []string{"b", "c", "d", "e", "f", "g", "h", "i", "j"} {
				w.write(other, other)
			}
			if intoBucket {
				_, err := enginetest.Client(t, w.bucket).PutObject(t.Context(), w.bucket.Bucket, paths[1], strings.NewReader("in the way"), 10, minio.PutObjectOptions{})
				must(t, err)
			} else {
				enginetest.Write(t, w.to, paths[1], "in the way")
			}
			// Of one entry or two, any delete is more than a quarter.
			res := w.sync(SyncOptions{})
			if res.Whole() || res.Failed != 0 || len(res.Refusals) != 1 || res.Refusals[0].Guard != plan.GuardPercent ||
				len(res.Conflicts) == 0 || res.Conflicts[0].Reason != plan.ConflictPlace || res.Done[plan.Delete] != 0 {
				t.Errorf("%q, refused: %+v", paths, res)
			}
			if res := w.sync(SyncOptions{MayDelete: 2}); !res.Whole() || res.Done[plan.Delete] == 0 {
				t.Errorf("%q: %+v", paths, res)
			}
			if a := w.audit(AuditOptions{}); !a.Clean() || a.Checked != 10 {
				t.Errorf("%q: %+v", paths, a)
			}
		}
	}
}

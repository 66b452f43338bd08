package job

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/pkg/event"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/location"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// keepsDeleted is a mirror that keeps what it deletes for a week, by a clock of its own.
func keepsDeleted(t *testing.T, mode string, intoBucket, versions bool) (*world, *time.Time) {
	t.Helper()
	w := between(t, mode, intoBucket)
	if intoBucket && versions != (mode == drill.MirrorTwoWay) {
		w.bucket = server.Bucket(t, versions)
		w.mirror.To = "s3:lab/" + w.bucket.Bucket
	}
	w.mirror.KeepDeleted = event.Duration(7 * 24 * time.Hour)
	now := time.Now().Add(time.Hour)
	w.env.Now = func() time.Time { return now }
	return w, &now
}

// tree is what the source holds, without the times of its root.
func (w *world) tree() map[string]string { return visible(w.TB, w.from) }

// visible is what a directory holds, without its trash.
func visible(t testing.TB, dir string) map[string]string {
	all := enginetest.Tree(t, dir)
	maps.DeleteFunc(all, func(path, _ string) bool {
		_, trash := place.InTrash(path)
		return trash || path == "" || path == "."
	})
	return all
}

// deleted lists what can be brought back, as "path run".
func (w *world) deleted(o DeletedOptions) []string {
	w.Helper()
	var out []string
	w.with(func(j *Job) {
		for d, err := range j.Deleted(w.Context(), o) {
			must(w, err)
			out = append(out, strings.TrimSpace(d.Entry.Path+" "+d.Bin.Run))
		}
	})
	return out
}

// restore brings back, and checks what came of it.
func (w *world) restore(o RestoreOptions, want Restoration) (told []Restored) {
	w.Helper()
	o.Each = func(r Restored) { told = append(told, r) }
	w.with(func(j *Job) {
		got, err := j.Restore(w.Context(), o)
		must(w, err)
		if want.Bytes = got.Bytes; got != want {
			w.Errorf("restored %+v, want %+v: %+v", got, want, told)
		}
	})
	return told
}

// settled makes a run that must find nothing to do.
func (w *world) settled(o SyncOptions) {
	w.Helper()
	res := w.sync(o)
	for op, n := range res.Done {
		if op != plan.Equal && n > 0 {
			w.Errorf("the run after it did %v", res.Done)
		}
	}
	if !res.Whole() {
		w.Errorf("it is not whole: %+v", res.Report)
	}
}

// writeReports writes what stays, and what is lost: seven entries of all sorts.
func (w *world) writeReports() {
	w.Helper()
	for i := range 40 {
		w.write(fmt.Sprintf("stays/%02d", i), "x")
	}
	lost := []string{"reports/2026/q1", "reports/2026/q2", "new\nline", "large"}
	for _, path := range lost {
		w.write(path, strings.Repeat(path, 20))
	}
	w.write("large", strings.Repeat("large", 1<<19))
	at := time.Unix(1_600_000_000, 123_456_789)
	must(w, errors.Join(
		os.Symlink("q1", filepath.Join(w.from, "reports/link")),
		os.Chmod(filepath.Join(w.from, "reports/2026/q1"), 0o640),
		os.Chtimes(filepath.Join(w.from, "reports/2026/q1"), at, at),
		os.Chmod(filepath.Join(w.from, "reports"), 0o750),
		os.Chtimes(filepath.Join(w.from, "reports/2026"), at, at),
		os.Chtimes(filepath.Join(w.from, "reports"), at, at)))
}

// asTheManifestSays checks both sides by what they tell, and by reading them.
func (w *world) asTheManifestSays() {
	w.Helper()
	for _, p := range []plan.Side{plan.Source, plan.Dest} {
		for _, level := range []proof.Level{proof.L1, proof.L2, proof.L3, proof.L4} {
			if level < proof.L3 && (p == plan.Source || w.to != "") {
				continue // A directory keeps no hashes.
			}
			if v := w.verified(p, level); v.differs() || v.Inconclusive() {
				w.Errorf("at %s the %s is not what the manifest says: %+v", level, p, v.Verdict)
			}
		}
	}
}

// Files are deleted by mistake, too few of them for any guard. rclone and mc make the copy
// lose them as well; here they are listed, and come back as they were on both sides.
func TestWhatWasDeletedComesBack(t *testing.T) {
	for name, c := range trashes {
		t.Run(name, func(t *testing.T) {
			w, _ := keepsDeleted(t, c.mode, c.bucket, c.versions)
			w.writeReports()
			w.whole()
			theirs := t.TempDir()
			wipes(t, theirs, 44, func() (string, error) { return rclone(t, "sync", w.from, theirs) }, nil)
			before := w.tree()
			for _, path := range []string{"reports", "new\nline", "large"} {
				must(t, os.RemoveAll(filepath.Join(w.from, path)))
			}
			if res := w.whole(); res.Done[plan.Delete] != 7 {
				t.Fatalf("deleted %v", res.Done)
			}
			wipes(t, theirs, 44, nil, func() (string, error) { return rclone(t, "sync", w.from, theirs) })
			w.asTheManifestSays()
			if got := w.deleted(DeletedOptions{}); len(got) != 7 {
				t.Errorf("deleted: %q", got)
			}
			// One first, with the directories that it needs.
			w.restore(RestoreOptions{DeletedOptions: DeletedOptions{Under: []string{"reports/2026/q1"}}, DryRun: true}, Restoration{Entries: 3})
			w.restore(RestoreOptions{DeletedOptions: DeletedOptions{Under: []string{"reports/2026/q1"}}}, Restoration{Entries: 3})
			w.settled(SyncOptions{})
			w.settled(SyncOptions{Check: engine.CheckListing})
			w.restore(RestoreOptions{}, Restoration{Entries: 4})
			w.settled(SyncOptions{})
			w.settled(SyncOptions{Check: engine.CheckAudit})
			after := w.tree()
			for path, was := range before {
				if now := after[path]; now != was {
					t.Errorf("%q was %.60q, and is %.60q", path, was, now)
				}
			}
			if len(after) != len(before) {
				t.Errorf("there are %d entries, of %d", len(after), len(before))
			}
			if w.to != "" {
				if there := visible(t, w.to); !maps.Equal(there, after) {
					t.Errorf("the other side holds %v\nand this one %v", there, after)
				}
			}
			if got := w.deleted(DeletedOptions{}); len(got) != 0 {
				t.Errorf("still deleted: %q", got)
			}
			w.asTheManifestSays()
		})
	}
}

// mc mirrors a bucket into a directory, and removes there what the bucket has lost.
func TestWhatMCRemovesIsKept(t *testing.T) {
	seed := between(t, drill.MirrorMirror, true)
	for i := range 40 {
		seed.write(fmt.Sprintf("%02d", i), "precious")
	}
	seed.whole()
	w := &world{TB: t, env: seed.env, to: t.TempDir()}
	w.mirror = drill.Mirror{Name: "back", Mode: drill.MirrorMirror, From: seed.mirror.To, To: "dir:" + w.to,
		Deletes: drill.MirrorDeletes{Scans: 1}, KeepDeleted: event.Duration(time.Hour)}
	w.whole()
	theirs := t.TempDir()
	mirror := func() (string, error) { return mc(t, server.Start(t).Endpoint, "there/"+seed.bucket.Bucket, theirs) }
	wipes(t, theirs, 40, mirror, nil)
	must(t, os.Remove(filepath.Join(seed.from, "07")))
	seed.whole()
	wipes(t, theirs, 40, nil, mirror)
	w.whole()
	if got := len(visible(t, w.to)); got != 39 {
		t.Errorf("there are %d", got)
	}
	w.restore(RestoreOptions{}, Restoration{Entries: 1})
	w.settled(SyncOptions{})
	if got, err := os.ReadFile(filepath.Join(w.to, "07")); err != nil || string(got) != "precious" {
		t.Errorf("it holds %q, %v", got, err)
	}
}

// What is in the way stays, on whichever side, and nothing is half restored.
func TestWhatIsInTheWayStays(t *testing.T) {
	w, now := keepsDeleted(t, drill.MirrorMirror, false, false)
	for _, path := range []string{"stays", "source", "dest", "dir", "twice", "older"} {
		w.write(path, "old")
	}
	w.whole()
	for _, path := range []string{"source", "dest", "dir", "twice", "older"} {
		must(t, os.Remove(filepath.Join(w.from, path)))
	}
	first := w.whole()
	*now = now.Add(time.Hour)
	w.write("twice", "newer")
	w.whole()
	must(t, os.Remove(filepath.Join(w.from, "twice")))
	second := w.whole()
	w.write("source", "in the way")
	enginetest.Write(t, w.to, "dest", "in the way")
	w.write("dir/f", "in the way")
	told := w.restore(RestoreOptions{}, Restoration{Entries: 2, Failed: 3})
	for _, r := range told {
		if bad := slices.Contains([]string{"source", "dest", "dir"}, r.Entry.Path); bad != errors.Is(r.Err, ErrInTheWay) {
			t.Errorf("%s: %v", r.Entry.Path, r.Err)
		}
	}
	for _, path := range []string{"source", "dir/f"} {
		if got, err := os.ReadFile(filepath.Join(w.from, path)); err != nil || string(got) != "in the way" {
			t.Errorf("%s holds %q, %v", path, got, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(w.from, "twice")); err != nil || string(got) != "newer" {
		t.Errorf("the newer is %q, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(w.to, "source")); err == nil {
		t.Error("it is back where the source's would come")
	}
	var left []string
	for _, path := range []string{"dest", "dir", "source", "twice"} {
		left = append(left, path+" "+first.Aside)
	}
	if got := w.deleted(DeletedOptions{}); !slices.Equal(got, left) || first.Aside == second.Aside {
		t.Errorf("there is left %q, want %q", got, left)
	}
	for _, o := range []DeletedOptions{{Run: "none"}, {Under: []string{"stays"}}, {Under: []string{"older"}}, {Run: second.Aside, Under: []string{"dir"}}} {
		w.with(func(j *Job) {
			if res, err := j.Restore(t.Context(), RestoreOptions{DeletedOptions: o}); !errors.Is(err, ErrNothingDeleted) || res != (Restoration{}) {
				t.Errorf("%+v: %+v, %v", o, res, err)
			}
		})
	}
}

// However long a run takes, what it deletes is kept from then on; and another mirror of the
// place prunes nothing of it.
func TestWhatIsKeptIsOfOneMirrorAndItsTime(t *testing.T) {
	w, now := keepsDeleted(t, drill.MirrorMirror, false, false)
	var months atomic.Int64
	w.env.Now = func() time.Time { return now.Add(time.Duration(months.Load()) * 30 * 24 * time.Hour) }
	w.write("a", "x")
	w.write("stays", "x")
	w.whole()
	must(t, os.Remove(filepath.Join(w.from, "a")))
	ages := func(d engine.Done) {
		if d.Action.Op == plan.Put {
			months.Add(1)
		}
	}
	w.write("b", "x") // is copied first, and takes a month
	if res := w.sync(SyncOptions{Each: ages}); !res.Whole() || res.Pruned != 0 || res.Done[plan.Delete] != 1 {
		t.Errorf("%+v", res)
	}
	if got := w.deleted(DeletedOptions{}); len(got) != 1 {
		t.Fatalf("deleted: %q", got)
	}
	other := *w
	other.mirror.Name, other.mirror.KeepDeleted = "other", event.Duration(time.Second)
	*now = now.Add(time.Hour)
	if res := other.whole(); res.Pruned != 0 {
		t.Errorf("another mirror pruned %d", res.Pruned)
	}
	other.with(func(j *Job) {
		for d := range j.Deleted(t.Context(), DeletedOptions{}) {
			t.Errorf("another mirror lists %+v", d)
		}
	})
	if got := w.deleted(DeletedOptions{}); len(got) != 1 {
		t.Errorf("deleted: %q", got)
	}
}

// Only what was put aside longer ago than it is kept is pruned, and only by a whole run.
func TestWhatIsKeptLongEnoughIsPruned(t *testing.T) {
	for name, bucket := range map[string]bool{"a directory": false, "a bucket": true} {
		t.Run(name, func(t *testing.T) {
			w, now := keepsDeleted(t, drill.MirrorMirror, bucket, false)
			for _, path := range []string{"a", "b", "c", "d", "e"} {
				w.write(path, "x")
			}
			w.whole()
			must(t, os.Remove(filepath.Join(w.from, "a")))
			w.whole()
			*now = now.Add(6 * 24 * time.Hour)
			must(t, os.Remove(filepath.Join(w.from, "b")))
			w.whole()
			if got := w.deleted(DeletedOptions{}); len(got) != 2 {
				t.Fatalf("deleted: %q", got)
			}
			*now = now.Add(2 * 24 * time.Hour)
			// A name that no side can hold keeps a run from being whole.
			enginetest.Write(t, w.from, "x/"+place.Trash+"/mine", "x")
			if res := w.sync(SyncOptions{}); res.Whole() || res.Pruned != 0 || len(res.Unholdable) != 1 {
				t.Errorf("whole %t, pruned %d: %+v", res.Whole(), res.Pruned, res.Unholdable)
			}
			must(t, os.RemoveAll(filepath.Join(w.from, "x/"+place.Trash)))
			if res := w.sync(SyncOptions{DryRun: true}); res.Pruned != 0 {
				t.Error("a dry run pruned")
			}
			if res := w.whole(); res.Pruned != 1 {
				t.Errorf("pruned %d", res.Pruned)
			}
			if got := w.deleted(DeletedOptions{}); len(got) != 1 || !strings.HasPrefix(got[0], "b ") {
				t.Errorf("deleted: %q", got)
			}
		})
	}
}

// A run that was killed when it had put something aside and had not noted it does it again
// without harm.
func TestARunKilledAfterItPutAside(t *testing.T) {
	for name, bucket := range map[string]bool{"a directory": false, "a bucket": true} {
		t.Run(name, func(t *testing.T) {
			w, _ := keepsDeleted(t, drill.MirrorMirror, bucket, false)
			for _, path := range []string{"a", "b", "d/c", "d/e", "f"} {
				w.write(path, path)
			}
			w.whole()
			must(t, os.Remove(filepath.Join(w.from, "a")))
			must(t, os.RemoveAll(filepath.Join(w.from, "d")))
			j := w.open(true)
			_, err := j.Sync(t.Context(), SyncOptions{Pool: killing{engine.Local{Worker: j.Worker()}}})
			if must(t, j.Close(t.Context())); !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			w.whole()
			w.settled(SyncOptions{Check: engine.CheckListing})
			if got := w.deleted(DeletedOptions{}); len(got) != 4 {
				t.Errorf("deleted: %q", got)
			}
			w.restore(RestoreOptions{}, Restoration{Entries: 4})
			w.settled(SyncOptions{Check: engine.CheckAudit})
			if got := len(w.tree()); got != 6 {
				t.Errorf("there are %d entries", got)
			}
		})
	}
}

// A restore that was killed before it could note what it did leaves nothing to be undone.
func TestARestoreThatIsNotNoted(t *testing.T) {
	w, _ := keepsDeleted(t, drill.MirrorMirror, false, false)
	for _, path := range []string{"a", "b", "c"} {
		w.write(path, path)
	}
	w.whole()
	must(t, os.Remove(filepath.Join(w.from, "a")))
	w.whole()
	saved := t.TempDir()
	must(t, os.CopyFS(saved, os.DirFS(w.env.StateDir)))
	w.restore(RestoreOptions{}, Restoration{Entries: 1})
	must(t, errors.Join(os.RemoveAll(w.env.StateDir), os.CopyFS(w.env.StateDir, os.DirFS(saved))))
	w.settled(SyncOptions{})
}

// Into another disk than the mirror's nothing is brought back.
func TestNothingIsRestoredIntoAnotherPlace(t *testing.T) {
	w, _ := keepsDeleted(t, drill.MirrorMirror, false, false)
	for _, path := range []string{"a", "b", "c"} {
		w.write(path, path)
	}
	w.whole()
	must(t, os.Remove(filepath.Join(w.from, "a")))
	w.whole()
	must(t, errors.Join(os.Rename(w.from, w.from+".old"), os.Mkdir(w.from, 0o755)))
	w.with(func(j *Job) {
		if _, err := j.Restore(t.Context(), RestoreOptions{}); !errors.Is(err, engine.ErrJob) || !strings.Contains(err.Error(), "the source dir:"+w.from+" is not the place") {
			t.Errorf("it said %v", err)
		}
	})
	if got := len(visible(t, w.from)); got != 0 {
		t.Errorf("%d entries are there", got)
	}
	must(t, errors.Join(os.Remove(w.from), os.Rename(w.from+".old", w.from)))
	w.restore(RestoreOptions{}, Restoration{Entries: 1})
}

// A dataset is read through snapshots: what comes back comes back in the copy only, and it is
// said that it will not stay there.
func TestWhatCannotComeBackAtTheSource(t *testing.T) {
	w, _ := keepsDeleted(t, drill.MirrorMirror, false, false)
	for _, path := range []string{"d/a", "b", "c"} {
		w.write(path, path)
	}
	w.whole()
	must(t, os.RemoveAll(filepath.Join(w.from, "d")))
	w.whole()
	for _, dry := range []bool{true, false} {
		w.with(func(j *Job) {
			j.spec.at[plan.Source].Scheme = location.ZFS
			res, err := j.Restore(t.Context(), RestoreOptions{DryRun: dry, Each: func(r Restored) {
				if r.Err != nil || !errors.Is(r.Alone, ErrOneSide) {
					t.Errorf("dry %t: %s: %v, %v", dry, r.Entry.Path, r.Err, r.Alone)
				}
			}})
			if must(t, err); res != (Restoration{Alone: 2}) {
				t.Errorf("dry %t: restored %+v", dry, res)
			}
		})
	}
	if got, err := os.ReadFile(filepath.Join(w.to, "d/a")); err != nil || string(got) != "d/a" {
		t.Errorf("it holds %q, %v", got, err)
	}
	if res := w.sync(SyncOptions{Check: engine.CheckListing}); res.Done[plan.Delete] != 2 {
		t.Errorf("the next run did %v", res.Done)
	}
	w.restore(RestoreOptions{}, Restoration{Entries: 2})
}

// What lies on another file system is never copied into the trash, and not lost.
func TestWhatIsMountedIsLeftAlone(t *testing.T) {
	w, _ := keepsDeleted(t, drill.MirrorMirror, false, false)
	for _, path := range []string{"a", "m/f", "stays"} {
		w.write(path, path)
	}
	must(t, os.Mkdir(filepath.Join(w.to, "m"), 0o755))
	must(t, unix.Mount("tmpfs", filepath.Join(w.to, "m"), "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(filepath.Join(w.to, "m"), unix.MNT_DETACH)) })
	w.whole()
	must(t, errors.Join(os.Remove(filepath.Join(w.from, "a")), os.RemoveAll(filepath.Join(w.from, "m"))))
	res := w.sync(SyncOptions{})
	if res.Failed != 2 || res.Done[plan.Delete] != 1 {
		t.Errorf("%d failed, %v: %v", res.Failed, res.Done, res.Failures)
	}
	if got, err := os.ReadFile(filepath.Join(w.to, "m/f")); err != nil || string(got) != "m/f" {
		t.Errorf("it holds %q, %v", got, err)
	}
	if got := fmt.Sprint(res.Failures); !strings.Contains(got, "different file systems") {
		t.Errorf("it says %s", got)
	}
}

// The trash of a mirror takes no part in another one, whose source its destination is, or
// lies in.
func TestTheTrashOfOneMirrorIsNoPartOfAnother(t *testing.T) {
	w, _ := keepsDeleted(t, drill.MirrorMirror, false, false)
	w.to = filepath.Join(w.to, "sub")
	w.mirror.To = "dir:" + w.to
	for _, path := range []string{"a", "b", "c"} {
		w.write(path, path)
	}
	w.whole()
	must(t, os.Remove(filepath.Join(w.from, "a")))
	w.whole()
	next := &world{TB: t, env: w.env, from: filepath.Dir(w.to), to: t.TempDir()}
	next.mirror = drill.Mirror{Name: "next", Mode: drill.MirrorMirror, From: "dir:" + next.from, To: "dir:" + next.to}
	next.whole()
	if got := slices.Sorted(maps.Keys(enginetest.Tree(t, next.to))); !slices.Equal(slices.DeleteFunc(got, func(p string) bool { return p == "." || p == "" }), []string{"sub", "sub/b", "sub/c"}) {
		t.Errorf("it holds %q", got)
	}
	if got := w.deleted(DeletedOptions{}); len(got) != 1 {
		t.Errorf("deleted: %q", got)
	}
}

func TestWhatKeepsNothingIsNotToldToKeep(t *testing.T) {
	w := between(t, drill.MirrorCopy, false)
	w.mirror.KeepDeleted = event.Duration(time.Hour)
	for mode, d := range map[string]time.Duration{"": time.Hour, drill.MirrorCopy: time.Hour, drill.MirrorMirror: -time.Hour} {
		w.mirror.Mode, w.mirror.KeepDeleted = mode, event.Duration(d)
		if _, err := w.env.OpenRun(t.Context(), w.mirror, false); !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), "keepDeleted") {
			t.Errorf("%q, %s: %v", mode, d, err)
		}
	}
}

package job

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// trashes are the pairs of places between which something can be deleted and kept.
var trashes = map[string]struct {
	mode             string
	bucket, versions bool
}{
	"a directory":              {drill.MirrorMirror, false, false},
	"a bucket":                 {drill.MirrorMirror, true, false},
	"a bucket with versions":   {drill.MirrorMirror, true, true},
	"two directories":          {drill.MirrorTwoWay, false, false},
	"a directory and a bucket": {drill.MirrorTwoWay, true, false},
	"a directory and versions": {drill.MirrorTwoWay, true, true},
}

// held is all that the two sides hold, with what they have put aside.
func (w *world) held() map[string]string {
	w.Helper()
	all := map[string]string{}
	add := func(side plan.Side, dir string) {
		for path, what := range enginetest.Tree(w, dir) {
			all[side.String()+" "+path] = what
		}
	}
	add(plan.Source, w.from)
	if w.to != "" {
		add(plan.Dest, w.to)
		return all
	}
	for o := range enginetest.Client(w, w.bucket).ListObjects(w.Context(), w.bucket.Bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		must(w, o.Err)
		all["destination "+o.Key+" "+o.VersionID] = fmt.Sprint(o.ETag, o.IsLatest, o.IsDeleteMarker)
	}
	return all
}

// refused restores what must not come back, dry and then not, and says just the same: of what
// lies below a path, that it is that which is in the way.
func (w *world) refused(o DeletedOptions, want ...string) {
	w.Helper()
	before := w.held()
	for _, dry := range []bool{true, false} {
		var got []string
		for _, r := range w.restore(RestoreOptions{DeletedOptions: o, DryRun: dry}, Restoration{Failed: int64(len(want))}) {
			got = append(got, r.Entry.Path)
			if !errors.Is(r.Err, ErrInTheWay) || r.Alone != nil {
				w.Errorf("dry %t: %q: %v, %v", dry, r.Entry.Path, r.Err, r.Alone)
			}
			if top, _, below := strings.Cut(r.Entry.Path, "/"); below && !strings.Contains(fmt.Sprint(r.Err), fmt.Sprintf("it lies in %q", top)) {
				w.Errorf("dry %t: %q: %v", dry, r.Entry.Path, r.Err)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			w.Errorf("dry %t: it tells of %q, want %q", dry, got, want)
		}
	}
	after := w.held()
	for _, all := range []map[string]string{before, after} {
		delete(all, "source .")
		delete(all, "destination .")
	}
	if !maps.Equal(before, after) {
		w.Errorf("both sides held\n%v\nand hold\n%v", before, after)
	}
}

// Something stands, on one side only, where a directory has to come back: nothing in it comes
// back on the other side either, and a dry run says so.
func TestNothingIsRestoredByHalf(t *testing.T) {
	for name, c := range trashes {
		t.Run(name, func(t *testing.T) {
			w, _ := keepsDeleted(t, c.mode, c.bucket, c.versions)
			for _, path := range []string{"d/a", "d/e/b", "part/a", "part/b", "stays", "stays2", "stays3"} {
				w.write(path, path)
			}
			w.whole()
			must(t, errors.Join(os.RemoveAll(filepath.Join(w.from, "d")), os.Remove(filepath.Join(w.from, "part/a"))))
			w.whole()
			w.write("d", "a file by now")
			w.refused(DeletedOptions{Under: []string{"d"}}, "d", "d/a", "d/e", "d/e/b")
			w.refused(DeletedOptions{Under: []string{"d/e/b"}}, "d/e/b")
			// The directory was not deleted, only what is in it.
			must(t, errors.Join(os.RemoveAll(filepath.Join(w.from, "part")), os.Symlink("stays", filepath.Join(w.from, "part"))))
			w.refused(DeletedOptions{Under: []string{"part"}}, "part/a")
			must(t, os.Remove(filepath.Join(w.from, "d")))
			w.restore(RestoreOptions{DeletedOptions: DeletedOptions{Under: []string{"d"}}}, Restoration{Entries: 4})
		})
	}
}

// The same where it is the other side that something stands on.
func TestNothingIsRestoredByHalfIntoTheDestination(t *testing.T) {
	for name, c := range trashes {
		t.Run(name, func(t *testing.T) {
			w, _ := keepsDeleted(t, c.mode, c.bucket, c.versions)
			for _, path := range []string{"d/a", "d/e/b", "f", "stays", "stays2", "stays3"} {
				w.write(path, path)
			}
			w.whole()
			must(t, errors.Join(os.RemoveAll(filepath.Join(w.from, "d")), os.Remove(filepath.Join(w.from, "f"))))
			w.whole()
			put := func(key string) {
				if w.to != "" {
					enginetest.Write(t, w.to, key, "theirs")
					return
				}
				_, err := enginetest.Client(t, w.bucket).PutObject(t.Context(), w.bucket.Bucket, key, strings.NewReader("theirs"), 6, minio.PutObjectOptions{})
				must(t, err)
			}
			put("d")
			if c.versions { // of which MinIO lists nothing below a key that is, or was, an object
				w.refused(DeletedOptions{Under: []string{"d"}}, "d", "d/e")
				return
			}
			put("f/below")
			w.refused(DeletedOptions{}, "d", "d/a", "d/e", "d/e/b", "f")
		})
	}
}

// Of one path the newest comes back, be it a file or a directory, and what cannot lie in it
// does not, whatever is in the trash.
func TestAFileAndADirectoryOfOneNameWereDeleted(t *testing.T) {
	for name, c := range trashes {
		if c.versions {
			continue // MinIO lists nothing below a key that was an object and has versions
		}
		for _, first := range []string{"a file", "a directory"} {
			t.Run(name+", first "+first, func(t *testing.T) {
				w, now := keepsDeleted(t, c.mode, c.bucket, c.versions)
				for _, path := range []string{"stays", "stays2", "stays3", "stays4"} {
					w.write(path, path)
				}
				file, dir := "x", "x/in/it"
				for _, path := range map[string][]string{"a file": {file, dir}, "a directory": {dir, file}}[first] {
					w.write(path, path)
					w.whole()
					must(t, os.RemoveAll(filepath.Join(w.from, "x")))
					w.whole()
					*now = now.Add(time.Hour)
				}
				want, failed := []string{"x", "x/in", "x/in/it"}, 0
				if first == "a directory" {
					failed = 2
				}
				for _, dry := range []bool{true, false} {
					var got []string
					for _, r := range w.restore(RestoreOptions{DryRun: dry}, Restoration{Entries: int64(3 - failed), Failed: int64(failed)}) {
						if got = append(got, r.Entry.Path); (r.Err != nil) != (failed > 0 && r.Entry.Path != "x") {
							t.Errorf("dry %t: %q: %v", dry, r.Entry.Path, r.Err)
						}
					}
					if !slices.Equal(got, want) {
						t.Errorf("dry %t: it tells of %q", dry, got)
					}
				}
				st, err := os.Lstat(filepath.Join(w.from, "x"))
				if must(t, err); st.IsDir() != (first == "a file") {
					t.Errorf("it is %v", st.Mode())
				}
			})
		}
	}
}

// What MinIO would not list, as versions of another object hide it, a dry run does not promise.
func TestWhatWouldBeHiddenIsNotPromised(t *testing.T) {
	w, now := keepsDeleted(t, drill.MirrorMirror, true, true)
	for _, path := range []string{"x/in/it", "stays", "stays2", "stays3"} {
		w.write(path, path)
	}
	w.whole()
	must(t, os.RemoveAll(filepath.Join(w.from, "x")))
	w.whole()
	w.write("x", "a file by now")
	w.whole()
	must(t, os.Remove(filepath.Join(w.from, "x")))
	w.whole()
	*now = now.Add(time.Hour)
	for _, dry := range []bool{true, false} {
		told := w.restore(RestoreOptions{DryRun: dry}, Restoration{Entries: 1, Failed: 1})
		if len(told) != 2 || told[1].Entry.Path != "x/in" || !errors.Is(told[1].Err, bucket.ErrHidden) {
			t.Errorf("dry %t: %+v", dry, told)
		}
	}
}

// narrow is a place that cannot hold everything.
type narrow struct{ place.Keeper }

var errNarrow = errors.New("too long for it")

func (n narrow) Traits() place.Traits {
	t := n.Keeper.Traits()
	t.Holds = func(e entry.Entry) error {
		if e.Path == "long" {
			return errNarrow
		}
		return nil
	}
	return t
}

// What the other side cannot hold stays in the trash, where it would not be deleted again.
func TestWhatTheOtherSideCannotHoldStays(t *testing.T) {
	w, _ := keepsDeleted(t, drill.MirrorMirror, false, false)
	for _, path := range []string{"short", "long", "stays", "stays2", "stays3"} {
		w.write(path, path)
	}
	w.whole()
	must(t, errors.Join(os.Remove(filepath.Join(w.from, "short")), os.Remove(filepath.Join(w.from, "long"))))
	w.whole()
	for _, dry := range []bool{true, false} {
		w.with(func(j *Job) {
			k, ok := j.places[plan.Source].(place.Keeper)
			if !ok {
				t.Fatal("it keeps nothing")
			}
			j.places[plan.Source] = narrow{k}
			res, err := j.Restore(t.Context(), RestoreOptions{DryRun: dry, Each: func(r Restored) {
				if errors.Is(r.Err, errNarrow) != (r.Entry.Path == "long") || r.Alone != nil {
					t.Errorf("dry %t: %q: %v, %v", dry, r.Entry.Path, r.Err, r.Alone)
				}
			}})
			if must(t, err); res.Entries != 1 || res.Failed != 1 {
				t.Errorf("dry %t: %+v", dry, res)
			}
		})
	}
	w.restore(RestoreOptions{}, Restoration{Entries: 1})
}

// A run's directories may have been deleted by another run: they come back for what is in
// them, and only for that.
func TestARunsFilesComeBackWithTheirDirectories(t *testing.T) {
	w, now := keepsDeleted(t, drill.MirrorMirror, false, false)
	for _, path := range []string{"d/e/f", "d/g", "other/h", "stays", "stays2", "stays3"} {
		w.write(path, path)
	}
	must(t, os.Chmod(filepath.Join(w.from, "d/e"), 0o710))
	w.whole()
	must(t, os.Remove(filepath.Join(w.from, "d/e/f")))
	first := w.whole()
	*now = now.Add(time.Hour)
	must(t, errors.Join(os.RemoveAll(filepath.Join(w.from, "d")), os.RemoveAll(filepath.Join(w.from, "other"))))
	w.whole()
	var told []string
	for _, r := range w.restore(RestoreOptions{DeletedOptions: DeletedOptions{Run: first.Aside}}, Restoration{Entries: 3}) {
		told = append(told, r.Entry.Path)
	}
	if want := []string{"d", "d/e", "d/e/f"}; !slices.Equal(told, want) {
		t.Errorf("told of %q", told)
	}
	if st, err := os.Stat(filepath.Join(w.from, "d/e")); err != nil || st.Mode().Perm() != 0o710 {
		t.Errorf("%v, %v", st, err)
	}
	w.settled(SyncOptions{})
}

// A bucket may keep what others deleted, and what is no name: that is named, and all else is
// listed and comes back.
func TestAKeyThatIsNoNameIsPassedOver(t *testing.T) {
	for _, versions := range []bool{false, true} {
		t.Run(fmt.Sprintf("versions %t", versions), func(t *testing.T) {
			w, _ := keepsDeleted(t, drill.MirrorMirror, true, versions)
			for _, path := range []string{"a", "z", "b/f", "c/f", "stays", "stays2", "stays3"} {
				w.write(path, path)
			}
			w.whole()
			must(t, errors.Join(os.Remove(filepath.Join(w.from, "a")), os.Remove(filepath.Join(w.from, "z")), os.RemoveAll(filepath.Join(w.from, "b")), os.RemoveAll(filepath.Join(w.from, "c"))))
			run := w.whole().Aside
			client := enginetest.Client(t, w.bucket)
			// Others write no such escape, so that its name is made longer, here too long.
			bad, at := "b/%2E"+strings.Repeat("x", 250), ""
			if !versions {
				w.with(func(j *Job) { at = place.Trash + "/" + place.Bin{Of: j.of(), Run: run, At: w.env.Now()}.String() + "/" })
			}
			_, err := client.PutObject(t.Context(), w.bucket.Bucket, at+bad, strings.NewReader("x"), 1, minio.PutObjectOptions{})
			must(t, err)
			if versions {
				must(t, client.RemoveObject(t.Context(), w.bucket.Bucket, bad, minio.RemoveObjectOptions{}))
			}
			// What has the name of a directory now, and is none, is there all the same.
			_, err = client.PutObject(t.Context(), w.bucket.Bucket, "c/", strings.NewReader("x"), 1, minio.PutObjectOptions{})
			must(t, err)
			named, listed := 0, []string(nil)
			w.with(func(j *Job) {
				for d, err := range j.Deleted(t.Context(), DeletedOptions{}) {
					if k, is := errors.AsType[*place.KeptError](err); is && k.Key == bad && errors.Is(err, entry.ErrName) {
						named++
						continue
					}
					must(t, err)
					listed = append(listed, d.Entry.Path)
				}
			})
			if slices.Sort(listed); named != 1 || !slices.Equal(listed, []string{"a", "b", "b/f", "c/f", "z"}) {
				t.Errorf("named %d, listed %q", named, listed)
			}
			w.restore(RestoreOptions{DeletedOptions: DeletedOptions{Under: []string{"a"}}}, Restoration{Entries: 1})
			for _, dry := range []bool{true, false} {
				told := w.restore(RestoreOptions{DryRun: dry}, Restoration{Entries: 4, Failed: 1})
				if told[0].Entry.Path != bad || !errors.Is(told[0].Err, entry.ErrName) {
					t.Errorf("%q: %v", told[0].Entry.Path, told[0].Err)
				}
			}
			w.restore(RestoreOptions{}, Restoration{Failed: 1})
			// It was deleted, and found, though it cannot come back: that ends nothing else.
			w.restore(RestoreOptions{DeletedOptions: DeletedOptions{Under: []string{"b"}}}, Restoration{Failed: 1})
		})
	}
}

// What is back when a restore is called off is as it was, and the next run has nothing to do
// with it.
func TestARestoreThatIsCalledOffLeavesWhatIsBackAsItWas(t *testing.T) {
	w, _ := keepsDeleted(t, drill.MirrorMirror, false, false)
	for i := range 3 * restoreAtOnce {
		w.write(fmt.Sprintf("d/%04d", i), "x")
	}
	for i := range 3 * restoreAtOnce {
		w.write(fmt.Sprintf("stays/%04d", i), "x")
	}
	dir := filepath.Join(w.from, "d")
	must(t, errors.Join(os.Chmod(dir, 0o550), os.Chtimes(dir, time.Time{}, time.Unix(1e9, 0))))
	w.whole()
	must(t, os.RemoveAll(dir))
	w.whole()
	ctx, cancel := context.WithCancel(t.Context())
	w.with(func(j *Job) {
		res, err := j.Restore(ctx, RestoreOptions{Each: func(r Restored) {
			if r.Entry.Kind != entry.Dir {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) || res.Entries < restoreAtOnce || res.Entries >= 3*restoreAtOnce {
			t.Errorf("%+v, %v", res, err)
		}
	})
	for _, root := range []string{w.from, w.to} {
		st, err := os.Stat(filepath.Join(root, "d"))
		must(t, err)
		if st.Mode().Perm() != 0o550 || !st.ModTime().Equal(time.Unix(1e9, 0)) {
			t.Errorf("%s/d has %v of %v", root, st.Mode(), st.ModTime())
		}
	}
	w.settled(SyncOptions{Check: engine.CheckListing})
}

// A dry run of a restore fails as the restore would.
func TestADryRestoreAsksWhetherItMayWrite(t *testing.T) {
	w, _ := keepsDeleted(t, drill.MirrorMirror, false, false)
	for _, path := range []string{"a", "stays", "stays2", "stays3"} {
		w.write(path, path)
	}
	w.whole()
	must(t, os.Remove(filepath.Join(w.from, "a")))
	w.whole()
	must(t, unix.Mount(w.from, w.from, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(w.from, 0)) })
	must(t, unix.Mount("", w.from, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	j, err := w.env.OpenLast(t.Context(), w.mirror, Looks)
	must(t, err)
	if res, err := j.Restore(t.Context(), RestoreOptions{DryRun: true}); !errors.Is(err, unix.EROFS) || res != (Restoration{}) {
		t.Errorf("%+v, %v", res, err)
	}
	must(t, j.Close(t.Context()))
}

// A directory that the bucket implies by what lies in it, as somebody deleted its own object,
// comes back as it was known.
func TestADirectoryWithoutAnObjectComesBack(t *testing.T) {
	for _, versions := range []bool{false, true} {
		t.Run(fmt.Sprintf("versions %t", versions), func(t *testing.T) {
			w, _ := keepsDeleted(t, drill.MirrorMirror, true, versions)
			for _, path := range []string{"d/e/f", "stays", "stays2", "stays3"} {
				w.write(path, path)
			}
			must(t, errors.Join(os.Chmod(filepath.Join(w.from, "d/e"), 0o710), os.Chmod(filepath.Join(w.from, "d"), 0o750)))
			w.whole()
			before := w.tree()
			client := enginetest.Client(t, w.bucket)
			for _, key := range []string{"d/", "d/e/"} {
				must(t, client.RemoveObject(t.Context(), w.bucket.Bucket, key, minio.RemoveObjectOptions{}))
			}
			must(t, os.RemoveAll(filepath.Join(w.from, "d")))
			w.whole()
			if got := w.deleted(DeletedOptions{}); len(got) != 3 {
				t.Errorf("deleted: %q", got)
			}
			w.restore(RestoreOptions{}, Restoration{Entries: 3})
			after := w.tree()
			for _, path := range []string{"d", "d/e", "d/e/f"} {
				was, is := strings.Fields(before[path]), strings.Fields(after[path])
				if len(was) < 2 || len(is) < 2 || was[0] != is[0] || was[1] != is[1] {
					t.Errorf("%q was %q, and is %q", path, was, is)
				}
			}
			w.settled(SyncOptions{Check: engine.CheckAudit})
			w.asTheManifestSays()
		})
	}
}

// hoard is a place that keeps far more than it does.
type hoard struct {
	place.Keeper
	many int
}

func (h hoard) Kept(_ context.Context, o place.KeptOptions) iter.Seq2[place.Kept, error] {
	return func(yield func(place.Kept, error) bool) {
		for i := range h.many {
			k := place.Kept{Entry: entry.Entry{Path: fmt.Sprintf("projects/client-%03d/report-%06d.html", i%100, i)}, Bin: place.Bin{Of: o.Of, Run: "r", At: time.Unix(1<<30, 0)}}
			if !yield(k, nil) {
				return
			}
		}
	}
}

// However much was deleted, memory does not grow with it.
func TestMemoryDoesNotGrowWithWhatIsRestored(t *testing.T) {
	w, _ := keepsDeleted(t, drill.MirrorMirror, false, false)
	w.write("stays", "x")
	w.whole()
	// Were it held, it would take many times the bound.
	const many, bound = 100_000, 20 << 20
	must(t, os.Mkdir(filepath.Join(w.to, place.Trash), 0o700))
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	w.with(func(j *Job) {
		k, ok := j.places[plan.Dest].(place.Keeper)
		if !ok {
			t.Fatal("it keeps nothing")
		}
		j.places[plan.Dest] = hoard{k, many}
		before, most, seen := heap(), uint64(0), 0
		res, err := j.Restore(t.Context(), RestoreOptions{DryRun: true, Each: func(Restored) {
			if seen++; seen%20_000 == 1 {
				most = max(most, heap())
			}
		}})
		if must(t, err); res.Entries != many {
			t.Errorf("%+v", res)
		}
		if most > before+bound {
			t.Errorf("the heap grew by %d KiB, at most %d KiB are allowed", (most-before)>>10, bound>>10)
		}
		t.Logf("the heap grew by %d KiB", (max(most, before)-before)>>10)
	})
}

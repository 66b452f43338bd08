package job

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/plan"
)

// Each guard of deletes meets what it is there for, beside rclone or mc, which lose
// the copy, without a word and with exit code 0.
func TestWhatOthersWipe(t *testing.T) {
	for name, c := range map[string]struct {
		// happens is what happens to the source, or to the way to it.
		happens func(t *testing.T, source string)
		// guard is which one meets it; "" has it kept as it was missed, and elsewhere ends the
		// run before anything is begun.
		guard   plan.Guard
		deletes drill.MirrorDeletes
	}{
		"the source is empty": {func(t *testing.T, source string) { empty(t, source) }, plan.GuardEmpty, drill.MirrorDeletes{Scans: 1, MostPercent: 100}},
		"another disk is mounted": {func(t *testing.T, source string) {
			newDisk(t, source)
			enginetest.Write(t, source, "lost+found/x", "")
		}, elsewhere, drill.MirrorDeletes{Scans: 1, MostPercent: 100}},
		"another disk with an old copy is mounted": {func(t *testing.T, source string) {
			newDisk(t, source)
			old(t, source, 60)
		}, elsewhere, drill.MirrorDeletes{Scans: 1, MostPercent: 100}},
		"half of it is gone":       {func(t *testing.T, source string) { must(t, os.RemoveAll(filepath.Join(source, "d1"))) }, plan.GuardPercent, drill.MirrorDeletes{Scans: 1}},
		"too many are gone":        {func(t *testing.T, source string) { must(t, os.RemoveAll(filepath.Join(source, "d1"))) }, plan.GuardNumber, drill.MirrorDeletes{Scans: 1, Most: 10, MostPercent: 100}},
		"it was away for a moment": {func(t *testing.T, source string) { must(t, os.Remove(filepath.Join(source, "d1/00"))) }, "", drill.MirrorDeletes{Scans: 2, MostPercent: 100}},
	} {
		t.Run(name, func(t *testing.T) {
			w := between(t, drill.MirrorMirror, false)
			w.mirror.Deletes = c.deletes
			for i := range 60 {
				w.write(fmt.Sprintf("d%d/%02d", i%2, i/2), "precious")
			}
			w.whole()
			theirs := t.TempDir()
			wipes(t, theirs, 60, func() (string, error) { return rclone(t, "sync", w.from, theirs) }, nil)
			c.happens(t, w.from)
			wipes(t, theirs, 60, nil, func() (string, error) { return rclone(t, "sync", w.from, theirs) })
			if c.guard == elsewhere {
				w.beginsNothing(60)
				return
			}
			res := w.sync(SyncOptions{})
			if n := files(t, w.to); n < 60 {
				t.Errorf("%d files are left, of 60", n)
			}
			told := c.guard == "" && res.Done[plan.Keep] == 1
			for _, r := range res.Refusals {
				told = told || r.Guard == c.guard
			}
			if !told {
				t.Errorf("it was not told: %+v", res.Report)
			}
		})
	}
}

// elsewhere stands for the guard of places, which deletes need not come to.
const elsewhere plan.Guard = "the place"

const oldCopy = "an old copy"

// old writes the files that a mirror has copied, as they were years ago.
func old(t testing.TB, dir string, n int) {
	t.Helper()
	for i := range n {
		path := fmt.Sprintf("d%d/%02d", i%2, i/2)
		enginetest.Write(t, dir, path, oldCopy)
		then := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
		must(t, os.Chtimes(filepath.Join(dir, path), then, then))
	}
}

// beginsNothing makes runs that must begin nothing, as the source is not the mirror's, and leave the
// copy of n files as it is.
func (w *world) beginsNothing(n int) {
	w.Helper()
	for _, dry := range []bool{true, false, true, false} {
		j, err := w.env.OpenRun(w.Context(), w.mirror, dry)
		must(w, err)
		res, err := j.Sync(w.Context(), SyncOptions{DryRun: dry})
		must(w, j.Close(w.Context()))
		if err == nil || FaultOf(err) != FaultRefused || !strings.Contains(err.Error(), "the source "+w.mirror.From+" is not the place that the mirror was set up with") || !strings.Contains(err.Error(), "--accept-places") {
			w.Errorf("dry %v: it was not told: %v", dry, err)
		}
		if len(res.Done) > 0 {
			w.Errorf("dry %v: it did %v", dry, res.Done)
		}
	}
	if got := w.left(); got != n {
		w.Errorf("%d files are left, of %d", got, n)
	}
}

// left counts the files of the copy that are as they were.
func (w *world) left() (n int) {
	w.Helper()
	if w.to != "" {
		return files(w, w.to)
	}
	c := enginetest.Client(w, w.bucket)
	for o := range c.ListObjects(w.Context(), w.bucket.Bucket, minio.ListObjectsOptions{Recursive: true}) {
		must(w, o.Err)
		if !strings.HasSuffix(o.Key, "/") && o.Size != int64(len(oldCopy)) {
			n++
		}
	}
	return n
}

// A source that is not the one that the mirror was set up with, and has older files of the
// same names, is written over no copy, in whichever mode: a disk that is mounted in its place,
// or a bucket that was made anew.
func TestAnotherSourceIsNotCopied(t *testing.T) {
	for _, mode := range []string{drill.MirrorCopy, drill.MirrorMirror} {
		for _, intoBucket := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, into bucket %v", mode, intoBucket), func(t *testing.T) {
				w := between(t, mode, intoBucket)
				for i := range 20 {
					w.write(fmt.Sprintf("d%d/%02d", i%2, i/2), "precious")
				}
				w.whole()
				theirs := t.TempDir()
				mirror := func() (string, error) { return mc(t, server.Start(t).Endpoint, w.from, theirs) }
				wipes(t, theirs, 20, mirror, nil)
				newDisk(t, w.from)
				old(t, w.from, 20)
				wipes(t, theirs, 20, nil, mirror)
				w.beginsNothing(20)
				// It was meant, as when the source was brought back from a backup.
				if res := w.sync(SyncOptions{AcceptPlaces: true}); !res.Whole() || res.Done[plan.Put] != 20 || w.left() != 0 {
					t.Errorf("accepted: %+v", res.Report)
				}
				w.whole()
			})
		}
		t.Run(mode+", out of a bucket", func(t *testing.T) {
			seed := between(t, drill.MirrorMirror, true)
			for i := range 20 {
				seed.write(fmt.Sprintf("d%d/%02d", i%2, i/2), "precious")
			}
			seed.whole()
			w := &world{TB: t, env: seed.env, to: t.TempDir()}
			w.mirror = drill.Mirror{Name: "back", Mode: mode, From: seed.mirror.To, To: "dir:" + w.to}
			w.whole()
			anew(t, seed.bucket)
			old(t, seed.from, 20)
			if out, err := rclone(t, "copy", seed.from, ":s3:"+seed.bucket.Bucket); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			w.beginsNothing(20)
			if res := w.sync(SyncOptions{AcceptPlaces: true}); !res.Whole() || w.left() != 0 {
				t.Errorf("accepted: %+v", res.Report)
			}
		})
	}
}

// anew removes a bucket with all that it holds, and makes another one of its name.
func anew(t testing.TB, b bucket.Config) {
	t.Helper()
	c := enginetest.Client(t, b)
	must(t, c.RemoveBucketWithOptions(t.Context(), b.Bucket, minio.RemoveBucketOptions{ForceDelete: true}))
	must(t, c.MakeBucket(t.Context(), b.Bucket, minio.MakeBucketOptions{}))
}

// A mount below the source whose server has died cannot be read, not by root either: mc
// takes all that it did not come to see for deleted, there and elsewhere.
func TestADeadMountWipesNothing(t *testing.T) {
	w := between(t, drill.MirrorMirror, false)
	for i := range 40 {
		w.write(fmt.Sprintf("d%d/%02d", i%2, i/2), "precious")
	}
	w.whole()
	theirs := t.TempDir()
	mirror := func() (string, error) { return mc(t, server.Start(t).Endpoint, w.from, theirs) }
	wipes(t, theirs, 40, mirror, nil)
	deadMount(t, filepath.Join(w.from, "d1"))
	wipes(t, theirs, 40, nil, mirror)
	if n := files(t, theirs); n > 0 {
		t.Errorf("mc left %d", n)
	}
	res := w.sync(SyncOptions{})
	if n := files(t, w.to); n != 40 {
		t.Errorf("%d files are left, of 40", n)
	}
	if res.Faults == 0 || res.Done[plan.Delete] > 0 || !slices.ContainsFunc(res.Errors, func(err error) bool { return strings.Contains(err.Error(), "d1") }) {
		t.Errorf("it was not told: %+v", res.Report)
	}
	// Nor are those deleted whose absence was seen.
	must(t, os.Remove(filepath.Join(w.from, "d0/00")))
	res = w.sync(SyncOptions{})
	if n := files(t, w.to); n != 40 || !slices.ContainsFunc(res.Refusals, func(r plan.Refusal) bool { return r.Guard == plan.GuardListing }) {
		t.Errorf("%d files are left, of 40: %+v", n, res.Report)
	}
}

// deadMount mounts a file system that nobody serves: whatever is asked of it fails.
func deadMount(t *testing.T, dir string) {
	t.Helper()
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	must(t, err)
	err = unix.Mount("dead", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse.Fd()))
	must(t, errors.Join(err, fuse.Close()))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	if _, err := os.ReadDir(dir); !errors.Is(err, unix.ENOTCONN) {
		t.Fatalf("it is not dead: %v", err)
	}
}

// Two ways, what somebody deletes by mistake is deleted on the other side, too. Where that
// keeps no versions, it is lost with rclone bisync.
func TestTwoWayLosesNothing(t *testing.T) {
	w := between(t, drill.MirrorTwoWay, true)
	w.bucket = server.Bucket(t, false)
	w.mirror.To = "s3:lab/" + w.bucket.Bucket
	for i := range 40 {
		w.write(fmt.Sprintf("%02d", i), "precious")
	}
	w.whole()
	theirs, known := server.Bucket(t, false), t.TempDir()
	bisync := func(more ...string) (string, error) {
		return rclone(t, append([]string{"bisync", w.from, ":s3:" + theirs.Bucket, "--workdir", known}, more...)...)
	}
	objects := func(c bucket.Config) (n int) {
		for o := range enginetest.Client(t, c).ListObjects(t.Context(), c.Bucket, minio.ListObjectsOptions{Recursive: true}) {
			must(t, o.Err)
			n++
		}
		return n
	}
	if out, err := bisync("--resync"); err != nil || objects(theirs) != 40 {
		t.Fatalf("%v, %d objects: %s", err, objects(theirs), out)
	}
	for i := range 10 {
		must(t, os.Remove(filepath.Join(w.from, fmt.Sprintf("%02d", i))))
	}
	if out, err := bisync(); err != nil || objects(theirs) != 30 {
		t.Fatalf("this guard is against nothing: %v, %d objects: %s", err, objects(theirs), out)
	}
	res := w.sync(SyncOptions{})
	if n := objects(w.bucket); n != 40 || !slices.ContainsFunc(res.Refusals, func(r plan.Refusal) bool { return r.Guard == plan.GuardVersioned }) {
		t.Errorf("%d objects are left, of 40: %+v", n, res.Report)
	}
}

// wipes has somebody else make a copy, or lose files of it.
func wipes(t *testing.T, dir string, n int, whole, lossy func() (string, error)) {
	t.Helper()
	do := whole
	if do == nil {
		do = lossy
	}
	if out, err := do(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := files(t, dir); (got >= n) != (whole != nil) {
		t.Fatalf("there are %d files of %d: this guard is against nothing", got, n)
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	must(t, err)
	for _, d := range all {
		must(t, os.RemoveAll(filepath.Join(dir, d.Name())))
	}
}

// files counts what is below a directory, without old copies.
func files(t testing.TB, dir string) (n int) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		if info, err := d.Info(); err != nil || info.Size() != int64(len(oldCopy)) {
			return err
		}
		content, err := os.ReadFile(path)
		if string(content) == oldCopy {
			n--
		}
		return err
	}))
	return n
}

// A restart of MinIO in the middle of a listing makes it end early: mc deletes the
// files of what it did not see.
func TestARestartWipesNothing(t *testing.T) {
	const each, all = 1200, 2 * 1200
	seed := between(t, drill.MirrorMirror, true)
	seed.from = enginetest.Memory(t)
	seed.mirror.From = "dir:" + seed.from
	for _, dir := range []string{"a", "a.b"} {
		for i := range each {
			seed.write(fmt.Sprintf("%s/%05d", dir, i), "precious")
		}
	}
	seed.whole()

	ours := &world{TB: t, env: seed.env, to: enginetest.Memory(t)}
	ours.mirror = drill.Mirror{Name: "back", Mode: drill.MirrorMirror, From: seed.mirror.To, To: "dir:" + ours.to,
		Deletes: drill.MirrorDeletes{Scans: 1, MostPercent: 100}}
	ours.whole()
	way := restarts(t, 3)
	ours.env.Stores[0].Endpoint = way.URL
	ours.sync(SyncOptions{Check: engine.CheckListing, AcceptPlaces: true})
	way.Close() // The page before which it restarts may be one that nobody waits for any more.
	if n := files(t, ours.to); n != all || way.restarted.Load() != 1 {
		t.Errorf("we have %d files, of %d, after %d restarts", n, all, way.restarted.Load())
	}

	theirs := enginetest.Memory(t)
	mirror := func(at int32) (string, error) { return mc(t, restarts(t, at).URL, "there/"+seed.bucket.Bucket, theirs) }
	wipes(t, theirs, all, func() (string, error) { return mirror(0) }, nil)
	wipes(t, theirs, all, nil, func() (string, error) { return mirror(3) })
}

// way is a way to the tests' server.
type way struct {
	*httptest.Server
	restarted atomic.Int32
}

// restarts is a way to the server that restarts it before the at-th page of a
// listing.
func restarts(t *testing.T, at int32) *way {
	t.Helper()
	m := server.Start(t)
	target, err := url.Parse(m.Endpoint)
	must(t, err)
	w := &way{}
	var pages atomic.Int32
	transport := &http.Transport{DisableKeepAlives: true}
	w.Server = httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // It is signed.
			if q := r.In.URL.Query(); q.Get("list-type") == "2" && q.Get("max-keys") != "1" && pages.Add(1) == at {
				must(t, m.Restart(t.Context()))
				w.restarted.Add(1)
			}
		},
	})
	t.Cleanup(w.Close)
	return w
}

// mc has mc mirror a place, of the server "there" or here, into a directory.
func mc(t *testing.T, endpoint, from, dir string) (string, error) {
	t.Helper()
	m := server.Start(t)
	c := exec.CommandContext(t.Context(), enginetest.Binary(t, "mc"), "--config-dir", t.TempDir(), "mirror", "--overwrite", "--remove", from, dir)
	c.Env = append(os.Environ(), "MC_HOST_there="+strings.Replace(endpoint, "://", "://"+url.PathEscape(m.AccessKey)+":"+url.PathEscape(m.SecretKey)+"@", 1))
	out, err := c.CombinedOutput()
	return string(out), err
}

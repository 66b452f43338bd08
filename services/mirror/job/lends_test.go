package job

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/firedrill/firedrill/pkg/drill"
	"github.com/firedrill/firedrill/services/mirror/bucket"
	"github.com/firedrill/firedrill/services/mirror/engine/enginetest"
	"github.com/firedrill/firedrill/services/mirror/entry"
	"github.com/firedrill/firedrill/services/mirror/place/local"
	"github.com/firedrill/firedrill/services/mirror/plan"
	"github.com/firedrill/firedrill/services/mirror/proof"
)

// forge writes an object as somebody may who has the bucket's keys, and nothing else.
func forge(t testing.TB, c bucket.Config, key, content, fields string) {
	t.Helper()
	_, err := enginetest.Client(t, c).PutObject(t.Context(), c.Bucket, key, strings.NewReader(content), int64(len(content)),
		minio.PutObjectOptions{UserMetadata: map[string]string{entry.MetaEntry: fields, entry.MetaMTime: "1.0"}})
	must(t, err)
}

// hostile are what would lend rights to whoever forged it.
var hostile = map[string]string{
	"chardev": "mode=666&uid=0&gid=0&kind=chardev&device=259", "d/blockdev": "mode=666&uid=0&gid=0&kind=blockdev&device=1792",
	"suid": "mode=4755&uid=0&gid=0", "sgid": "mode=2755&uid=0&gid=0",
	"capable": "mode=755&uid=0&gid=0&x.security.capability=%01%00%00%02%20%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00",
	"trusted": "mode=644&uid=0&gid=0&x.trusted.x=y",
}

// modes are those of the files below a directory, with what kind each is.
func modes(t testing.TB, dir string) map[string]os.FileMode {
	t.Helper()
	all := map[string]os.FileMode{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			all[strings.TrimPrefix(path, dir+"/")] = st.Mode()
		}
		return err
	}))
	return all
}

// lends fails unless a run has refused just these for the rights that they would lend.
func lends(t testing.TB, res Result, keys ...string) {
	t.Helper()
	got := map[string]bool{}
	for _, a := range res.Unholdable {
		got[a.Key] = true
		if !errors.Is(a.Err, local.ErrLends) || !strings.Contains(a.Err.Error(), "--privileged") {
			t.Errorf("%q: %v", a.Key, a.Err)
		}
	}
	want := map[string]bool{}
	for _, k := range keys {
		want[k] = true
	}
	if !maps.Equal(got, want) || res.Whole() != (len(keys) == 0) || res.Failed > 0 {
		t.Errorf("refused: %v, want %v; %+v", got, want, res.Report)
	}
}

// Whoever may write one object gets no rights on the host that copies it, unless that is
// asked for.
func TestABucketLendsNoRights(t *testing.T) {
	for _, plainly := range []bool{false, true} {
		env := withStore(t, newEnv(t))
		c := server.Bucket(t, false)
		if plainly {
			c, _ = plain(t, &env)
		}
		w := &world{TB: t, env: env, to: t.TempDir()}
		w.mirror = drill.Mirror{Name: "m", Mode: drill.MirrorMirror, From: "s3:" + env.Stores[0].Name + "/" + c.Bucket, To: "dir:" + w.to,
			Xattrs: true, Deletes: drill.MirrorDeletes{Scans: 1, MostPercent: 100}}
		var keys []string
		for key, fields := range hostile {
			forge(t, c, key, "", fields)
			keys = append(keys, key)
		}
		forge(t, c, "good", "x", "mode=640&uid=1&gid=2")
		dry := w.sync(SyncOptions{DryRun: true})
		lends(t, dry, keys...)
		for range 2 {
			res := w.sync(SyncOptions{})
			lends(t, res, keys...)
			if got := modes(t, w.to); len(got) != 1 || got["good"] != 0o640 {
				t.Fatalf("there are %v", got)
			}
			if !maps.Equal(dry.Done, res.Done) {
				t.Errorf("the dry run said %v, and %v was done", dry.Done, res.Done)
			}
			dry = w.sync(SyncOptions{DryRun: true})
		}
		if v := w.verified(plan.Dest, proof.L4); !v.Verified() {
			t.Error(v)
		}
		// They are there, and no run has carried them.
		if v := w.verified(plan.Source, proof.L1); v.Verified() || v.Verdict.Extra.Count != int64(len(keys)) || v.Verdict.Problems() != int64(len(keys)) {
			t.Error(v)
		}
		w.mirror.Privileged = true
		w.whole()
		got := modes(t, w.to)
		if len(got) != len(hostile)+1 || got["suid"] != os.ModeSetuid|0o755 || got["sgid"] != os.ModeSetgid|0o755 ||
			got["chardev"] != os.ModeDevice|os.ModeCharDevice|0o666 || got["d/blockdev"] != os.ModeDevice|0o666 {
			t.Errorf("there are %v", got)
		}
		if n, err := unix.Getxattr(filepath.Join(w.to, "capable"), "security.capability", nil); n != 20 {
			t.Errorf("the file's capabilities have %d bytes, %v", n, err)
		}
		for _, side := range []plan.Side{plan.Source, plan.Dest} {
			if v := w.verified(side, proof.L4); !v.Verified() {
				t.Error(v)
			}
		}
		// What is there may stay; what lies in the bucket anew has to be asked for anew.
		w.mirror.Privileged = false
		w.whole()
		forge(t, c, "suid", "other", hostile["suid"])
		lends(t, w.sync(SyncOptions{}), "suid")
		if b, err := os.ReadFile(filepath.Join(w.to, "suid")); err != nil || len(b) > 0 {
			t.Errorf("somebody else's program runs as root: %q, %v", b, err)
		}
	}
}

// What a directory has of its own stays, is carried, and is not exchanged from the bucket.
func TestTwoWayKeepsTheRightsThatADirectoryGives(t *testing.T) {
	w := between(t, drill.MirrorTwoWay, true)
	at := func(name string) string { return filepath.Join(w.from, name) }
	for _, name := range []string{"suid", "file", "edited", "touched"} {
		w.write(name, "own")
	}
	must(t, errors.Join(
		unix.Mknod(at("null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))),
		unix.Chmod(at("suid"), 0o4711), unix.Chmod(at("edited"), 0o4711), unix.Chmod(at("touched"), 0o4711),
	))
	w.whole()
	if res := w.whole(); res.Changed {
		t.Errorf("it was carried again: %+v", res)
	}
	before := enginetest.Tree(t, w.from)
	forge(t, w.bucket, "null", "", "mode=666&uid=0&gid=0&kind=chardev&device=259")
	forge(t, w.bucket, "suid", "theirs", "mode=4755&uid=0&gid=0")
	forge(t, w.bucket, "file", "own", "mode=4755&uid=0&gid=0")
	forge(t, w.bucket, "new", "theirs", "mode=4755&uid=0&gid=0")
	// What is changed in the directory goes out as ever.
	must(t, errors.Join(os.WriteFile(at("edited"), []byte("again"), 0), unix.Chmod(at("edited"), 0o4711), unix.Chmod(at("touched"), 0o4700)))
	for _, path := range []string{"edited", "touched"} {
		before[path] = enginetest.Tree(t, w.from)[path]
	}
	for round := range 3 {
		dry := w.sync(SyncOptions{DryRun: true})
		res := w.sync(SyncOptions{})
		lends(t, res, "null", "suid", "file", "new")
		if !maps.Equal(dry.Done, res.Done) {
			t.Errorf("the dry run said %v, and %v was done", dry.Done, res.Done)
		}
		if got := enginetest.Tree(t, w.from); !maps.Equal(got, before) {
			t.Errorf("the directory is\n%q\nand was\n%q", got, before)
		}
		if n := res.Done[plan.Put] + res.Done[plan.Meta]; round > 0 && n > 0 {
			t.Errorf("round %d has changed %d", round, n)
		}
		o, err := enginetest.Client(t, w.bucket).GetObject(t.Context(), w.bucket.Bucket, "suid", minio.GetObjectOptions{})
		must(t, err)
		var b bytes.Buffer
		_, err = b.ReadFrom(o)
		if must(t, errors.Join(err, o.Close())); b.String() != "theirs" {
			t.Errorf("the bucket holds %q", b.String())
		}
	}
	// Both sides differ from what a run left, and are told of.
	v := w.verified(plan.Dest, proof.L4)
	if all := v.Verdict; v.Verified() || all.Different.Count != 1 || all.MetadataOnly.Count != 2 || all.Extra.Count != 1 {
		t.Errorf("%+v", all)
	}
	w.mirror.Privileged = true
	w.whole()
	if got := modes(t, w.from); got["new"] != os.ModeSetuid|0o755 || got["null"].Perm() != 0o666 {
		t.Errorf("there are %v", got)
	}
}

// The way back beside the way out has nothing to make anew, and nothing to refuse.
func TestTheWayBackNeedsNoTrustWhileAllIsThere(t *testing.T) {
	w := between(t, drill.MirrorMirror, true)
	at := filepath.Join(w.from, "suid")
	w.write("suid", "own")
	must(t, unix.Chmod(at, 0o4711))
	w.whole()
	back := &world{TB: t, env: w.env}
	back.mirror = drill.Mirror{Name: "back", From: w.mirror.To, To: w.mirror.From, Overwrite: drill.OverwriteUnedited}
	back.whole()
	// Only its content tells what it is now.
	must(t, errors.Join(unix.Chmod(at, 0o4700), unix.Chmod(at, 0o4711)))
	w.whole()
	for range 2 {
		if res := back.whole(); res.Done[plan.Equal] != 1 {
			t.Errorf("%v", res.Done)
		}
	}
	must(t, os.Remove(at))
	lends(t, back.sync(SyncOptions{}), "suid")
	back.mirror.Privileged = true
	back.whole()
	if got := modes(t, w.from); got["suid"] != os.ModeSetuid|0o711 {
		t.Errorf("it came back as %v", got)
	}
}
